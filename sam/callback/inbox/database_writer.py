"""Database writer: batches within a time limit, with what each says of the database."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from sam.callback.inbox.batch_limit import BatchLimit
from sam.callback.inbox.circuit_breaker import CircuitBreaker, CircuitState
from sam.callback.inbox.duty_cycle import DutyCycle
from sam.callback.metrics import Metrics, Source
from sam.callback.model import Callback
from sam.callback.storage.errors import (
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    NoConnectionError,
)
from sam.callback.storage.key_rule import KeyRule
from sam.callback.storage.replay_lock import ReplayLock
from sam.callback.storage.results import BatchResult, UpdateResult
from sam.callback.storage.robots import RobotRepository, Stale

MIN_INTERVAL_SECONDS: Final = 0.005
"""Where batches are to begin more often, they begin as they come."""

REPLAY_SHARE: Final = 0.1
"""Where there is one slot, replays have this share of the time, while callbacks wait for it."""


@dataclass(frozen=True, slots=True)
class SharedReplay:
    """What replaying takes where several instances have the same entries.

    Attributes:
        lock: Lets one instance replay at a time.
        stale: As `RobotRepository.apply` wants it.
    """

    lock: ReplayLock
    stale: Stale


class DatabaseWriter:
    """Writes batches, each with the whole time limit.

    Args:
        repository: The database.
        breaker: Learns whether the database takes writes.
        metrics: Where to count.
        max_writes: How many writes may be under way.
        time_limit: Seconds for a batch.
        probe_time_limit: Seconds for a probe, connecting included.

    Attributes:
        slots: One for each write that may be under way. It is taken before a batch is formed: no
            batch that is formed waits for a connection, while more arrives that could go with it.
        limit: How large a batch may be.
    """

    def __init__(
        self,
        repository: RobotRepository,
        breaker: CircuitBreaker,
        metrics: Metrics,
        *,
        max_writes: int,
        time_limit: float,
        probe_time_limit: float,
    ) -> None:
        self._repository = repository
        self._breaker = breaker
        self._metrics = metrics
        self._time_limit = time_limit
        self._probe_time_limit = probe_time_limit
        self._max_writes = max_writes
        self._replays = DutyCycle(REPLAY_SHARE)
        self.slots = asyncio.Semaphore(max_writes)
        self.limit = BatchLimit(time_limit)

    def interval(self) -> float:
        """Return the seconds to leave between the begins of two batches, where a COMMIT takes long.

        Of four that begin at once three have one row, and the fourth has all that comes before they
        end; what comes after that waits for as long as can be. At even intervals all are alike.
        """
        interval = self.limit.fixed / self._max_writes
        return interval if interval > MIN_INTERVAL_SECONDS else 0.0

    @property
    def key_rule(self) -> KeyRule:
        """Which ids the database takes for the same, as far as it is known."""
        return self._repository.key_rule

    async def write(
        self,
        callbacks: Sequence[Callback],
        source: Source,
        key_rule: KeyRule,
        stale: Stale | None = None,
    ) -> list[UpdateResult]:
        """Write the status of each callback, in a slot of the caller's.

        Args:
            callbacks: No two of the same deployment.
            source: What the batch is made of.
            key_rule: The rule by which it is known that none has an older one in the spool.
            stale: As `RobotRepository.apply` wants it.

        Returns:
            The outcome for each, in their order.

        Raises:
            KeyRuleChangedError: If the database's rule is another. Nothing was written.
        """
        begun = monotonic()
        batch = await self._repository.apply(
            callbacks, timeout=self._time_limit, key_rule=key_rule, stale=stale
        )
        return self._learn(batch, source, begun)

    def _learn(self, batch: BatchResult, source: Source, begun: float) -> list[UpdateResult]:
        seconds = monotonic() - begun
        size = len(batch.results)
        if batch.is_committed:
            self._breaker.committed()
            self.limit.committed(size, seconds)
            self._metrics.committed(source, size, seconds)
        if batch.error is not None:
            if _had_a_connection_too_long(batch.error) and (
                self._breaker.state is not CircuitState.OPEN  # else it began before the outage
            ):
                self.limit.ran_out_of_time(size)
            self._breaker.failed(batch.error, begun)
        return batch.results

    async def replay(
        self,
        callbacks: Sequence[Callback],
        key_rule: KeyRule,
        shared: SharedReplay | None = None,
    ) -> list[UpdateResult]:
        """Write what was spooled, as `write` does, once there is a slot.

        Where the entries are shared, one instance does that at a time.

        With one slot each replay makes callbacks wait for as long as a COMMIT takes; of those whose
        time is up for it, some are spooled, and replayed: too many replays would never end.

        Raises:
            ReplayLockedError: If another instance replays.
            KeyRuleChangedError: As with `write`.
        """
        if self.slots.locked() and self._max_writes == 1:
            await asyncio.sleep(self._replays.seconds_to_rest)
        async with self.slots:
            begun = monotonic()
            try:
                if shared is None:
                    return await self.write(callbacks, Source.REPLAY, key_rule)
                batch = await self._repository.apply(
                    callbacks,
                    timeout=self._time_limit,
                    key_rule=key_rule,
                    lock=shared.lock,
                    stale=shared.stale,
                )
                return self._learn(batch, Source.REPLAY, begun)
            finally:
                self._replays.worked(monotonic() - begun, load=1.0)

    async def probe(self) -> bool:
        """Say whether a write that meets no row is committed; a new connection may be slow to make.

        A no counts against the database. A yes proves little, and does not close the circuit.
        """
        async with self.slots:
            begun = monotonic()
            try:
                await self._repository.probe(timeout=self._probe_time_limit)
            except DatabaseUnavailableError as error:
                self._breaker.failed(error, begun, is_probe=True)
                return False
            self._breaker.probed()
            return True


def _had_a_connection_too_long(error: DatabaseUnavailableError) -> bool:
    return isinstance(error, DatabaseTimeoutError) and not isinstance(error, NoConnectionError)
