"""Replayer: applies due entries of a store, and probes a database that is down."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from sam.callback.inbox.backoff import RETRY
from sam.callback.inbox.circuit_breaker import CircuitBreaker
from sam.callback.inbox.database_writer import DatabaseWriter, SharedReplay
from sam.callback.inbox.duty_cycle import DutyCycle
from sam.callback.inbox.expiry import Expiry
from sam.callback.inbox.in_flight import InFlight
from sam.callback.inbox.recorder import NO_ROW_YET
from sam.callback.inbox.store import LIVE, Entry, Kind, ReplayableStore, StoreUnavailableError
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics, Replayed
from sam.callback.model import Callback
from sam.callback.storage.errors import KeyRuleChangedError
from sam.callback.storage.key_rule import KeyRule
from sam.callback.storage.replay_lock import ReplayLockedError
from sam.callback.storage.results import UpdateOutcome, UpdateResult

PROBE_BATCH: Final = 10
"""Entries of a batch that tries a database that is down."""

POLL_SECONDS: Final = 1.0
"""Interval of looks for what the command line has changed."""

NOT_NOW_SECONDS: Final = 0.25
"""Pause while this store is not to be replayed, or another instance replays."""

PAUSE_SECONDS: Final = 0.05
"""The shortest pause while nothing can be tried."""

RETRY_SHARE: Final = 0.1
"""The share of the time that tries may take of what was tried in vain before: however much that is,
the callbacks that come are hardly slower for it."""

_DONE = {UpdateOutcome.UPDATED: Replayed.APPLIED, UpdateOutcome.SUPERSEDED: Replayed.SUPERSEDED}

_log = get_logger(__name__)


class Replayer:
    """Applies entries of a store through the same repository as callbacks.

    Args:
        database: Writes to the database.
        store: Where the entries are.
        breaker: Whether the database takes writes.
        in_flight: The deployments whose entries must wait.
        expiry: How long an entry may wait for its row, or fail by itself.
        metrics: Where to count.
        may_run: Says whether to replay from this store now.
        shared: Where the entries are not of this instance alone: how to apply them.
        is_fallback: Whether the store stands in for a shared one, which may have older entries.
    """

    def __init__(
        self,
        database: DatabaseWriter,
        store: ReplayableStore,
        breaker: CircuitBreaker,
        in_flight: InFlight,
        expiry: Expiry,
        metrics: Metrics,
        *,
        may_run: Callable[[], bool] = lambda: True,
        shared: SharedReplay | None = None,
        is_fallback: bool = False,
    ) -> None:
        self._database = database
        self._store = store
        self._breaker = breaker
        self._in_flight = in_flight
        self._metrics = metrics
        self._expiry = expiry
        self._may_run = may_run
        self._shared = shared
        self._is_fallback = is_fallback
        self._retries = DutyCycle(RETRY_SHARE)
        self._seconds_to_next: float | None = None

    @property
    def batch_limit(self) -> int:
        """How many entries may be tried together."""
        return self._database.limit.value

    async def run(self) -> None:
        """Replay until cancelled."""
        self._expiry.begin()
        while True:
            try:
                if not self._may_run():
                    await asyncio.sleep(NOT_NOW_SECONDS)
                elif not await self.step():
                    await self._wait()
            except StoreUnavailableError:  # has been logged; the next step tries again
                await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> bool:
        """Apply one batch of what is due; try the database, if it is down and its time has come.

        Returns:
            Whether there was anything to do.

        Raises:
            StoreUnavailableError: If the store cannot be read or written.
        """
        if not self._store.is_writable:  # no callback may be coming that would show it is again
            with contextlib.suppress(StoreUnavailableError):
                await self._store.recheck()
        if self._breaker.takes_callbacks:
            return await self._replay_due(self.batch_limit)
        if self._breaker.seconds_to_probe > 0:
            return False
        if await self._database.probe():
            # Entries are the better probe, if there are any.
            try:
                has_entries = await self._replay_due(min(PROBE_BATCH, self.batch_limit))
            except StoreUnavailableError:
                self._breaker.committed()
                raise
            if not has_entries:
                self._breaker.committed()
        return True

    async def replay(self, entries: list[Entry]) -> bool:
        """Try to apply entries; what cannot be applied stays, to be tried later.

        Returns:
            Whether they were tried: not if the database has another key rule by now. They have
            other keys then.

        Raises:
            StoreUnavailableError: If the store cannot be written.
            ReplayLockedError: If another instance replays from it.
        """
        try:
            await self._apply(entries)
        except (StoreUnavailableError, ReplayLockedError):
            raise
        except KeyRuleChangedError:
            rule = self._database.key_rule
            await self._store.rekey(rule.name, rule.key)
            return False
        except Exception:  # noqa: BLE001 - an error of this code, which one entry may bring about
            if len(entries) > 1:  # the others are not to be held up
                return all([await self.replay([entry]) for entry in entries])
            _log.exception("replay_failed")
            await self._store.settle(put_off=[(entries[0], entries[0].attempts + 1)])
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _replay_due(self, limit: int) -> bool:
        begun = time.monotonic()
        due = await self._store.due(limit, retries=not self._retries.seconds_to_rest)
        self._seconds_to_next = 0.0 if due.entries else due.seconds_to_next
        entries = [
            entry for entry in due.entries if not self._in_flight.is_busy(entry.deployment_id or "")
        ]
        if not entries:
            return False
        try:
            await self.replay(entries)
        except ReplayLockedError:  # which shows that the database takes writes
            self._breaker.committed()
            await asyncio.sleep(NOT_NOW_SECONDS)
            return True
        if any(entry.attempts for entry in entries):
            self._retries.worked(time.monotonic() - begun, len(entries) / limit)
        return True

    async def _wait(self) -> None:
        times = [POLL_SECONDS]
        if not self._breaker.takes_callbacks:
            times.append(self._breaker.seconds_to_probe)
        else:
            if self._seconds_to_next is not None:
                times.append(self._seconds_to_next)
            if rest := self._retries.seconds_to_rest:
                times.append(rest)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(PAUSE_SECONDS, min(times))):
                await self._in_flight.stored.wait()
        self._in_flight.stored.clear()
        if not self._breaker.takes_callbacks:
            # New entries do not make a database that is down due any sooner.
            await asyncio.sleep(min(self._breaker.seconds_to_probe, POLL_SECONDS))

    async def _apply(self, entries: list[Entry]) -> None:
        rule = KeyRule.named(self._store.key_rule)
        with self._in_flight.replaying(entry.deployment_id or "" for entry in entries):
            if superseded := [entry for entry in entries if self._is_superseded(entry)]:
                await self._store.settle(done=superseded)
                self._report([(entry, UpdateOutcome.SUPERSEDED) for entry in superseded])
                entries = [entry for entry in entries if entry not in superseded]
            if entries:
                callbacks = [_callback(entry) for entry in entries]
                results = await self._database.replay(callbacks, rule, self._shared)
                await self._settle(entries, results)

    async def _settle(self, entries: list[Entry], results: list[UpdateResult]) -> None:
        done: list[tuple[Entry, UpdateOutcome]] = []
        moved: list[tuple[Entry, Kind, str]] = []
        put_off: list[tuple[Entry, int]] = []
        for entry, applied in zip(entries, results, strict=True):
            if applied.outcome in _DONE:
                self._breaker.matched()
                done.append((entry, applied.outcome))
                if self._is_fallback:
                    self._in_flight.wrote_past_spool(entry.key or "", entry.number)
                continue
            kind, reason = self._kind_after(entry, applied)
            self._metrics.replayed[_result(kind, applied.outcome)].inc()
            if kind is not entry.kind:
                moved.append((entry, kind, reason))
            if applied.outcome is UpdateOutcome.UNKNOWN:  # not its fault, but others come first
                put_off.append((entry, 0))
            else:
                longest = RETRY.failures_to_longest  # of a dead letter that there is no room for
                put_off.append((entry, entry.attempts + 1 if kind in LIVE else longest))
        not_moved = await self._store.settle([entry for entry, _ in done], moved, put_off)
        self._report(done)
        for entry, kind, reason in moved:
            if kind is Kind.DEAD_LETTER and entry not in not_moved:
                _log.error(
                    "dead_letter",
                    deployment_id=entry.deployment_id,
                    status=entry.status,
                    reason=reason,
                )

    def _kind_after(self, entry: Entry, applied: UpdateResult) -> tuple[Kind, str]:
        if applied.outcome is UpdateOutcome.REFUSED:
            return Kind.DEAD_LETTER, applied.reason
        if applied.outcome is UpdateOutcome.UNKNOWN or applied.is_transient:
            return entry.kind, ""
        if self._expiry.is_expired(entry):
            why = applied.reason or "No row had this deployment."
            return Kind.DEAD_LETTER, f"{why} It came more than {self._expiry.ttl:g} s ago."
        if applied.outcome is UpdateOutcome.UNMATCHED:
            return Kind.UNMATCHED, NO_ROW_YET
        return entry.kind, ""

    def _report(self, done: list[tuple[Entry, UpdateOutcome]]) -> None:
        for entry, outcome in done:
            self._metrics.replayed[_DONE[outcome]].inc()
            if outcome is UpdateOutcome.SUPERSEDED:
                _log.warning("superseded", deployment_id=entry.deployment_id, status=entry.status)
            else:
                _log.info("replayed", deployment_id=entry.deployment_id, status=entry.status)

    def _is_superseded(self, entry: Entry) -> bool:
        return self._in_flight.written_past_spool.get(entry.key or "", 0) > entry.number


def _result(kind: Kind, outcome: UpdateOutcome) -> Replayed:
    if kind is Kind.DEAD_LETTER:
        return Replayed.DEAD_LETTER
    if outcome is UpdateOutcome.UNMATCHED:
        return Replayed.UNMATCHED
    return Replayed.UNANSWERED if outcome is UpdateOutcome.UNKNOWN else Replayed.FAILED


def _callback(entry: Entry) -> Callback:
    return Callback(entry.number, entry.deployment_id or "", entry.status or "", entry.payload)
