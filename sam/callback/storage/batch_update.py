"""A batch of callbacks in one transaction: together where that works, else each by itself."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import pyodbc

from sam.callback.model import Callback
from sam.callback.storage.dialects import SQLITE
from sam.callback.storage.errors import (
    ErrorClass,
    classify,
    describe,
    is_connection_lost,
    native_numbers_of,
    sqlstate_of,
)
from sam.callback.storage.statements import Statement, Table
from sam.callback.storage.transaction import Transaction
from sam.callback.storage.verdicts import Applied, Verdict

MAX_TOGETHER: Final = 64
"""The most callbacks in one execute: of five values each, well below SQL Server's 2,100."""

MAX_SUSPECTED: Final = 2
"""So many rows of a batch may meet what looks like an outage, and still be to blame themselves."""

_UPDATED: Final = Applied(Verdict.UPDATED)
_UPDATED_ALONE: Final = Applied(Verdict.UPDATED, is_payload_refused=True)

CAME_BETWEEN: Final = "Its row came just after the UPDATE, or something keeps the UPDATE from it."


class BatchUpdate:
    """The UPDATEs of a batch.

    Args:
        table: Where they go.
        transaction: What they are executed in, on the thread that it belongs to.
        results: Gets a result under each callback's number, as soon as that is committed or
            refused. Whoever has given the call up may read it meanwhile.
    """

    def __init__(self, table: Table, transaction: Transaction, results: dict[int, Applied]) -> None:
        self._table = table
        self._transaction = transaction
        self._results = results
        self._with_payload = table.payload is not None
        self._payload_refused: list[Callback] = []
        self._updated = _UPDATED
        self._suspected = 0
        self._has_met_lock = False

    def apply(self, callbacks: Sequence[Callback]) -> None:
        """Write the status of each, with one COMMIT for all where all succeed.

        A payload that its column refuses does not cost the status: that is written alone.

        Args:
            callbacks: No two of the same deployment.

        Raises:
            pyodbc.Error: If the database cannot take callbacks now.
        """
        self._apply(self._acceptable(callbacks))
        if self._payload_refused:
            self._with_payload, self._updated = False, _UPDATED_ALONE
            self._apply(self._payload_refused)

    def _apply(self, callbacks: Sequence[Callback]) -> None:
        is_worth_it = len(callbacks) > 1 and self._transaction.takes_several
        if not (is_worth_it and self._apply_at_once(callbacks)):
            self._apply_singly(callbacks)

    def _apply_at_once(self, callbacks: Sequence[Callback]) -> bool:
        """Apply all in a few round trips, instead of one each; say whether that went well.

        The server prepares a statement for each number of repetitions, so these are few: powers of
        two. If anything fails, nothing is committed, and who is to blame is not known.
        """
        transaction = self._transaction
        done: dict[int, Applied] = {}
        try:
            for together in _split(callbacks):
                values = [value for callback in together for value in self._values(callback)]
                statement = transaction.statements.repeated(self._statement, len(together))
                counts = transaction.counts(statement, *values)
                if len(counts) != len(together):  # those of triggers are among them, or none is
                    transaction.take_them_singly()
                    return False
                for callback, count in zip(together, counts, strict=True):
                    done[callback.number] = self._verdict(callback, count)
            transaction.commit()
        except pyodbc.Error as error:
            if is_connection_lost(error):
                raise
            self._has_met_lock = classify(error, transaction.dialect) is ErrorClass.ROW_LUCK
            return False
        finally:
            transaction.rollback()
        self._results.update(done)
        return True

    def _apply_singly(self, callbacks: Sequence[Callback]) -> None:
        """Apply each by itself.

        A callback that fails is set aside. Those before it are applied again and committed, then
        those behind it are: no good row is written once more for each bad one; it is safe early.

        The time-out of one lock is for all: once a row was found locked, the others are hardly
        waited for. Else a few of them would use up the time of the whole batch.
        """
        remaining = list(callbacks)
        while remaining:
            done: dict[int, Applied] = {}
            failing: Callback | None = None
            try:
                if self._has_met_lock:
                    self._transaction.hardly_wait_for_locks()
                for failing in remaining:
                    done[failing.number] = self._update(failing)
                failing = remaining[0] if len(remaining) == 1 else None
                self._transaction.commit()
            except pyodbc.Error as error:
                error_class = classify(error, self._transaction.dialect)
                self._transaction.rollback()
                if error_class is ErrorClass.DATABASE:
                    self._suspected += 1
                    if self._suspected > MAX_SUSPECTED or not self._is_row_to_blame(error):
                        raise
                if failing is None:  # the COMMIT failed, and does not say for whom
                    for callback in remaining:
                        self._apply_singly([callback])
                    return
                self._transaction.is_suspect |= error_class is ErrorClass.UNKNOWN
                self._has_met_lock |= error_class is ErrorClass.ROW_LUCK
                self._set_aside(failing, error, error_class)
                place = remaining.index(failing)
                self._apply_singly(remaining[:place])
                remaining = remaining[place + 1 :]
            else:
                self._results.update(done)
                return

    def _set_aside(self, callback: Callback, error: pyodbc.Error, error_class: ErrorClass) -> None:
        refused = error_class is ErrorClass.ROW_FAULT
        if refused and self._with_payload:  # it may be to blame
            self._payload_refused.append(callback)
        else:
            verdict = Verdict.REFUSED if refused else Verdict.FAILED
            is_transient = error_class is ErrorClass.ROW_LUCK
            reason = self._describe(error)
            self._results[callback.number] = Applied(verdict, reason, is_transient=is_transient)

    def _acceptable(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """Refuse the callbacks whose deployment no row can have; return the others."""
        acceptable = []
        for callback in callbacks:
            reason = self._transaction.binder.objection(self._table.key, callback.deployment_id)
            if reason is None:
                acceptable.append(callback)
            else:
                self._results[callback.number] = Applied(Verdict.REFUSED, reason)
        return acceptable

    def _describe(self, error: pyodbc.Error) -> str:
        if self._table.payload is None:
            return describe(error)
        # A message about the payload may quote it, in any language, and it is a bot's output.
        numbers = ", ".join(map(str, native_numbers_of(error)))
        return f"SQLSTATE {sqlstate_of(error)}, native error {numbers}"

    def _is_row_to_blame(self, error: pyodbc.Error) -> bool:
        """Whether an error that looks like the database's own is met by one row alone.

        A trigger or a policy can say of one row what is otherwise said of a table, such as that it
        is missing or that a permission is.
        """
        if self._transaction.dialect is SQLITE or is_connection_lost(error):
            return False
        try:
            self._transaction.count(self._transaction.statements.probe)
        except pyodbc.Error:
            return False
        finally:
            self._transaction.rollback()
        return True

    def _update(self, callback: Callback) -> Applied:
        count = self._transaction.count(self._statement, *self._values(callback))
        return self._verdict(callback, count)

    @property
    def _statement(self) -> Statement:
        statements = self._transaction.statements
        return statements.update if self._with_payload else statements.update_without_payload

    def _verdict(self, callback: Callback, count: int) -> Applied:
        if count > 0:
            return self._updated
        transaction = self._transaction
        has_finished = self._table.finished is not None
        if count == 0 and not has_finished and not transaction.dialect.may_count_none:
            return Applied(Verdict.UNMATCHED)
        # Either the server did not count (SET NOCOUNT ON), or the row may have a later status.
        since = [_moment(callback)] if has_finished else []
        found = transaction.execute(
            transaction.statements.read, *since, callback.deployment_id
        ).fetchall()
        if not found:
            return Applied(Verdict.UNMATCHED)
        if any(row[0] == callback.status for row in found):
            return self._updated
        if has_finished and all(int(row[1]) for row in found):
            return Applied(Verdict.SUPERSEDED)
        return Applied(Verdict.FAILED, CAME_BETWEEN)

    def _values(self, callback: Callback) -> list[object]:
        values: list[object] = [callback.status]
        if self._with_payload:
            # It may hold bytes that are no text: they do not matter.
            values.append((callback.payload or b"").decode("utf-8", "replace"))
        if self._table.finished is None:
            return [*values, callback.deployment_id]
        return [*values, _moment(callback), callback.deployment_id, _moment(callback)]


def _moment(callback: Callback) -> datetime:
    """Return when it came, in UTC and without saying so, as the column has it."""
    return callback.received_at.replace(tzinfo=None)


def _split(callbacks: Sequence[Callback]) -> Iterator[Sequence[Callback]]:
    """Divide them into parts of 64, 32, 16, 8, 4, 2 and 1, in their order."""
    start = 0
    while left := len(callbacks) - start:
        size = min(MAX_TOGETHER, 1 << (left.bit_length() - 1))
        yield callbacks[start : start + size]
        start += size
