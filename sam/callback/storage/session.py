"""A database connection as seen from the thread that works on it."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import pyodbc

from sam.callback.logs import get_logger
from sam.callback.storage.binding import Binder
from sam.callback.storage.columns import Column, read_columns
from sam.callback.storage.dialects import SQL_SERVER, Dialect, dialect_of
from sam.callback.storage.errors import ErrorClass, classify, describe, is_connection_lost
from sam.callback.storage.gate import Gate
from sam.callback.storage.statements import Statement, Statements, Table

_log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is connected with whom, as the driver tells it.

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


class Session:
    """A connection set up for its dialect, with one cursor that keeps a statement prepared.

    A cursor per batch would be simpler, and prepare anew each time: with psqlODBC 400 instead of
    245 microseconds per committed UPDATE on loopback, and a round trip more elsewhere.

    Args:
        connection: A fresh connection, autocommit off.
        table: SAM's table.
        lock_timeout: Seconds to wait for another's lock, where the dialect can say so.

    Attributes:
        identity: Who is connected with whom.
        statements: The table's, in this dialect.
        takes_several: Whether several of them may be executed as one.
        binder: How their values are bound.

    Raises:
        pyodbc.Error: If the set-up failed.
    """

    def __init__(self, connection: pyodbc.Connection, table: Table, lock_timeout: float) -> None:
        self.connection = connection
        self.identity = Identity.of(connection)
        self.dialect = dialect_of(connection)
        self.statements = Statements(table, self.dialect)
        self.takes_several = self.dialect.takes_several
        if self.dialect.has_query_timeout:
            # Before there is a cursor: each takes it over when it is made (pyodbc 5.5).
            connection.timeout = math.ceil(lock_timeout * 4)
        self.cursor = connection.cursor()
        self._last_used = time.monotonic()
        try:
            self._set_up(lock_timeout)
            self.binder = Binder(self._types_to_bind(table))
        except BaseException:
            close(self)
            raise

    def _set_up(self, lock_timeout: float) -> None:
        lock_timeout_ms = math.ceil(lock_timeout * 1000)
        try:
            for statement in self.dialect.session_setup:
                self.cursor.execute(statement.format(lock_timeout_ms=lock_timeout_ms))
            self.connection.commit()
        except pyodbc.Error as error:
            raise _lost(error) from error

    def _types_to_bind(self, table: Table) -> dict[str, Column]:
        """Read the types of the columns that an index or a plan depends on, on SQL Server.

        Whatever the catalogue answers, it is no outage: the driver's own binding works, slower. A
        type that is changed is seen by the next connection.
        """
        if self.dialect is not SQL_SERVER:
            return {}
        columns: dict[str, Column] = {}
        reason = "The catalogue does not tell."
        try:
            columns = read_columns(self.cursor, table, (table.key, table.status), self.dialect)
        except pyodbc.Error as error:
            if is_connection_lost(error):
                raise
            reason = describe(error)
        self.connection.rollback()
        if not columns:
            _log.warning("column_types_unknown", table=table.name, reason=reason)
        return columns

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

    @property
    def identity(self) -> Identity:
        """Who is connected with whom."""
        return self._session.identity

    @property
    def statements(self) -> Statements:
        """The table's statements, in this dialect."""
        return self._session.statements

    @property
    def binder(self) -> Binder:
        """How the statements' values are bound."""
        return self._session.binder

    def execute(self, statement: Statement, *values: object) -> pyodbc.Cursor:
        """Execute a statement, its values bound by the types of their columns.

        Raises:
            pyodbc.Error: If it failed.
        """
        cursor = self.cursor
        self.binder.bind(cursor, statement.columns, values)
        return cursor.execute(statement.text, *values)

    def count(self, statement: Statement, *values: object) -> int:
        """Execute a statement that changes rows.

        Triggers have results of their own, before the statement's: the last one counts.

        Returns:
            How many rows it met; -1 where the server does not say.

        Raises:
            pyodbc.Error: If it, or a trigger, failed.
        """
        return self.counts(statement, *values)[-1]

    def counts(self, statement: Statement, *values: object) -> list[int]:
        """Execute a statement, or several in one, that change rows; drain all results.

        An error that comes after the first result shows while they are drained.

        Returns:
            The count of each result, in their order.

        Raises:
            pyodbc.Error: If one of them, or a trigger, failed.
        """
        cursor = self.execute(statement, *values)
        counts = [cursor.rowcount]
        while cursor.nextset():
            counts.append(cursor.rowcount)
        return counts

    @property
    def takes_several(self) -> bool:
        """Whether several statements may be executed as one, and each has its count."""
        return self._session.takes_several

    def take_them_singly(self) -> None:
        """Note that the counts of several statements cannot be told apart on this connection."""
        self._session.takes_several = False

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
        """Undo what is not committed.

        Raises:
            pyodbc.Error: With SQLSTATE 08S01, if it failed.
        """
        if self._is_open:
            try:
                self._session.connection.rollback()
            except pyodbc.Error as error:
                raise _lost(error) from error
            self._is_open = False


Work = Callable[[Transaction], T]
"""A function that runs on a connection's thread: executes, fetches and commits there."""


def work_on(
    opened: pyodbc.Connection | Session,
    table: Table,
    lock_timeout: float,
    work: Work[T],
    gate: Gate,
) -> tuple[Session, T]:
    """Do the work, on this thread; close the connection if an error leaves it unfit for more.

    Args:
        opened: The connection: fresh, or as it came from here.
        table: As `Session` takes it.
        lock_timeout: Likewise.
        work: What to do. What it has not committed is rolled back, as the connection's next user
            would commit it.
        gate: Where the work stops if it is given up.

    Raises:
        pyodbc.Error: If the set-up, the work or the rollback let one out.
        AbandonedError: If the work was given up.
    """
    session = None
    try:
        session = opened if isinstance(opened, Session) else Session(opened, table, lock_timeout)
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


def _lost(error: pyodbc.Error) -> pyodbc.OperationalError:
    """Give an error the SQLSTATE of a lost connection.

    One that cannot be set up, or rolled back, is of no more use, whatever its driver calls that
    (FreeTDS: HY000, "Unknown error").
    """
    return pyodbc.OperationalError("08S01", str(error.args[-1]))


def _leaves_fit(error: BaseException, dialect: Dialect) -> bool:
    return (
        isinstance(error, pyodbc.Error)
        and classify(error, dialect) is not ErrorClass.UNKNOWN
        and not is_connection_lost(error)
    )
