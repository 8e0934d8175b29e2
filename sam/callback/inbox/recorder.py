"""Recorder: writes a callback to the database, else to the store; answers once it is durable."""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Final

from sam.callback.inbox.admission import AdmissionControl, NotDurableError
from sam.callback.inbox.batcher import Batcher, Group
from sam.callback.inbox.circuit_breaker import CircuitBreaker
from sam.callback.inbox.database_writer import DatabaseWriter
from sam.callback.inbox.in_flight import InFlight
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.store import Entry, Kind, Store, StoreUnavailableError, internal_error
from sam.callback.inbox.store_writer import StoreWriter
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics, Source
from sam.callback.model import Callback, Outcome, Recorded
from sam.callback.storage.errors import KeyRuleChangedError
from sam.callback.storage.key_rule import COARSEST, KeyRule
from sam.callback.storage.results import UpdateOutcome, UpdateResult

SOON_SECONDS: Final = 0.01
"""A batch whose time is up so soon after a callback's is waited for: it says what went wrong."""

DATABASE_DOWN: Final = "The database is down."
NOT_ANSWERED: Final = "The database did not answer in time."
NO_ROW_YET: Final = "No row has this deployment yet."
OLDER_WAITS: Final = "An older callback of the deployment waits to be applied."
LATER_IN_ROW: Final = "The row has a later time in the finished column: it was not written."
LATER_IN_BATCH: Final = "A later callback of the deployment came with it, and was written instead."
WAITED_TOO_LONG: Final = "It waited too long for its turn."

_log = get_logger(__name__)


