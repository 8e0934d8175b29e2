"""Batch of UPDATEs in one transaction: together where that works, else each by itself."""

from collections.abc import Iterator, Sequence
from typing import Final

import pyodbc

from sam.callback.model import Callback
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.errors import (
    ErrorClass,
    describe,
    is_connection_lost,
    native_numbers_of,
    sqlstate_of,
)
from sam.callback.storage.results import UpdateOutcome, UpdateResult
from sam.callback.storage.statements import RobotsTable, Statement

MAX_TOGETHER: Final = 64
"""The most callbacks in one execute: of five values each, well below SQL Server's 2,100."""

MAX_SUSPECTED: Final = 2
"""So many rows of a batch may meet what looks like an outage, and still be to blame themselves."""

CAME_BETWEEN: Final = "Its row came just after the UPDATE, or something keeps the UPDATE from it."

_UPDATED: Final = UpdateResult(UpdateOutcome.UPDATED)
_UPDATED_WITHOUT_PAYLOAD: Final = UpdateResult(UpdateOutcome.UPDATED, is_payload_refused=True)
_UNMATCHED: Final = UpdateResult(UpdateOutcome.UNMATCHED)


class Batch:
    """Callbacks that are written together.

    Args:
        table: SAM's table.
        callbacks: No two of the same deployment.

    Attributes:
        results: By the callbacks' sequence numbers, each as soon as it is committed or refused. A
            caller that has given `apply` up may read them meanwhile.
    """

    def __init__(self, table: RobotsTable, callbacks: Sequence[Callback]) -> None:
        self.results: dict[int, UpdateResult] = {}
        self._table = table
        self._callbacks = callbacks

    def apply(self, connection: DatabaseConnection) -> None:
        """Write the status of each, with one COMMIT for all where all succeed.

        A payload that its column refuses does not cost the status: that is written alone.

        Raises:
            pyodbc.Error: If the database cannot take callbacks now.
        """
        self._connection = connection
        self._payload_refused: list[Callback] = []
        self._suspected = 0
        self._has_met_lock = False
        self._updated = _UPDATED
        self._write(self._acceptable(), with_payload=self._table.payload is not None)
        if self._payload_refused:
            self._updated = _UPDATED_WITHOUT_PAYLOAD
            self._write(self._payload_refused, with_payload=False)

    def _acceptable(self) -> Sequence[Callback]:
        """Refuse the callbacks whose deployment no row can have; return the others."""
        parameters = self._connection.parameters
        if parameters is None:
            return self._callbacks
        acceptable = []
        for callback in self._callbacks:
            reason = parameters.refusal(self._table.key, callback.deployment_id)
            if reason is None:
                acceptable.append(callback)
            else:
                self.results[callback.number] = UpdateResult(UpdateOutcome.REFUSED, reason)
        return acceptable

    def _write(self, callbacks: Sequence[Callback], *, with_payload: bool) -> None:
        statements = self._connection.statements
        self._with_payload = with_payload
        self._statement = statements.update if with_payload else statements.update_without_payload
        is_worth_it = len(callbacks) > 1 and self._connection.supports_multi_statement
        if not (is_worth_it and self._write_together(callbacks)):
            self._write_singly(callbacks)

    def _write_together(self, callbacks: Sequence[Callback]) -> bool:
        """Write all in a few round trips, instead of one each; say whether that went well.

        The server prepares a statement for each number of repetitions, so these are few: powers of
        two. If anything fails, nothing is committed, and which row is to blame is not known.
        """
        connection = self._connection
        done: dict[int, UpdateResult] = {}
        try:
            for together in _split(callbacks):
                values = [
                    value
                    for callback in together
                    for value in self._values(self._statement, callback)
                ]
                statement = connection.statements.repeated(self._statement, len(together))
                counts = connection.counts(statement, values)
                if len(counts) != len(together):  # those of triggers are among them, or none is
                    connection.supports_multi_statement = False
                    return False
                for callback, count in zip(together, counts, strict=True):
                    done[callback.number] = self._result(callback, count)
            connection.commit()
        except pyodbc.Error as error:
            if is_connection_lost(error):
                raise
            self._has_met_lock = connection.dialect.classify(error) is ErrorClass.TRANSIENT
            return False
        finally:
            connection.rollback()
        self.results.update(done)
        return True

    def _write_singly(self, callbacks: Sequence[Callback]) -> None:
        """Write each by itself.

        A callback that fails is set aside. Those before it are written again and committed, then
        those behind it are: no good row is written once more for each bad one; it is durable early.

        The time-out of one lock is for all: once a row was found locked, the time-out is short for
        the others. Else a few of them would use up the time of the whole batch.
        """
        connection = self._connection
        remaining = callbacks
        while remaining:
            done: dict[int, UpdateResult] = {}
            failing: Callback | None = None
            try:
                if self._has_met_lock:
                    connection.shorten_lock_timeout()
                for failing in remaining:
                    count = connection.counts(
                        self._statement, self._values(self._statement, failing)
                    )[-1]
                    done[failing.number] = self._result(failing, count)
                failing = remaining[0] if len(remaining) == 1 else None
                connection.commit()
            except pyodbc.Error as error:
                error_class = connection.dialect.classify(error)
                connection.rollback()
                if error_class is ErrorClass.DATABASE:
                    self._suspected += 1
                    if self._suspected > MAX_SUSPECTED or not self._is_row_to_blame(error):
                        raise
                if failing is None:  # the COMMIT failed, and does not say for which
                    for callback in remaining:
                        self._write_singly([callback])
                    return
                connection.is_suspect |= error_class is ErrorClass.UNKNOWN
                self._has_met_lock |= error_class is ErrorClass.TRANSIENT
                self._set_aside(failing, error, error_class)
                place = remaining.index(failing)
                self._write_singly(remaining[:place])
                remaining = remaining[place + 1 :]
            else:
                self.results.update(done)
                return

    def _set_aside(self, callback: Callback, error: pyodbc.Error, error_class: ErrorClass) -> None:
        refused = error_class is ErrorClass.PERMANENT
        if refused and self._with_payload:  # it may be to blame
            self._payload_refused.append(callback)
            return
        reason = describe(error)
        if self._table.payload is not None:
            # A message about the payload may quote it, in any language, and it is a bot's output.
            numbers = ", ".join(map(str, native_numbers_of(error)))
            reason = f"SQLSTATE {sqlstate_of(error)}, native error {numbers}"
        self.results[callback.number] = UpdateResult(
            UpdateOutcome.REFUSED if refused else UpdateOutcome.FAILED,
            reason,
            is_transient=error_class is ErrorClass.TRANSIENT,
        )

    def _is_row_to_blame(self, error: pyodbc.Error) -> bool:
        """Whether an error that looks like the database's own is met by one row alone.

        A trigger or a policy can say of one row what is otherwise said of a table, such as that it
        is missing or that a permission is.
        """
        connection = self._connection
        if not connection.dialect.has_row_locks or is_connection_lost(error):
            return False
        try:
            connection.counts(connection.statements.probe)
        except pyodbc.Error:
            return False
        finally:
            connection.rollback()
        return True

    def _result(self, callback: Callback, count: int) -> UpdateResult:
        if count > 0:
            return self._updated
        has_finished = self._table.finished is not None
        if count == 0 and not has_finished:
            return _UNMATCHED
        # Either the server did not count (SET NOCOUNT ON), or the row may have a later status.
        read = self._connection.statements.read
        found = self._connection.execute(read, self._values(read, callback)).fetchall()
        if not found:
            return _UNMATCHED
        if any(row[0] == callback.status for row in found):
            return self._updated
        if has_finished and all(int(row[1]) for row in found):
            return UpdateResult(UpdateOutcome.SUPERSEDED)
        return UpdateResult(UpdateOutcome.FAILED, CAME_BETWEEN)

    def _values(self, statement: Statement, callback: Callback) -> list[object]:
        values = self._table.values(callback)
        return [values[column] for column in statement.columns]


def _split(callbacks: Sequence[Callback]) -> Iterator[Sequence[Callback]]:
    """Divide them into parts of 64, 32, 16, 8, 4, 2 and 1, in their order."""
    start = 0
    while left := len(callbacks) - start:
        size = min(MAX_TOGETHER, 1 << (left.bit_length() - 1))
        yield callbacks[start : start + size]
        start += size
