"""Database connection: set up for its dialect; executes, commits with a permit, closes."""

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Self, TypeVar

import pyodbc

from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.errors import (
    ErrorClass,
    failure_loses_connection,
    is_connection_lost,
)
from sam.callback.storage.key_rule import EXACT
from sam.callback.storage.odbc.dialects import TableDescription, dialect_of
from sam.callback.storage.parameters import Parameters
from sam.callback.storage.statements import Statement, Statements

LOCK_TIMEOUT_SHARE: Final = 0.25
"""The lock time-out as a share of CALLBACK_DB_TIMEOUT, so that the other rows have time left."""

SHORT_LOCK_SECONDS: Final = 0.01
"""The lock time-out, once one row of a batch has used up the whole one."""

T = TypeVar("T")


class AbandonedError(Exception):
    """The time-out came first: this thread may not commit any more."""


class Identity(NamedTuple):
    """The two ends of a connection, as the driver tells them.

    Attributes:
        driver: The driver's library.
        driver_version: Its version.
        database: The database's product.
        database_version: Its version.
    """

    driver: str
    driver_version: str
    database: str
    database_version: str

    @classmethod
    def of(cls, connection: pyodbc.Connection) -> Self:
        """Ask the driver; it knows by itself, or since the login."""
        return cls(
            connection.getinfo(pyodbc.SQL_DRIVER_NAME),
            connection.getinfo(pyodbc.SQL_DRIVER_VER),
            connection.getinfo(pyodbc.SQL_DBMS_NAME),
            connection.getinfo(pyodbc.SQL_DBMS_VER),
        )


