"""The policy: the database first, else the spool; nothing is answered before it is safe."""

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import Final

from sam.callback.inbox.batcher import Batcher, Group, now
from sam.callback.inbox.entries import Entry, Kind
from sam.callback.inbox.health import Health
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.spool import Spool, SpoolUnavailableError
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics, Source
from sam.callback.model import Callback, Outcome
from sam.callback.reasons import RefusalReason
from sam.callback.storage.errors import (
    DatabaseTimeoutError,
    KeyRuleChangedError,
    PoolExhaustedError,
    StillConnectingError,
)
from sam.callback.storage.robots import RobotRepository
from sam.callback.storage.verdicts import AppliedBatch, Verdict

MIN_SECONDS: Final = 0.05
"""A callback with less time left is not tried in the database: its failure would prove nothing."""

MAX_PASSED_BY: Final = 100_000

NO_ROW_YET: Final = "No row has this deployment yet."
OLDER_IN_SPOOL: Final = "An older callback of the deployment is in the spool."
LATER_IN_ROW: Final = "The row has a later time in the finished column: it was not written."
LATER_IN_BATCH: Final = "A later callback of the deployment came with it, and was written instead."

_log = get_logger(__name__)


class NotSafeError(Exception):
    """Neither the database nor the spool could take a callback: it may be lost."""

    reason = RefusalReason.NOT_SAFE
    """Why, in one word, for logs and metrics."""


