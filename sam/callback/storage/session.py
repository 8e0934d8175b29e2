"""A database connection as seen from the thread that works on it."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import TypeVar

import pyodbc

from sam.callback.storage.dialects import Dialect, dialect_of
from sam.callback.storage.errors import ErrorClass, classify, is_connection_lost
from sam.callback.storage.gate import Gate

T = TypeVar("T")


class Session:
    """A connection set up for its dialect, with one cursor that keeps a statement prepared.

    A cursor per batch would be simpler, and prepare anew each time: with psqlODBC 400 instead of
    245 microseconds per committed UPDATE on loopback, and a round trip more elsewhere.

    Args:
        connection: A fresh connection, autocommit off.
        lock_timeout: Seconds to wait for another's lock, where the dialect can say so.

    Raises:
        pyodbc.Error: If the set-up failed.
    """

    def __init__(self, connection: pyodbc.Connection, lock_timeout: float) -> None:
        self.connection = connection
        self.dialect = dialect_of(connection)
        self.cursor = connection.cursor()
        self._last_used = time.monotonic()
        try:
            self._set_up(lock_timeout)
        except BaseException:
            close(self)
            raise

    def _set_up(self, lock_timeout: float) -> None:
        lock_timeout_ms = math.ceil(lock_timeout * 1000)
        for statement in self.dialect.session_setup:
            self.cursor.execute(statement.format(lock_timeout_ms=lock_timeout_ms))
        self.connection.commit()
        if self.dialect.has_query_timeout:
            self.connection.timeout = math.ceil(lock_timeout * 4)

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        is_closed: bool = self.connection.closed
        return is_closed

    @property
    def idle_seconds(self) -> float:
        """How long ago it was last used."""
        return time.monotonic() - self._last_used

    def used(self) -> None:
        """Note that it was used now."""
        self._last_used = time.monotonic()

    def close(self) -> None:
        """Close the cursor, then the connection; open work is rolled back.

        A cursor that outlives its connection raises when it is collected (seen in pyodbc 5.5).

        Raises:
            pyodbc.Error: If it is closed already, or the driver fails at it.
        """
        with contextlib.suppress(pyodbc.Error):
            self.cursor.close()
        self.connection.close()


class Transaction:
    """What the work on a connection's thread may use. It may commit more than once."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self._session = session
        self._gate = gate
        self._is_open = False
        self.is_suspect = False
        """To be set after an error that may be the connection's."""

    @property
    def dialect(self) -> Dialect:
        """The database's dialect."""
        return self._session.dialect

    @property
    def cursor(self) -> pyodbc.Cursor:
        """The session's cursor; what it executes belongs to this transaction."""
        self._is_open = True
        return self._session.cursor

    def commit(self) -> None:
        """Commit, unless the time-out came first.

        Raises:
            AbandonedError: If it did.
            pyodbc.Error: If the COMMIT failed.
        """
        self._gate.enter()
        self._session.connection.commit()
        self._is_open = False

    def rollback(self) -> None:
        """Undo what is not committed."""
        if self._is_open:
            self._session.connection.rollback()
            self._is_open = False


Work = Callable[[Transaction], T]
"""A function that runs on a connection's thread: executes, fetches and commits there."""


def work_on(
    opened: pyodbc.Connection | Session, lock_timeout: float, work: Work[T], gate: Gate
) -> tuple[Session, T]:
    """Do the work, on this thread; close the connection if an error leaves it unfit for more.

    Args:
        opened: The connection: fresh, or as it came from here.
        lock_timeout: As `Session` takes it.
        work: What to do. What it has not committed is rolled back, as the connection's next user
            would commit it.
        gate: Where the work stops if it is given up.

    Raises:
        pyodbc.Error: If the set-up, the work or the rollback let one out.
        AbandonedError: If the work was given up.
    """
    session = None
    try:
        session = opened if isinstance(opened, Session) else Session(opened, lock_timeout)
        transaction = Transaction(session, gate)
        try:
            result = work(transaction)
        finally:
            transaction.rollback()
        session.used()
        if transaction.is_suspect:
            close(session)
    except BaseException as error:
        if session is None or not _leaves_fit(error, session.dialect):
            close(session or opened)
        raise
    return session, result


def close(opened: pyodbc.Connection | Session) -> None:
    """Close a connection that may be closed or dead already."""
    with contextlib.suppress(pyodbc.Error):
        opened.close()


def _leaves_fit(error: BaseException, dialect: Dialect) -> bool:
    return (
        isinstance(error, pyodbc.Error)
        and classify(error, dialect) is not ErrorClass.UNKNOWN
        and not is_connection_lost(error)
    )
