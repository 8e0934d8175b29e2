"""The UPDATE of SAM's table: a callback's status into the row of its deployment."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyodbc

from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.dialects import Dialect
from sam.callback.storage.errors import ErrorClass, classify
from sam.callback.storage.session import Transaction


class Verdict(StrEnum):
    """What the database made of one callback."""

    UPDATED = "updated"
    """Its row has the status, committed."""

    UNMATCHED = "unmatched"
    """There is no such row."""

    REFUSED = "refused"
    """The value is refused for good."""

    FAILED = "failed"
    """It met a lock, a deadlock or an unknown error; another try may succeed."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The result for one callback, with the database's own words where it failed."""

    verdict: Verdict
    reason: str = ""


class RobotRepository:
    """Issues ``UPDATE robots SET status = ? WHERE deploymentId = ?``.

    The names of the table and its columns come from the settings, which check them; they are quoted
    here. All else is bound.
    """

    def __init__(self, connector: DatabaseConnector, settings: Settings) -> None:
        self._connector = connector
        self._table = settings.sql_sam_table
        self._key = settings.sql_sam_deployment_column
        self._status = settings.sql_sam_status_column
        self._payload = settings.sql_sam_payload_column
        self._finished = settings.sql_sam_finished_column
        self._assigned = [name for name in (self._status, self._payload, self._finished) if name]

    async def apply(self, callbacks: Sequence[Callback], *, timeout: float) -> list[Applied]:
        """Write the status of each callback; one COMMIT for all where all succeed.

        Args:
            callbacks: No two of the same deployment.
            timeout: Seconds for all of it.

        Returns:
            A result for each callback, in their order.

        Raises:
            DatabaseTimeoutError: If time ran out.
            DatabaseUnavailableError: If the database cannot take any callback now.
        """

        def work(transaction: Transaction) -> list[Applied]:
            try:
                return self._apply_together(transaction, callbacks)
            except pyodbc.Error as error:
                if classify(error, transaction.dialect) is ErrorClass.DATABASE:
                    raise
            # One of them failed; the rest must not suffer for it.
            transaction.rollback()
            return [self._apply_alone(transaction, callback) for callback in callbacks]

        return await self._connector.run(work, timeout=timeout)

    async def look(self, *, timeout: float) -> None:
        """Read no row, but the table's and the columns' names.

        Raises:
            DatabaseUnavailableError: If the database cannot be reached, or one of them is missing
                or may not be read.
        """

        def work(transaction: Transaction) -> None:
            dialect = transaction.dialect
            columns = ", ".join(map(dialect.quote, [self._key, *self._assigned]))
            transaction.cursor.execute(
                f"SELECT {columns} FROM {dialect.quote(self._table)} WHERE 1 = 0"  # noqa: S608 - checked, quoted
            ).fetchall()

        await self._connector.run(work, timeout=timeout)

    def _apply_together(
        self, transaction: Transaction, callbacks: Sequence[Callback]
    ) -> list[Applied]:
        results = [self._update(transaction, callback) for callback in callbacks]
        transaction.commit()
        return results

    def _apply_alone(self, transaction: Transaction, callback: Callback) -> Applied:
        try:
            return self._apply_together(transaction, [callback])[0]
        except pyodbc.Error as error:
            error_class = classify(error, transaction.dialect)
            if error_class is ErrorClass.DATABASE:
                raise
            transaction.rollback()
            verdict = Verdict.REFUSED if error_class is ErrorClass.ROW_FAULT else Verdict.FAILED
            return Applied(verdict, str(error.args[-1]))

    def _update(self, transaction: Transaction, callback: Callback) -> Applied:
        cursor = transaction.cursor
        cursor.execute(self._update_statement(transaction.dialect), *self._values(callback))
        count = cursor.rowcount
        if count < 0:  # the server did not count (SET NOCOUNT ON): look
            row = cursor.execute(
                self._count_statement(transaction.dialect), callback.deployment_id, callback.status
            ).fetchone()
            count = row[0] if row else 0
        return Applied(Verdict.UPDATED if count else Verdict.UNMATCHED)

    def _values(self, callback: Callback) -> list[object]:
        values: list[object] = [callback.status]
        if self._payload is not None:
            values.append(callback.payload.decode())
        if self._finished is not None:
            values.append(callback.received_at.replace(tzinfo=None))
        return [*values, callback.deployment_id]

    def _update_statement(self, dialect: Dialect) -> str:
        assignments = ", ".join(f"{dialect.quote(name)} = ?" for name in self._assigned)
        return (
            f"UPDATE {dialect.quote(self._table)} SET {assignments} "  # noqa: S608 - checked, quoted
            f"WHERE {dialect.quote(self._key)} = ?"
        )

    def _count_statement(self, dialect: Dialect) -> str:
        return (
            f"SELECT COUNT(*) FROM {dialect.quote(self._table)} "  # noqa: S608 - checked, quoted
            f"WHERE {dialect.quote(self._key)} = ? AND {dialect.quote(self._status)} = ?"
        )
