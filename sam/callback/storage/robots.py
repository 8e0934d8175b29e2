"""The UPDATE of SAM's table: a callback's status into the row of its deployment."""

from collections.abc import Mapping, Sequence

from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics
from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.batch_update import BatchUpdate
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import DatabaseUnavailableError
from sam.callback.storage.key_rule import KeyRule
from sam.callback.storage.statements import Table
from sam.callback.storage.transaction import Transaction
from sam.callback.storage.verdicts import Applied, AppliedBatch, Verdict

_log = get_logger(__name__)


class RobotRepository:
    """Issues ``UPDATE robots SET status = ? WHERE deploymentId = ?``.

    Where there is a column for the time of reception, a status that was received later is not
    overwritten: that is what orders the callbacks of several instances.

    Args:
        connector: The database.
        settings: With the names of the table and its columns.
        metrics: Where refused payloads are counted; nobody sees it, unless given.
    """

    def __init__(
        self, connector: DatabaseConnector, settings: Settings, metrics: Metrics | None = None
    ) -> None:
        self._connector = connector
        self._table = Table.of(settings)
        self._metrics = metrics or Metrics()

    @property
    def key_rule(self) -> KeyRule:
        """Which ids the database takes for the same; `EXACT` until the first connection."""
        return self._connector.key_rule

    async def apply(
        self, callbacks: Sequence[Callback], *, timeout: float, key_rule: KeyRule
    ) -> AppliedBatch:
        """Write the status of each callback; one COMMIT for all where all succeed.

        Args:
            callbacks: No two with the same key.
            timeout: Seconds for all of it.
            key_rule: The rule that their keys are of.

        Raises:
            KeyRuleChangedError: If the database's is another, which `key_rule` now tells. Nothing
                was written: compute the keys anew, and try again.
        """
        results: dict[int, Applied] = {}

        def work(transaction: Transaction) -> None:
            BatchUpdate(self._table, transaction, results).apply(callbacks)

        error = None
        try:
            await self._connector.run(work, timeout=timeout, key_rule=key_rule)
        except DatabaseUnavailableError as unavailable:
            error = unavailable
        unknown = Applied(Verdict.UNKNOWN, str(error))
        # A copy: the thread of a call that was given up may still be at work.
        known = results.copy()
        if self._table.payload is not None:
            self._tell_of_payloads(callbacks, known)
        return AppliedBatch([known.get(callback.number, unknown) for callback in callbacks], error)

    def _tell_of_payloads(
        self, callbacks: Sequence[Callback], results: Mapping[int, Applied]
    ) -> None:
        for callback in callbacks:
            applied = results.get(callback.number)
            if applied is not None and applied.is_payload_refused:
                self._metrics.payloads_refused.inc()
                _log.warning(
                    "payload_refused",
                    deployment_id=callback.deployment_id,
                    payload_bytes=len(callback.payload or b""),
                )

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