class Recorder:
    """Makes callbacks durable.

    A batch has the whole time limit from its begin, and a callback from its arrival. One whose time
    is up goes into the store and is answered; its batch goes on, and if that is committed after
    all, the entry is withdrawn. Where other instances apply entries, too, it is not committed: one
    of them may have applied this entry, and a later one.

    Args:
        database: Writes to the database.
        store: The store.
        breaker: Whether the database takes writes.
        sequence: The sequence numbers of callbacks.
        in_flight: The deployments that are under way.
        admission: The bounds.
        metrics: Where to count.
        time_limit: Seconds for a callback's COMMIT.
        is_shared: Whether other instances apply what is in the store, too.
    """

    def __init__(
        self,
        database: DatabaseWriter,
        store: Store,
        breaker: CircuitBreaker,
        sequence: Sequence,
        in_flight: InFlight,
        admission: AdmissionControl,
        metrics: Metrics,
        *,
        time_limit: float,
        is_shared: bool,
    ) -> None:
        self._database = database
        self._store = store
        self._store_writer = StoreWriter(store, in_flight, metrics)
        self._breaker = breaker
        self._sequence = sequence
        self._in_flight = in_flight
        self._admission = admission
        self._metrics = metrics
        self._time_limit = time_limit
        self._is_shared = is_shared
        self._batcher = Batcher(
            in_flight.in_batch,
            slots=database.slots,
            limit=database.limit,
            interval=database.interval,
            time_limit=time_limit,
        )

    async def record(self, deployment_id: str, status: str, payload: bytes | None) -> Recorded:
        """Make a callback durable; it is numbered here, so call it as soon as its body is read.

        What is done for it goes on if the caller is cancelled.

        Raises:
            NotDurableError: If it could not be done.
        """
        size = len(payload or b"")
        self._admission.enter(size)
        try:
            callback = Callback(self._sequence.next(), deployment_id, status, payload)
            recorded = await self._submit(COARSEST.key(deployment_id), callback)
        finally:
            self._admission.leave(size)
        if recorded.status and recorded.status != status:
            recorded = replace(recorded, outcome=Outcome.SUPERSEDED, reason=LATER_IN_BATCH)
        self._metrics.callbacks[recorded.outcome].inc()
        return recorded

    async def keep_invalid(self, body: bytes, reason: str) -> None:
        """Keep a body that was not understood, for an operator.

        Raises:
            NotDurableError: If it could not be kept.
        """
        self._admission.enter(len(body))
        try:
            entry = Entry(self._sequence.next(), Kind.INVALID, None, None, body, reason)
            await self._store_writer.put(entry).stored
        except StoreUnavailableError as error:
            raise NotDurableError(f"The body was not understood. {error}") from None
        finally:
            self._admission.leave(len(body))

    async def write_batches(self) -> None:
        """Write batches until cancelled; a task for each slot."""
        while True:
            groups = await self._batcher.next()
            try:
                await self._write_through(groups)
            except Exception as error:  # noqa: BLE001 - an error of this code must not lose callbacks
                _log.exception("write_failed")
                for group in groups:
                    group.is_being_written = False
                    if group.storing is None:
                        self._put(group, Kind.QUEUED, internal_error(error))
            finally:
                self._batcher.done(groups)

    async def store_expired(self) -> None:
        """Let what has waited for the database for too long go into the store, until cancelled."""
        while True:
            group = await self._batcher.next_expired()
            try:
                self._expire(group)
            except Exception as error:  # noqa: BLE001 - as above; and others have deadlines, too
                _log.exception("batch_failed")
                group.fail(NotDurableError(internal_error(error)))

    async def finish(self) -> None:
        """Wait until every callback has its answer."""
        await self._batcher.finish()
        await self._store_writer.finish()

    def _submit(self, key: str, callback: Callback) -> "asyncio.Future[Recorded]":
        if not self._breaker.takes_callbacks:
            reason = DATABASE_DOWN
        elif self._in_flight.has_entry(key):
            reason = OLDER_WAITS
        else:
            return self._batcher.submit(key, callback)
        waiter: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._put(Group(key, callback, monotonic(), 0.0, [waiter]), Kind.QUEUED, reason)
        return waiter

    def _expire(self, group: Group) -> None:
        if group.storing is not None:
            return
        if not group.is_being_written:
            self._put(group, Kind.QUEUED, WAITED_TOO_LONG)
        elif group.begun + self._time_limit - monotonic() > SOON_SECONDS:
            self._put(group, Kind.QUEUED, NOT_ANSWERED)

    async def _write_through(self, groups: list[Group]) -> None:
        while True:
            for_database, key_rule = await self._without_entries(groups)
            if not for_database:
                return
            try:
                await self._write(for_database, key_rule)
            except KeyRuleChangedError:  # by the first connection, or by an ALTER TABLE
                groups = for_database
                for group in groups:
                    group.is_being_written = False
                rule = self._database.key_rule
                with contextlib.suppress(StoreUnavailableError):
                    await self._store.rekey(rule.name, rule.key)
            else:
                return

    async def _without_entries(self, groups: list[Group]) -> tuple[list[Group], KeyRule]:
        """Send into the store at once what has an entry there.

        Returns:
            The rest, and the key rule by which it has none.
        """
        found: set[str] = set()
        key_rule = self._database.key_rule
        spool_unchecked = False
        to_look_up = [
            group.callback.deployment_id
            for group in groups
            if self._store.may_have_entry(group.key)
        ]
        if to_look_up:
            try:
                found = await self._store.with_entries(to_look_up)
                key_rule = KeyRule.named(self._store.key_rule)
            except StoreUnavailableError as error:
                found = set(error.found)
                spool_unchecked = True
        is_down = not self._breaker.takes_callbacks
        for_database = []
        for group in groups:
            if group.storing is not None:  # its time was up meanwhile
                continue
            if is_down:
                self._put(group, Kind.QUEUED, DATABASE_DOWN)
            elif group.callback.deployment_id in found or self._in_flight.has_entry(group.key):
                self._put(group, Kind.QUEUED, OLDER_WAITS)
            else:
                group.spool_unchecked = spool_unchecked
                for_database.append(group)
        return for_database, key_rule

    async def _write(self, groups: list[Group], key_rule: KeyRule) -> None:
        """Apply to the database; resolve what is done, and send the rest into the store."""
        for group in groups:
            group.is_being_written = True
        callbacks = [group.callback for group in groups]
        # One that is in the store by now may have been applied by another instance, and a later one
        # on top of it: it must not be committed any more.
        stale = partial(_stored_of, groups) if self._is_shared else None
        results = await self._database.write(callbacks, Source.CALLBACK, key_rule, stale)
        done: list[tuple[Group, UpdateOutcome]] = []
        for group, applied in zip(groups, results, strict=True):
            group.is_being_written = False
            outcome = applied.outcome
            if outcome is UpdateOutcome.UPDATED or outcome is UpdateOutcome.SUPERSEDED:
                done.append((group, outcome))
                continue
            if outcome is UpdateOutcome.UNMATCHED:
                self._breaker.missed()
            if group.storing is None:
                self._put(group, *_as_entry(applied))
        if done:
            self._breaker.matched()
            self._settle(done)

    def _settle(self, done: list[tuple[Group, UpdateOutcome]]) -> None:
        """Resolve what is in the database; withdraw its entries, where its time was up."""
        late = []
        for group, _ in done:
            if group.storing is not None:
                late.append(group.storing)
            if group.spool_unchecked:
                callback = group.callback
                key = self._database.key_rule.key(callback.deployment_id)
                self._in_flight.wrote_past_spool(key, callback.number)
        if late:
            self._store_writer.withdraw(late)
        _resolve(done)

    def _put(self, group: Group, kind: Kind, reason: str, attempts: int = 0) -> None:
        """Store a group in the store, and resolve it after the fsync."""
        callback = group.callback
        entry = Entry(
            callback.number,
            kind,
            callback.deployment_id,
            callback.status,
            callback.payload,
            reason,
            attempts,
        )
        group.storing = self._store_writer.put(entry)
        group.storing.stored.add_done_callback(partial(self._stored, group, entry))

    def _stored(self, group: Group, entry: Entry, stored: "asyncio.Future[int]") -> None:
        if error := stored.exception():
            group.storing = None
            if not group.is_being_written:  # else it has a chance yet
                group.fail(NotDurableError(f"{entry.reason} {error}"))
            return
        seconds = monotonic() - group.begun
        batch_size = group.batch_size or stored.result()
        group.resolve(Recorded(Outcome(entry.kind), entry.reason, seconds, batch_size))
        self._in_flight.stored.set()