class OverloadedError(NotSafeError):
    """Too many callbacks are in flight."""

    reason = RefusalReason.OVERLOADED


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a callback, and what it took.

    Attributes:
        outcome: Where it is now.
        reason: Why it is not in the database, if it is not.
        seconds: How long its batch took.
        batch_size: How many deployments were in its batch.
        status: What was written, where callbacks of one deployment went together.
    """

    outcome: Outcome
    reason: str
    seconds: float
    batch_size: int
    status: str = ""


_Group = Group[Recorded]


@dataclass(slots=True)
class _Spooling:
    """A group on its way into the spool.

    Attributes:
        group: The group.
        kind: What it will wait for there.
        reason: Why it goes there.
        failures: How often it was tried in vain; 0 if it is due.
        entry: What is stored.
    """

    group: _Group
    kind: Kind
    reason: str
    failures: int = 0
    entry: Entry = field(init=False)

    def __post_init__(self) -> None:
        callback = self.group.callback
        self.entry = Entry(
            callback.number,
            self.kind,
            callback.deployment_id,
            callback.status,
            callback.payload,
            self.reason,
            self.failures,
        )


class Recorder:
    """Makes callbacks safe.

    Args:
        repository: The database.
        spool: The disk.
        health: Whether the database takes writes.
        sequence: The numbers of callbacks.
        metrics: Where to count.
        max_batches: How many batches may be under way.
        max_in_flight: How many callbacks may wait to be made safe.
        time_limit: Seconds for a callback's COMMIT.

    Attributes:
        in_flight: How many callbacks wait to be made safe.
        max_in_flight: How many may.
        replaying: Deployments whose entries are being applied from the spool.
        passed_by: Deployments that were written to the database while the spool could not be read,
            with the numbers: an older entry that turns up there later is not to be applied.
        spooled: Set when there is something new to apply.
    """

    def __init__(
        self,
        repository: RobotRepository,
        spool: Spool,
        health: Health,
        sequence: Sequence,
        metrics: Metrics,
        *,
        max_batches: int,
        max_in_flight: int,
        time_limit: float,
    ) -> None:
        self._repository = repository
        self._spool = spool
        self._health = health
        self._sequence = sequence
        self._metrics = metrics
        self.max_in_flight = max_in_flight
        self._time_limit = time_limit
        self.in_flight = 0
        self.replaying: set[str] = set()
        self.passed_by: dict[str, int] = {}
        self.spooled = asyncio.Event()
        self.batcher: Batcher[Recorded] = Batcher(
            self._process, max_batches=max_batches, is_blocked=self._is_blocked
        )

    async def record(self, deployment_id: str, status: str, payload: bytes | None) -> Recorded:
        """Make a callback safe; it gets its number here, so call it as soon as its body is read.

        What is done for it goes on if the caller is cancelled.

        Raises:
            NotSafeError: If it could not be done.
        """
        if self.in_flight >= self.max_in_flight:
            raise OverloadedError(f"{self.in_flight} callbacks are in flight already.")
        callback = Callback(self._sequence.next(), deployment_id, status, payload)
        self.in_flight += 1
        try:
            recorded = await self.batcher.submit(callback, now() + self._time_limit)
        finally:
            self.in_flight -= 1
        if recorded.status not in {"", status}:
            recorded = replace(recorded, outcome=Outcome.SUPERSEDED, reason=LATER_IN_BATCH)
        self._metrics.callbacks[recorded.outcome].inc()
        return recorded

    async def keep_invalid(self, body: bytes, reason: str) -> None:
        """Keep a body that was not understood, for an operator, if there is room for it."""
        entry = Entry(self._sequence.next(), Kind.INVALID, None, None, body, reason)
        try:
            await self._spool.put([entry])
        except SpoolUnavailableError as error:
            _log.error("invalid_body_not_kept", reason=str(error))

    async def finish(self) -> None:
        """Wait until every callback has its answer."""
        await self.batcher.finish()

    def _is_blocked(self, deployment_id: str) -> bool:
        # What goes into the spool may go while an older entry of it is being applied: it replaces
        # that, and is applied after it. What goes into the database must wait its turn.
        return self._health.is_up and deployment_id in self.replaying

    async def _process(self, groups: list[_Group]) -> None:
        started = now()
        to_database, to_spool = await self._route(groups)
        if to_database:
            try:
                to_spool += await self._write(to_database, started, len(groups))
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not lose callbacks
                _log.exception("write_failed")
                to_spool += [
                    _Spooling(group, Kind.QUEUED, f"{type(error).__name__}: a mistake of ours.")
                    for group in to_database
                ]
        if to_spool:
            await self._put(to_spool, started, len(groups))

    async def _route(self, groups: list[_Group]) -> tuple[list[_Group], list[_Spooling]]:
        """Divide a batch into what is for the database, and what is for the spool at once."""
        if not self._health.is_up:
            return [], [_Spooling(group, Kind.QUEUED, "The database is down.") for group in groups]
        in_spool = await self._with_entries(groups)
        latest_start = now() + MIN_SECONDS
        to_database, to_spool = [], []
        for group in groups:
            if in_spool is None and group.callback.deployment_id in self.replaying:
                to_spool.append(_Spooling(group, Kind.QUEUED, OLDER_IN_SPOOL))
                continue
            if in_spool is None:
                group.is_blind = True
            elif group.callback.deployment_id in in_spool:
                to_spool.append(_Spooling(group, Kind.QUEUED, OLDER_IN_SPOOL))
                continue
            if group.deadline < latest_start:
                to_spool.append(_Spooling(group, Kind.QUEUED, "It waited too long for its turn."))
            else:
                to_database.append(group)
        return to_database, to_spool

    async def _with_entries(self, groups: list[_Group]) -> set[str] | None:
        """Return which deployments have an entry, or None if that cannot be told."""
        if not self._spool.may_have_entries:
            return set()
        try:
            return await self._spool.with_entries(
                [group.callback.deployment_id for group in groups]
            )
        except SpoolUnavailableError:
            return None

    def _pass_by(self, group: _Group) -> None:
        self.passed_by[group.callback.deployment_id] = group.callback.number
        while len(self.passed_by) > MAX_PASSED_BY:
            del self.passed_by[next(iter(self.passed_by))]

    async def _write(
        self, groups: list[_Group], started: float, batch_size: int
    ) -> list[_Spooling]:
        """Apply to the database; resolve what is done; return what is for the spool."""
        begun = now()
        timeout = max(0.0, min(group.deadline for group in groups) - begun)
        batch = await self._apply([group.callback for group in groups], timeout)
        self.learn(batch, now() - begun, timeout, Source.CALLBACK)
        seconds = now() - started
        updated = Recorded(Outcome.UPDATED, "", seconds, batch_size)
        superseded = Recorded(Outcome.SUPERSEDED, LATER_IN_ROW, seconds, batch_size)
        to_spool = []
        for group, applied in zip(groups, batch.results, strict=True):
            match applied.verdict:
                case Verdict.UPDATED | Verdict.SUPERSEDED:
                    self._health.matched()
                    if group.is_blind:
                        self._pass_by(group)
                    if applied.verdict is Verdict.SUPERSEDED:
                        group.resolve(superseded)
                    elif len(group.waiters) > 1:
                        group.resolve(replace(updated, status=group.callback.status))
                    else:
                        group.resolve(updated)
                case Verdict.UNMATCHED:
                    self._health.missed()
                    to_spool.append(_Spooling(group, Kind.UNMATCHED, NO_ROW_YET, failures=1))
                case Verdict.REFUSED:
                    to_spool.append(_Spooling(group, Kind.DEAD_LETTER, applied.reason))
                case Verdict.FAILED:
                    to_spool.append(_Spooling(group, Kind.QUEUED, applied.reason, failures=1))
                case Verdict.UNKNOWN:
                    to_spool.append(_Spooling(group, Kind.QUEUED, applied.reason))
        return to_spool

    async def _apply(self, callbacks: list[Callback], timeout: float) -> AppliedBatch:
        while True:
            rule = self._repository.key_rule
            with contextlib.suppress(KeyRuleChangedError):  # by the first connection
                return await self._repository.apply(callbacks, timeout=timeout, key_rule=rule)

    def learn(self, batch: AppliedBatch, seconds: float, timeout: float, source: Source) -> None:
        """Draw conclusions about the database, and its speed.

        Args:
            batch: What became of it.
            seconds: What it took.
            timeout: What it was given.
            source: What it was made of.
        """
        if batch.is_committed:
            self._health.committed()
            self.batcher.took(seconds, len(batch.results), self._time_limit)
            self._metrics.committed(source, len(batch.results), seconds)
        is_too_late = isinstance(batch.error, DatabaseTimeoutError)
        if is_too_late and timeout < self._time_limit / 2:
            return  # our own haste
        is_no_failure = isinstance(batch.error, PoolExhaustedError | StillConnectingError)
        if batch.error is not None and not is_no_failure:
            self._health.failed(batch.error)
            if is_too_late:
                self.batcher.ran_out_of_time()

    async def _put(self, spoolings: list[_Spooling], started: float, batch_size: int) -> None:
        """Store in the spool with one fsync; resolve all."""
        begun = now()
        try:
            stored = await self._spool.put([spooling.entry for spooling in spoolings])
        except SpoolUnavailableError as error:
            for spooling in spoolings:
                spooling.group.fail(NotSafeError(f"{spooling.reason} The spool: {error}"))
            return
        self._metrics.spool_write.observe(now() - begun)
        seconds = now() - started
        for spooling, is_stored in zip(spoolings, stored, strict=True):
            if not is_stored:
                reason = f"{spooling.reason} The dead letters have used up their share."
                spooling.group.fail(NotSafeError(reason))
                continue
            outcome = Outcome(spooling.kind)
            spooling.group.resolve(Recorded(outcome, spooling.reason, seconds, batch_size))
        self.spooled.set()
