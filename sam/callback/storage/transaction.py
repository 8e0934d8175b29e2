"""The work on a connection's thread: what it may use, and what becomes of the connection."""

from collections.abc import Callable
from typing import Final, TypeVar

import pyodbc

from sam.callback.storage.binding import Binder
from sam.callback.storage.dialects import Dialect
from sam.callback.storage.errors import ErrorClass, as_connection_lost, classify, is_connection_lost
from sam.callback.storage.gate import AbandonedError, Gate
from sam.callback.storage.session import Identity, Session
from sam.callback.storage.statements import Statement, Statements

HARDLY_SECONDS: Final = 0.01
"""What a lock is waited for, once one of the batch has used up the whole time-out."""

T = TypeVar("T")


class Transaction:
    """What the work on a connection's thread may use. It may commit more than once."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self._session = session
        self._gate = gate
        self._is_open = False
        self._hardly_waits = False
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
            AbandonedError: If the time-out came first.
            pyodbc.Error: If it failed.
        """
        self._gate.check()
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

    def hardly_wait_for_locks(self) -> None:
        """Wait for no lock for longer than `HARDLY_SECONDS`, until a rollback or the end.

        Raises:
            pyodbc.Error: If it failed.
        """
        if self.dialect.lock_timeout:
            self._is_open = self._hardly_waits = True
            self._session.wait_for_locks(HARDLY_SECONDS)

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
                raise as_connection_lost(error) from error
            self._is_open = False

    def end(self) -> None:
        """Undo what is not committed, and leave the session as it was.

        Raises:
            pyodbc.Error: With SQLSTATE 08S01, if it failed.
        """
        self.rollback()
        if self._hardly_waits:
            try:
                self._session.wait_for_locks()
                self._session.connection.commit()  # PostgreSQL forgets a setting with a rollback
            except pyodbc.Error as error:
                raise as_connection_lost(error) from error


Work = Callable[[Transaction], T]
"""A function that runs on a connection's thread: executes, fetches and commits there."""


def work_on(session: Session, work: Work[T], gate: Gate) -> T:
    """Do the work, on this thread; close the session if an error leaves it unfit for more.

    Args:
        session: Nobody else's meanwhile.
        work: What to do. What it has not committed is rolled back, as the session's next user
            would commit it.
        gate: Where the work stops if it is given up.

    Raises:
        pyodbc.Error: If the work or the rollback let one out.
        AbandonedError: If the work was given up.
    """
    transaction = Transaction(session, gate)
    try:
        try:
            result = work(transaction)
        finally:
            transaction.end()
    except BaseException as error:
        if not _leaves_fit(error, session.dialect):
            session.close()
        raise
    if transaction.is_suspect:
        session.close()
    return result


def _leaves_fit(error: BaseException, dialect: Dialect) -> bool:
    """Whether a session that was rolled back after this error is as good as before.

    It is not after one that is the database's: another connection may lead to a server that is not
    read-only, or find a table that was not there.
    """
    return isinstance(error, AbandonedError) or (
        isinstance(error, pyodbc.Error)
        and not is_connection_lost(error)
        and classify(error, dialect) in {ErrorClass.ROW_FAULT, ErrorClass.ROW_LUCK}
    )
