"""SQLite transaction that takes the write lock at once."""

import contextlib
import sqlite3
from collections.abc import Iterator


@contextlib.contextmanager
def write_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done within, or roll it back if anything is raised.

    The lock is taken before the first read, so that what was read is still so when it is written.

    Args:
        connection: In autocommit mode (``isolation_level=None``).

    Raises:
        sqlite3.Error: If it cannot begin, or not be committed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # SQLite has ended it itself after some errors
            connection.execute("ROLLBACK")
