"""Schema of the spool's file: version, migrations, and new keys where the key rule changes.

The version is SQLite's ``PRAGMA user_version``. A file of version 0 is new, or of a release before
there was a version; it gets the tables of that release first, where they are missing.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from sam.callback.inbox.sqlite.transaction import write_transaction

_MIGRATIONS: Final = (
    (
        """
        CREATE TABLE IF NOT EXISTS entries (
            number        INTEGER PRIMARY KEY,
            kind          TEXT NOT NULL,
            deployment_id TEXT UNIQUE,
            status        TEXT,
            payload       BLOB,
            reason        TEXT NOT NULL,
            size          INTEGER NOT NULL
        )
        """,
        "CREATE INDEX IF NOT EXISTS entries_by_kind ON entries (kind, number)",
        """
        CREATE TABLE IF NOT EXISTS totals (
            kind    TEXT PRIMARY KEY,
            entries INTEGER NOT NULL,
            bytes   INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE TABLE IF NOT EXISTS last_number (number INTEGER NOT NULL)",
        "INSERT INTO last_number SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM last_number)",
        """
        CREATE TRIGGER IF NOT EXISTS count_insert AFTER INSERT ON entries BEGIN
            INSERT INTO totals VALUES (NEW.kind, 1, NEW.size)
                ON CONFLICT (kind) DO UPDATE SET entries = entries + 1, bytes = bytes + NEW.size;
        END
        """,
        """
        CREATE TRIGGER IF NOT EXISTS count_delete AFTER DELETE ON entries BEGIN
            UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size
                WHERE kind = OLD.kind;
        END
        """,
        """
        CREATE TRIGGER IF NOT EXISTS count_update AFTER UPDATE OF kind, size ON entries BEGIN
            UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size
                WHERE kind = OLD.kind;
            INSERT INTO totals VALUES (NEW.kind, 1, NEW.size)
                ON CONFLICT (kind) DO UPDATE SET entries = entries + 1, bytes = bytes + NEW.size;
        END
        """,
        # Its unique index is that of the key by now. No row is written anew: a full spool of 1 GiB
        # is migrated in the time that it takes to make one index.
        "ALTER TABLE entries RENAME COLUMN deployment_id TO key",
        "ALTER TABLE entries ADD COLUMN deployment_id TEXT",  # NULL where the key is spelled so
        "ALTER TABLE entries ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE entries ADD COLUMN due INTEGER NOT NULL DEFAULT 0",
        """
        CREATE INDEX entries_by_due ON entries (attempts, due)
            WHERE kind IN ('queued', 'unmatched')
        """,
        "ALTER TABLE last_number RENAME TO meta",
        "ALTER TABLE meta RENAME COLUMN number TO last_number",
        "ALTER TABLE meta ADD COLUMN key_rule TEXT NOT NULL DEFAULT ''",
    ),
)
"""The statements that lead to version 1, 2 and so on. What was released is not changed."""

_REKEY: Final = (
    # Of entries that become one, the one with the highest number stays.
    """
    DELETE FROM entries WHERE number IN (
        SELECT number FROM (
            SELECT number, row_number() OVER (
                PARTITION BY key_of(coalesce(deployment_id, key)) ORDER BY number DESC
            ) AS place
            FROM entries WHERE key IS NOT NULL
        )
        WHERE place > 1
    )
    """,
    # Keys may change places, and each is unique: so for a moment none has any.
    """
    UPDATE entries SET deployment_id = coalesce(deployment_id, key), key = NULL
    WHERE key IS NOT NULL AND key_of(coalesce(deployment_id, key)) <> key
    """,
    """
    UPDATE entries SET
        key = key_of(deployment_id), deployment_id = nullif(deployment_id, key_of(deployment_id))
    WHERE key IS NULL AND deployment_id IS NOT NULL
    """,
)
_TO_REKEY: Final = """
SELECT 1 FROM entries WHERE key IS NOT NULL AND key_of(coalesce(deployment_id, key)) <> key LIMIT 1
"""

VERSION: Final = len(_MIGRATIONS)
"""The version that this release reads and writes."""


class SpoolVersionError(Exception):
    """The file is of another version. The message says what to do."""


class OlderSpoolError(SpoolVersionError):
    """The file is of an older version: it can be migrated."""


def require_version(connection: sqlite3.Connection, path: Path) -> None:
    """Check that a file is of this release's version.

    Raises:
        SpoolVersionError: If it is of another.
        sqlite3.Error: If it cannot be read.
    """
    version = _version_of(connection)
    if version > VERSION:
        raise SpoolVersionError(
            f"A newer release of this service made the spool {path}: its version is {version}, and "
            f"this release knows {VERSION}. Run that release, or let its `sam-callback spool drain`"
            " apply what is there and move the file away."
        )
    if version < VERSION:
        raise OlderSpoolError(
            f"An older release of this service made the spool {path}: its version is {version}, and"
            f" this release needs {VERSION}. It is migrated when the service starts; one of the "
            "older release that still runs must be ended first."
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to this release's version, in one transaction.

    Args:
        connection: On the file, in autocommit mode and without a limit of pages.
        path: The file.

    Raises:
        SpoolVersionError: If it is of a newer one.
        sqlite3.Error: If that fails. Nothing is changed then.
    """
    if _version_of(connection) < VERSION:
        with write_transaction(connection):
            for statements in _MIGRATIONS[_version_of(connection) :]:  # another may have done it
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    require_version(connection, path)


def rekey(connection: sqlite3.Connection, key_of: Callable[[str], str]) -> None:
    """Give every entry the key of its deployment's id, within a transaction.

    Args:
        connection: On the file.
        key_of: The rule: what the database takes an id for.

    Raises:
        sqlite3.Error: If that fails.
    """
    connection.create_function("key_of", 1, key_of, deterministic=True)
    if connection.execute(_TO_REKEY).fetchone() is not None:  # looked at first: that is fast
        for statement in _REKEY:
            connection.execute(statement)


def check_that_it_is_a_spool(path: Path) -> None:
    """Look into a file, and change nothing.

    Raises:
        sqlite3.Error: If it is no spool.
        SpoolVersionError: If it is one of another version.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM entries WHERE number < 0")
        require_version(connection, path)


def _version_of(connection: sqlite3.Connection) -> int:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
