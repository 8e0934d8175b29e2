"""The UPDATE of SAM's table: a callback's status into the row of its deployment."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pyodbc

from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.dialects import SQLITE
from sam.callback.storage.errors import (
    DatabaseUnavailableError,
    ErrorClass,
    classify,
    describe,
    is_connection_lost,
    native_numbers_of,
    sqlstate_of,
)
from sam.callback.storage.statements import Table
from sam.callback.storage.transaction import Transaction

MAX_TOGETHER: Final = 64
"""The most callbacks in one execute: of five values each, well below SQL Server's 2,100."""

MAX_SUSPECTED: Final = 2
"""So many rows of a batch may meet what looks like an outage, and still be to blame themselves."""


class Verdict(StrEnum):
    """What the database made of one callback."""

    UPDATED = "updated"
    """Its row has the status, committed."""

    SUPERSEDED = "superseded"
    """Its row has the status of a later callback, by the finished column."""

    UNMATCHED = "unmatched"
    """There is no such row."""

    REFUSED = "refused"
    """The value is refused for good."""

    FAILED = "failed"
    """It met a lock, a deadlock or an unknown error; another try may succeed."""

    UNKNOWN = "unknown"
    """It was not answered before the database failed; it may be committed or not."""


_COMMITTED = {Verdict.UPDATED, Verdict.SUPERSEDED, Verdict.UNMATCHED}