class DatabaseConnection:
    """An ODBC connection with one cursor, which keeps a statement prepared.

    A cursor per batch would be simpler, and prepare anew each time: with psqlODBC 400 instead of
    245 microseconds per committed UPDATE on loopback, and a round trip more elsewhere.

    All but `closed` and `idle_since` is for the one thread that has the connection.

    Args:
        odbc: A fresh connection, autocommit off. It is closed if the set-up fails.
        settings: Of it and of those beside it.

    Attributes:
        closed: Whether it is closed.
        idle_since: When its pool got it back, on the monotonic clock.
        dialect: The database's.
        identity: The driver and the database.
        statements: The table's, in this dialect.
        supports_multi_statement: Whether several of them may be executed as one.
        parameters: How values are bound; None where the driver does by itself.
        key_rule: Which ids the database takes for the same.
        unknown: Why the types of the columns are not known; '' if they are, or are not needed.
        is_suspect: To be set after an error that may be the connection's.
        before_commit: Called before each COMMIT of this work, if it is set; raises `AbandonedError`
            where there is to be none.

    Raises:
        pyodbc.Error: If the set-up failed. What is not known of the table may be known to the next
            connection: this one must not write.
    """

    def __init__(self, odbc: pyodbc.Connection, settings: ConnectionSettings) -> None:
        self.closed = False
        self.idle_since = 0.0
        self.dialect = dialect_of(odbc)
        self.statements = Statements(settings.table, self.dialect)
        self.supports_multi_statement = self.dialect.supports_multi_statement
        self.is_suspect = False
        self.before_commit: Callable[[], None] | None = None
        self._odbc = odbc
        self._lock_timeout = settings.timeout * LOCK_TIMEOUT_SHARE
        self._cancelled = threading.Event()
        self._is_in_transaction = False
        self._has_short_lock_timeout = False
        if self.dialect.has_query_timeout:
            # Before there is a cursor: each takes it over when it is made (pyodbc 5.5).
            odbc.timeout = math.ceil(settings.query_timeout or settings.timeout)
        self._cursor = odbc.cursor()
        try:
            self.identity = Identity.of(odbc)
            self._set_up(settings.session_setup.get(self.dialect, ""))
            self.key_rule, types, self.unknown = self._describe(settings)
            self.parameters = Parameters(types) if self.dialect.binds_by_column else None
            odbc.rollback()
        except BaseException:
            self.close()
            raise

    def _set_up(self, more: str) -> None:
        lock_timeout = self._lock_timeout_of(self._lock_timeout)
        statements = [*self.dialect.session_setup, lock_timeout, more]
        with failure_loses_connection():
            if text := "; ".join(filter(None, statements)):
                self._cursor.execute(text)
            self._odbc.commit()

    def _describe(self, settings: ConnectionSettings) -> TableDescription:
        table = settings.table
        try:
            return self.dialect.describe(self._cursor, table.name, (table.key, table.status))
        except pyodbc.Error:
            if settings.needs_description:
                raise
            self._odbc.rollback()
            return TableDescription(EXACT)

    def run(self, work: "Work[T]", cancelled: threading.Event) -> T:
        """Do the work, on this thread; close the connection if an error leaves it unfit for more.

        A thread that waits in an ODBC driver cannot be stopped; it may come back long after its
        callback was given up and a newer status was committed. So each COMMIT needs a permit: that
        `cancelled` is not set. One that had begun before may still succeed.

        Args:
            work: Executes and commits, more than once if need be. What it has not committed is
                rolled back, as the connection's next user would commit it.
            cancelled: Set when the work is given up.

        Raises:
            AbandonedError: If the work was given up.
            pyodbc.Error: If the work or the rollback let one out.
        """
        self._cancelled = cancelled
        try:
            try:
                result = work(self)
            finally:
                self.before_commit = None
                self.rollback()
                if self._has_short_lock_timeout:
                    self._restore_lock_timeout()
        except BaseException as error:
            if not self._is_fit_after(error):
                self.close()
            raise
        if self.is_suspect:
            self.close()
        return result

    @property
    def cursor(self) -> pyodbc.Cursor:
        """The cursor; what it executes belongs to the transaction."""
        self._is_in_transaction = True
        return self._cursor

    def execute(self, statement: Statement, values: Sequence[object] = ()) -> pyodbc.Cursor:
        """Execute a statement, its values bound by the types of their columns.

        Raises:
            AbandonedError: If the work was given up.
            pyodbc.Error: If it failed.
        """
        self._require_permit()
        self._is_in_transaction = True
        return self._bind_and_execute(statement, values)

    def read(self, statement: Statement, values: Sequence[object]) -> list[pyodbc.Row]:
        """Execute a SELECT in no transaction, and return its rows: no ROLLBACK follows it.

        Raises:
            pyodbc.Error: If it failed.
        """
        self._odbc.autocommit = True
        try:
            rows: list[pyodbc.Row] = self._bind_and_execute(statement, values).fetchall()
        finally:
            with failure_loses_connection():
                self._odbc.autocommit = False
        return rows

    def counts(self, statement: Statement, values: Sequence[object] = ()) -> list[int]:
        """Execute a statement, or several in one, that change rows; drain all results.

        Triggers have results of their own, before the statement's: of one statement the last
        counts. An error that comes after the first result shows while they are drained.

        Returns:
            How many rows each result met; -1 where the server does not say.

        Raises:
            AbandonedError: If the work was given up.
            pyodbc.Error: If a statement, or a trigger, failed.
        """
        cursor = self.execute(statement, values)
        counts = [cursor.rowcount]
        while cursor.nextset():
            counts.append(cursor.rowcount)
        return counts

    def shorten_lock_timeout(self) -> None:
        """Wait for no lock for longer than `SHORT_LOCK_SECONDS`, until a rollback or the end.

        Raises:
            pyodbc.Error: If it failed.
        """
        if self.dialect.lock_timeout:
            self._is_in_transaction = self._has_short_lock_timeout = True
            self._set_lock_timeout(SHORT_LOCK_SECONDS)

    def commit(self) -> None:
        """Commit, unless the time-out came first.

        Raises:
            AbandonedError: If it did.
            pyodbc.Error: If the COMMIT failed.
        """
        if self.before_commit is not None:
            self.before_commit()
        self._require_permit()
        self._odbc.commit()
        self._is_in_transaction = False

    def rollback(self) -> None:
        """Undo what is not committed.

        Raises:
            pyodbc.Error: With SQLSTATE 08S01, if it failed.
        """
        if self._is_in_transaction:
            with failure_loses_connection():
                self._odbc.rollback()
            self._is_in_transaction = False

    def close(self) -> None:
        """Close the cursor, then the connection, which may be closed or dead; undo open work.

        On the thread that has the connection, and on no other: a cursor that outlives its
        connection raises when it is collected, and one that is collected meanwhile does too
        (pyodbc 5.5).
        """
        self.closed = True
        with contextlib.suppress(pyodbc.Error):
            self._cursor.close()
        with contextlib.suppress(pyodbc.Error):
            self._odbc.close()

    def _bind_and_execute(self, statement: Statement, values: Sequence[object]) -> pyodbc.Cursor:
        if self.parameters is None:
            return self._cursor.execute(statement.text, values)
        self.parameters.bind(self._cursor, statement.columns, values)
        try:
            return self._cursor.execute(statement.text, values)
        finally:
            self._cursor.setinputsizes(None)  # else the next statement's values are bound so, too

    def _require_permit(self) -> None:
        if self._cancelled.is_set():
            raise AbandonedError

    def _restore_lock_timeout(self) -> None:
        with failure_loses_connection():
            self._set_lock_timeout(self._lock_timeout)
            self._odbc.commit()  # PostgreSQL forgets a setting with a rollback
        self._has_short_lock_timeout = False

    def _set_lock_timeout(self, seconds: float) -> None:
        # By a cursor of its own: the other keeps its statement prepared.
        self._odbc.execute(self._lock_timeout_of(seconds)).close()

    def _lock_timeout_of(self, seconds: float) -> str:
        return self.dialect.lock_timeout.format(ms=math.ceil(seconds * 1000))

    def _is_fit_after(self, error: BaseException) -> bool:
        """Whether a connection that was rolled back after this error is as good as before.

        It is not after one that is the database's: another connection may lead to a server that is
        not read-only, or find a table that was not there.
        """
        return isinstance(error, AbandonedError) or (
            isinstance(error, pyodbc.Error)
            and not is_connection_lost(error)
            and self.dialect.classify(error) in {ErrorClass.PERMANENT, ErrorClass.TRANSIENT}
        )


Work = Callable[[DatabaseConnection], T]
"""A function that runs on a connection's thread: executes, fetches and commits there."""
