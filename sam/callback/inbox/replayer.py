"""From the spool into the database: tries what is due, and tries a database that is down."""

import asyncio
import contextlib
import math
import time
from typing import Final

from sam.callback.inbox.batcher import MAX_BATCH
from sam.callback.inbox.entries import LIVE, Entry, Kind
from sam.callback.inbox.health import Health
from sam.callback.inbox.recorder import NO_ROW_YET, Recorder
from sam.callback.inbox.schedule import Schedule
from sam.callback.inbox.spool import Spool, SpoolUnavailableError
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics, Replayed, Source
from sam.callback.model import Callback
from sam.callback.storage.errors import DatabaseUnavailableError, PoolExhaustedError
from sam.callback.storage.robots import RobotRepository
from sam.callback.storage.verdicts import Applied, Verdict

PROBE_BATCH: Final = 10
"""How many entries a database that is down is tried with."""

POLL_SECONDS: Final = 1.0
"""How often to look for what the command line has changed."""

RETRY_AT_LAST: Final = 8
"""Failures after which the longest delay is reached."""

GRACE_SECONDS: Final = 600.0
"""How long a database that was away is tried before what is too old becomes a dead letter."""

_NS = 1_000_000_000
_DONE = {Verdict.UPDATED: Replayed.APPLIED, Verdict.SUPERSEDED: Replayed.SUPERSEDED}

_log = get_logger(__name__)


