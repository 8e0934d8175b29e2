"""Repository of SAM's table: the UPDATE of a callback's status in the row of its deployment.

UPDATE robots SET status = ? WHERE deploymentId = ?
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic

from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics
from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.batch import Batch
from sam.callback.storage.connection import AbandonedError, DatabaseConnection
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import DatabaseUnavailableError
from sam.callback.storage.key_rule import KeyRule
from sam.callback.storage.replay_lock import NotCurrentError, ReplayLock
from sam.callback.storage.results import BatchResult, UpdateOutcome, UpdateResult
from sam.callback.storage.statements import RobotsTable

_log = get_logger(__name__)

Stale = Callable[[Sequence[Callback]], set[int]]
"""Returns the numbers of callbacks that are no more to be written."""


class RobotRepository:
    """Writes the status of callbacks into the rows of their deployments.

    Where there is a column for the time of reception, a status that was received later is not
    overwritten: that is what orders the callbacks of several instances.

    Args:
        connector: The database.
        settings: With the names of the table and its columns.
        metrics: Where refused payloads are counted; not seen, unless given.
    """

    def __init__(
        self, connector: DatabaseConnector, settings: Settings, metrics: Metrics | None = None
    ) -> None:
        self._connector = connector
        self._table = RobotsTable.of(settings)
        self._metrics = metrics or Metrics()

    @property
    def key_rule(self) -> KeyRule:
        """Which ids the database takes for the same; `EXACT` until the first connection."""
        return self._connector.key_rule

    async def apply(
        self,
        callbacks: Sequence[Callback],
        *,
        timeout: float,
        key_rule: KeyRule,
        stale: Stale | None = None,
        lock: ReplayLock | None = None,
    ) -> BatchResult:
        """Write the status of each callback; one COMMIT for all where all succeed.

        Args:
            callbacks: No two with the same key.
            timeout: Seconds for all of it.
            key_rule: The rule that their keys are of.
            stale: Where other instances may write later statuses: returns the numbers of those that
                are no more to be written, or raises `AbandonedError` if it cannot tell. It is asked
                on a connection's thread before each COMMIT, when the rows are locked.
            lock: For replays, where other instances have the same entries; with `stale` alone.

        Raises:
            KeyRuleChangedError: If the database's is another, which `key_rule` now tells. Nothing
                was written: compute the keys anew, and try again.
            ReplayLockedError: If another instance has the lock. Nothing was written.
        """
        results: dict[int, UpdateResult] = {}
        deadline = monotonic() + timeout
        left, left_seconds = callbacks, timeout
        error: Exception | None = None
        while left:
            batch = Batch(self._table, left)
            work = batch.apply
            if stale is not None:
                work = partial(_apply_current, batch, left, stale, lock)
            try:
                await self._connector.run(work, timeout=left_seconds, key_rule=key_rule)
            except NotCurrentError as not_current:
                skipped = UpdateResult(UpdateOutcome.UNKNOWN, str(not_current))
                results |= dict.fromkeys(not_current.numbers, skipped) | batch.results
                left = [callback for callback in callbacks if callback.number not in results]
                left_seconds = max(0.0, deadline - monotonic())
                continue
            except (DatabaseUnavailableError, AbandonedError) as stopped:
                error = stopped
            # A copy: the thread of a call that was given up may still be at work.
            return self._result(callbacks, results | batch.results, error)
        return self._result(callbacks, results, None)

    def _result(
        self,
        callbacks: Sequence[Callback],
        results: Mapping[int, UpdateResult],
        error: Exception | None,
    ) -> BatchResult:
        unknown = UpdateResult(UpdateOutcome.UNKNOWN, str(error))
        in_order = [results.get(callback.number, unknown) for callback in callbacks]
        for callback, result in zip(callbacks, in_order, strict=True):
            if result.is_payload_refused:
                self._metrics.payloads_refused.inc()
                _log.warning(
                    "payload_refused",
                    deployment_id=callback.deployment_id,
                    payload_bytes=len(callback.payload or b""),
                )
        return BatchResult(in_order, error if isinstance(error, DatabaseUnavailableError) else None)

    async def probe(self, *, timeout: float) -> None:
        """Commit an UPDATE that meets no row.

        It shows what a SELECT does not: that the table may be written to.

        Args:
            timeout: Seconds for all of it.

        Raises:
            DatabaseUnavailableError: If it failed.
        """

        def work(connection: DatabaseConnection) -> None:
            connection.counts(connection.statements.probe)
            connection.commit()

        await self._connector.run(work, timeout=timeout)


def _apply_current(
    batch: Batch,
    callbacks: Sequence[Callback],
    stale: Stale,
    lock: ReplayLock | None,
    connection: DatabaseConnection,
) -> None:
    def require_current() -> None:
        if numbers := stale([each for each in callbacks if each.number not in batch.results]):
            raise NotCurrentError(numbers)

    if lock is not None:
        lock.take(connection)
    connection.before_commit = require_current
    batch.apply(connection)