def _stored_of(groups: list[Group], callbacks: Iterable[Callback]) -> set[int]:
    stored = {group.callback.number for group in groups if group.storing is not None}
    return stored.intersection(callback.number for callback in callbacks)


def _as_entry(applied: UpdateResult) -> tuple[Kind, str, int]:
    """Return as what a callback goes into the store, why, and how often it was tried in vain."""
    match applied.outcome:
        case UpdateOutcome.UNMATCHED:
            return Kind.UNMATCHED, NO_ROW_YET, 1
        case UpdateOutcome.REFUSED:
            return Kind.DEAD_LETTER, applied.reason, 0
        case UpdateOutcome.FAILED:
            return Kind.QUEUED, applied.reason, 1
        case _:
            return Kind.QUEUED, applied.reason, 0


def _resolve(done: list[tuple[Group, UpdateOutcome]]) -> None:
    group, _ = done[0]
    batch_size, seconds = group.batch_size, monotonic() - group.begun  # the same for all
    updated = Recorded(Outcome.UPDATED, "", seconds, batch_size)
    for group, outcome in done:
        if outcome is UpdateOutcome.SUPERSEDED:
            group.resolve(Recorded(Outcome.SUPERSEDED, LATER_IN_ROW, seconds, batch_size))
        elif len(group.waiters) > 1:
            group.resolve(replace(updated, status=group.callback.status))
        else:
            group.resolve(updated)