class Replayer:
    """Applies entries of the spool through the same repository as callbacks.

    Args:
        repository: The database.
        spool: The disk.
        health: Whether the database takes writes.
        schedule: When entries are tried again.
        recorder: Whose callbacks may not be overtaken.
        metrics: Where to count.
        time_limit: Seconds for a batch.
        probe_time_limit: Seconds for a try of a database that is down, connecting included.
        unmatched_ttl: Seconds that an entry may wait for its row, or fail by itself.
    """

    def __init__(
        self,
        repository: RobotRepository,
        spool: Spool,
        health: Health,
        schedule: Schedule,
        recorder: Recorder,
        metrics: Metrics,
        *,
        time_limit: float,
        probe_time_limit: float,
        unmatched_ttl: float,
    ) -> None:
        self._repository = repository
        self._spool = spool
        self._health = health
        self._schedule = schedule
        self._recorder = recorder
        self._metrics = metrics
        self._time_limit = time_limit
        self._probe_time_limit = probe_time_limit
        self._unmatched_ttl = unmatched_ttl
        self._clock_offset = time.time_ns() - time.monotonic_ns()
        self._after = 0
        self._is_turn_of_queued = False
        self._is_loaded = False
        self._running_since = -math.inf

    async def run(self) -> None:
        """Replay until cancelled."""
        self._running_since = time.monotonic()
        while True:
            try:
                if not await self.step():
                    await self._wait()
            except SpoolUnavailableError:  # has been logged; the next step tries again
                await asyncio.sleep(POLL_SECONDS)
            except Exception:  # noqa: BLE001 - one bad entry must not end the replay of the others
                _log.exception("replay_failed")
                await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> bool:
        """Apply one batch of what is due; try the database, if it is down and its time has come.

        Returns:
            Whether there was anything to do.

        Raises:
            SpoolUnavailableError: If the spool cannot be read or written.
        """
        if self._health.is_up:
            entries = await self._read(self._recorder.batcher.batch_limit)
            if entries:
                await self._apply(entries)
            return bool(entries)
        if not self._spool.is_writable:  # nobody may be sending what would show that it is again
            with contextlib.suppress(SpoolUnavailableError):
                await self._recheck_spool()
        if self._health.seconds_to_probe > 0:
            return False
        if await self.probe():
            # Entries are the better probe, if there are any.
            try:
                entries = await self._read(min(PROBE_BATCH, self._recorder.batcher.batch_limit))
            except SpoolUnavailableError:
                self._health.committed()
                raise
            if entries:
                await self._apply(entries)
            else:
                self._health.committed()
        return True

    async def _read(self, limit: int) -> list[tuple[Entry, int]]:
        try:
            if not self._spool.is_writable:
                await self._recheck_spool()
            if not self._is_loaded:
                await self._load()
            return await self._next(limit)
        except SpoolUnavailableError:
            self._is_loaded = False  # something may have been stored that nobody knows of
            raise

    async def _recheck_spool(self) -> None:
        self._is_loaded = False  # something may have been stored that nobody knows of
        await self._spool.recheck()

    async def _load(self) -> None:
        """Make every entry that waits for its row due: what the last process knew is gone."""
        after = 0
        while page := await self._spool.page(Kind.UNMATCHED, after=after, limit=10 * MAX_BATCH):
            for entry in page:
                if entry.number not in self._schedule:
                    self._schedule.make_due(entry.number)
            after = page[-1].number
        self._is_loaded = True

    async def _wait(self) -> None:
        times = [POLL_SECONDS]
        if not self._health.is_up:
            times.append(self._health.seconds_to_probe)
        elif (seconds := self._schedule.seconds_to_next()) is not None:
            times.append(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(times)):
                await self._recorder.spooled.wait()
        self._recorder.spooled.clear()
        if not self._health.is_up:
            # New entries do not make a database that is down due any sooner.
            await asyncio.sleep(min(self._health.seconds_to_probe, POLL_SECONDS))

    async def _next(self, limit: int) -> list[tuple[Entry, int]]:
        """Return entries that may be applied now, and how often each has failed."""
        # In turns, so that neither kind waits behind a flood of the other.
        self._is_turn_of_queued = not self._is_turn_of_queued
        entries = await self._next_queued(limit) if self._is_turn_of_queued else []
        due = {} if entries else self._schedule.take_due(limit)
        if due:
            entries = [entry for entry in await self._spool.get(due) if entry.kind in LIVE]
        elif not entries:
            entries = await self._next_queued(limit)
        ready = []
        for entry in entries:
            failures = due.get(entry.number, 0)
            if (entry.deployment_id or "") in self._recorder.batcher:
                self._schedule.put_off(entry.number, max(1, failures))
            else:
                ready.append((entry, failures))
        return ready

    async def _next_queued(self, limit: int) -> list[Entry]:
        if not self._spool.totals[Kind.QUEUED].entries:
            self._after = 0
        while page := await self._spool.page(Kind.QUEUED, after=self._after, limit=limit):
            self._after = page[-1].number
            if due := [entry for entry in page if entry.number not in self._schedule]:
                return due
        self._after = 0  # what came in below it is found in the next round
        return []

    async def _apply(self, entries: list[tuple[Entry, int]]) -> None:
        deployments = {entry.deployment_id or "" for entry, _ in entries}
        self._recorder.replaying.update(deployments)
        try:
            if passed_by := [entry.number for entry, _ in entries if self._is_passed_by(entry)]:
                await self._spool.settle(passed_by, [])
                entries = [pair for pair in entries if pair[0].number not in passed_by]
            begun = time.monotonic()
            batch = await self._repository.apply(
                [_callback(entry) for entry, _ in entries],
                timeout=self._time_limit,
                key_rule=self._repository.key_rule,
            )
            seconds = time.monotonic() - begun
            self._recorder.learn(batch, seconds, self._time_limit, Source.REPLAY)
            await self._settle(entries, batch.results)
        except Exception:
            # It may be applied and still be there; to apply it again changes nothing.
            for entry, failures in entries:
                self._schedule.put_off(entry.number, max(1, failures))
            raise
        finally:
            self._recorder.replaying.difference_update(deployments)
            self._recorder.batcher.wake()

    async def _settle(self, entries: list[tuple[Entry, int]], results: list[Applied]) -> None:
        done: list[tuple[Entry, Verdict]] = []
        moved: list[tuple[Entry, Kind, str]] = []
        for (entry, failures), applied in zip(entries, results, strict=True):
            if applied.verdict in _DONE:
                self._health.matched()
                self._metrics.replayed[_DONE[applied.verdict]].inc()
                done.append((entry, applied.verdict))
                continue
            kind, reason = self._kind_after(entry, applied)
            self._metrics.replayed[_result(kind, applied.verdict)].inc()
            if kind is not entry.kind:
                moved.append((entry, kind, reason))
            if kind in LIVE and applied.verdict is not Verdict.UNKNOWN:
                self._schedule.put_off(entry.number, failures + 1)
            elif kind is Kind.UNMATCHED:
                self._schedule.make_due(entry.number)
        not_moved = await self._spool.settle(
            [entry.number for entry, _ in done],
            [(entry.number, kind, reason) for entry, kind, reason in moved],
        )
        moved = [each for each in moved if each[0].number not in not_moved]
        for number in not_moved:
            self._schedule.put_off(number, RETRY_AT_LAST)
        _tell(done, [(e, reason) for e, kind, reason in moved if kind is Kind.DEAD_LETTER])

    def _kind_after(self, entry: Entry, applied: Applied) -> tuple[Kind, str]:
        if applied.verdict is Verdict.REFUSED:
            return Kind.DEAD_LETTER, applied.reason
        if applied.verdict is Verdict.UNKNOWN:
            return entry.kind, ""
        if self._is_expired(entry):
            why = applied.reason or "No row had this deployment."
            return Kind.DEAD_LETTER, f"{why} It came more than {self._unmatched_ttl:g} s ago."
        if applied.verdict is Verdict.UNMATCHED:
            return Kind.UNMATCHED, NO_ROW_YET
        return entry.kind, ""

    async def probe(self) -> bool:
        """Say whether a write that meets no row is committed; a new connection may be slow to make.

        A no counts against the database. A yes proves little, and counts for nothing.
        """
        try:
            await self._repository.probe(timeout=self._probe_time_limit)
        except PoolExhaustedError:
            return False
        except DatabaseUnavailableError as error:
            self._health.failed(error)
            return False
        return True

    def _is_passed_by(self, entry: Entry) -> bool:
        return self._recorder.passed_by.get(entry.deployment_id or "", 0) > entry.number

    def _is_expired(self, entry: Entry) -> bool:
        # What waited for the database, or for this process, has not been tried for all that time.
        tried_since = max(self._running_since, self._health.up_since)
        if time.monotonic() - tried_since < min(self._unmatched_ttl, GRACE_SECONDS):
            return False
        # By the clock that says less: a clock that is set must not end anybody's wait.
        now = min(time.time_ns(), time.monotonic_ns() + self._clock_offset)
        return now - entry.number > self._unmatched_ttl * _NS


def _tell(done: list[tuple[Entry, Verdict]], dead: list[tuple[Entry, str]]) -> None:
    for entry, verdict in done:
        if verdict is Verdict.SUPERSEDED:
            _log.warning("superseded", deployment_id=entry.deployment_id, status=entry.status)
        else:
            _log.info("replayed", deployment_id=entry.deployment_id, status=entry.status)
    for entry, reason in dead:
        _log.error(
            "dead_letter", deployment_id=entry.deployment_id, status=entry.status, reason=reason
        )


def _result(kind: Kind, verdict: Verdict) -> Replayed:
    if kind is Kind.DEAD_LETTER:
        return Replayed.DEAD_LETTER
    if verdict is Verdict.UNMATCHED:
        return Replayed.UNMATCHED
    return Replayed.UNANSWERED if verdict is Verdict.UNKNOWN else Replayed.FAILED


def _callback(entry: Entry) -> Callback:
    return Callback(entry.number, entry.deployment_id or "", entry.status or "", entry.payload)