@dataclass(frozen=True, slots=True)
class Applied:
    """The result for one callback, with the database's own words where it failed."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """The results for several callbacks, in their order, and what stopped the rest.

    Attributes:
        results: What the database made of each.
        error: Why the database cannot take callbacks now, if it failed meanwhile.
    """

    results: list[Applied]
    error: DatabaseUnavailableError | None = None

    @property
    def is_committed(self) -> bool:
        """Whether anything was committed, if only that there is no such row."""
        return any(applied.verdict in _COMMITTED for applied in self.results)


class RobotRepository:
    """Issues ``UPDATE robots SET status = ? WHERE deploymentId = ?``.

    Where there is a column for the time of reception, a status that was received later is not
    overwritten: that is what orders the callbacks of several instances.
    """

    def __init__(self, connector: DatabaseConnector, settings: Settings) -> None:
        self._connector = connector
        self._table = Table.of(settings)

    async def apply(self, callbacks: Sequence[Callback], *, timeout: float) -> AppliedBatch:
        """Write the status of each callback; one COMMIT for all where all succeed.

        Args:
            callbacks: No two of the same deployment.
            timeout: Seconds for all of it.
        """
        results: dict[int, Applied] = {}

        def work(transaction: Transaction) -> None:
            self._apply(transaction, callbacks, results)

        error = None
        try:
            await self._connector.run(work, timeout=timeout)
        except DatabaseUnavailableError as unavailable:
            error = unavailable
        unknown = Applied(Verdict.UNKNOWN, str(error))
        # A copy: the thread of a call that was given up may still be at work.
        known = results.copy()
        return AppliedBatch([known.get(callback.number, unknown) for callback in callbacks], error)

    async def probe(self, *, timeout: float) -> None:
        """Commit an UPDATE that meets no row.

        It shows what a SELECT does not: that the table may be written to.

        Raises:
            DatabaseUnavailableError: If it failed.
        """

        def work(transaction: Transaction) -> None:
            transaction.count(transaction.statements.probe)
            transaction.commit()

        await self._connector.run(work, timeout=timeout)

    def _apply(
        self,
        transaction: Transaction,
        callbacks: Sequence[Callback],
        results: dict[int, Applied],
    ) -> None:
        """Put a result into `results` for each callback as soon as it is committed or refused."""
        acceptable = self._acceptable(transaction, callbacks, results)
        is_worth_it = len(acceptable) > 1 and transaction.takes_several
        if not (is_worth_it and self._apply_at_once(transaction, acceptable, results)):
            self._apply_singly(transaction, acceptable, results)

    def _apply_at_once(
        self,
        transaction: Transaction,
        callbacks: Sequence[Callback],
        results: dict[int, Applied],
    ) -> bool:
        """Apply all in a few round trips, instead of one each; say whether that went well.

        The server prepares a statement for each number of repetitions, so these are few: powers of
        two. If anything fails, nothing is committed, and who is to blame is not known.
        """
        done: dict[int, Applied] = {}
        try:
            for together in _split(callbacks):
                values = [value for callback in together for value in self._values(callback)]
                counts = transaction.counts(transaction.statements.updates(len(together)), *values)
                if len(counts) != len(together):  # those of triggers are among them, or none is
                    transaction.take_them_singly()
                    return False
                for callback, count in zip(together, counts, strict=True):
                    done[callback.number] = self._verdict(transaction, callback, count)
            transaction.commit()
        except pyodbc.Error as error:
            if is_connection_lost(error):
                raise
            return False
        finally:
            transaction.rollback()
        results.update(done)
        return True

    def _apply_singly(
        self,
        transaction: Transaction,
        callbacks: Sequence[Callback],
        results: dict[int, Applied],
    ) -> None:
        """Apply each by itself.

        A callback that fails is set aside and the rest is tried again together, so that one locked
        row is waited for once, not once more for each of the others.
        """
        remaining = list(callbacks)
        suspected = 0
        while remaining:
            done: dict[int, Applied] = {}
            failing: Callback | None = None
            try:
                for failing in remaining:
                    done[failing.number] = self._update(transaction, failing)
                failing = remaining[0] if len(remaining) == 1 else None
                transaction.commit()
            except pyodbc.Error as error:
                error_class = classify(error, transaction.dialect)
                transaction.rollback()
                if error_class is ErrorClass.DATABASE:
                    suspected += 1
                    if suspected > MAX_SUSPECTED or not self._is_row_to_blame(transaction, error):
                        raise
                if failing is None:  # the COMMIT failed, and does not say for whom
                    for callback in remaining:
                        self._apply_singly(transaction, [callback], results)
                    return
                refused = error_class is ErrorClass.ROW_FAULT
                verdict = Verdict.REFUSED if refused else Verdict.FAILED
                transaction.is_suspect |= error_class is ErrorClass.UNKNOWN
                results[failing.number] = Applied(verdict, self._describe(error))
                remaining.remove(failing)
            else:
                results.update(done)
                return

    def _acceptable(
        self,
        transaction: Transaction,
        callbacks: Sequence[Callback],
        results: dict[int, Applied],
    ) -> list[Callback]:
        """Refuse the callbacks whose deployment no row can have; return the others."""
        acceptable = []
        for callback in callbacks:
            reason = transaction.binder.objection(self._table.key, callback.deployment_id)
            if reason is None:
                acceptable.append(callback)
            else:
                results[callback.number] = Applied(Verdict.REFUSED, reason)
        return acceptable

    def _describe(self, error: pyodbc.Error) -> str:
        if self._table.payload is None:
            return describe(error)
        # A message about the payload may quote it, in any language, and it is a bot's output.
        numbers = ", ".join(map(str, native_numbers_of(error)))
        return f"SQLSTATE {sqlstate_of(error)}, native error {numbers}"

    def _is_row_to_blame(self, transaction: Transaction, error: pyodbc.Error) -> bool:
        """Whether an error that looks like the database's own is met by one row alone.

        A trigger or a policy can say of one row what is otherwise said of a table, such as that it
        is missing or that a permission is.
        """
        if transaction.dialect is SQLITE or is_connection_lost(error):
            return False
        try:
            transaction.count(transaction.statements.probe)
        except pyodbc.Error:
            return False
        finally:
            transaction.rollback()
        return True

    def _update(self, transaction: Transaction, callback: Callback) -> Applied:
        count = transaction.count(transaction.statements.update, *self._values(callback))
        return self._verdict(transaction, callback, count)

    def _verdict(self, transaction: Transaction, callback: Callback, count: int) -> Applied:
        if count > 0:
            return Applied(Verdict.UPDATED)
        has_finished = self._table.finished is not None
        if count == 0 and not has_finished and not transaction.dialect.may_count_none:
            return Applied(Verdict.UNMATCHED)
        # Either the server did not count (SET NOCOUNT ON), or the row may have a later status.
        rows = transaction.execute(transaction.statements.read, callback.deployment_id).fetchall()
        if not rows:
            return Applied(Verdict.UNMATCHED)
        if any(row[0] == callback.status for row in rows):
            return Applied(Verdict.UPDATED)
        return Applied(Verdict.SUPERSEDED if has_finished else Verdict.FAILED)

    def _values(self, callback: Callback) -> list[object]:
        values: list[object] = [callback.status]
        if self._table.payload is not None:
            values.append((callback.payload or b"").decode())
        if self._table.finished is None:
            return [*values, callback.deployment_id]
        received_at = callback.received_at.replace(tzinfo=None)
        return [*values, received_at, callback.deployment_id, received_at]


def _split(callbacks: Sequence[Callback]) -> Iterator[Sequence[Callback]]:
    """Divide them into parts of 64, 32, 16, 8, 4, 2 and 1, in their order."""
    start = 0
    while left := len(callbacks) - start:
        size = min(MAX_TOGETHER, 1 << (left.bit_length() - 1))
        yield callbacks[start : start + size]
        start += size
