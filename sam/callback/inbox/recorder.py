"""Write-through policy: the database first, else the spool; no answer before it is durable."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from sam.callback.inbox.batcher import Batcher, Group, now
from sam.callback.inbox.circuit_breaker import CircuitBreaker
from sam.callback.inbox.database_writer import DatabaseWriter
from sam.callback.inbox.in_flight import InFlight, NotDurableError
from sam.callback.inbox.recorded import (
    DATABASE_DOWN,
    LATER_IN_BATCH,
    LATER_IN_ROW,
    NOT_ANSWERED,
    OLDER_IN_SPOOL,
    WAITED_TOO_LONG,
    Recorded,
    spooled_as,
)
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.spool_writer import Spooling, SpoolWriter
from sam.callback.inbox.sqlite.spool import Spool, SpoolUnavailableError
from sam.callback.inbox.store import Entry, Kind
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics, Source
from sam.callback.model import Callback, Outcome
from sam.callback.storage.errors import KeyRuleChangedError
from sam.callback.storage.key_rule import COARSEST, KeyRule
from sam.callback.storage.verdicts import Verdict

SOON_SECONDS: Final = 0.01
"""A batch whose time is up so soon after a callback's is waited for: it says what went wrong."""

MAX_WRITTEN_PAST: Final = 100_000

_log = get_logger(__name__)


_Group = Group[Recorded]


class Recorder:
    """Makes callbacks durable.

    A batch has the whole time limit from its begin, and a callback from its arrival. One whose time
    is up goes into the spool and is answered; its batch goes on, and if that is committed after
    all, the entry is withdrawn.

    Args:
        database: Writes to the database.
        spool: The disk.
        breaker: Whether the database takes writes.
        sequence: The sequence numbers of callbacks.
        in_flight: Counts callbacks and bodies that wait to be durable.
        metrics: Where to count.
        time_limit: Seconds for a callback's COMMIT.

    Attributes:
        written_past_spool: Keys of deployments that were written to the database while the spool
            could not be read, with the sequence numbers: an older entry that turns up there later
            is not to be applied.
        spooled: Set when there is something new to apply.
    """

    def __init__(
        self,
        database: DatabaseWriter,
        spool: Spool,
        breaker: CircuitBreaker,
        sequence: Sequence,
        in_flight: InFlight,
        metrics: Metrics,
        *,
        time_limit: float,
    ) -> None:
        self._database = database
        self._spool = spool
        self._spool_writer = SpoolWriter(spool, metrics)
        self._breaker = breaker
        self._sequence = sequence
        self._metrics = metrics
        self._in_flight = in_flight
        self._time_limit = time_limit
        self._replaying: set[str] = set()
        self.written_past_spool: dict[str, int] = {}
        self.spooled = asyncio.Event()
        self._batcher: Batcher[Recorded] = Batcher(
            self._process,
            self._expired,
            slots=database.slots,
            limit=database.limit,
            interval=database.interval,
        )

    async def record(self, deployment_id: str, status: str, payload: bytes | None) -> Recorded:
        """Make a callback durable; it gets its number here, so call it as soon as its body is read.

        What is done for it goes on if the caller is cancelled.

        Raises:
            NotDurableError: If it could not be done.
        """
        size = len(payload or b"")
        self._in_flight.enter(size)
        try:
            callback = Callback(self._sequence.next(), deployment_id, status, payload)
            recorded = await self._submit(COARSEST.key(deployment_id), callback)
        finally:
            self._in_flight.leave(size)
        if recorded.status not in {"", status}:
            recorded = replace(recorded, outcome=Outcome.SUPERSEDED, reason=LATER_IN_BATCH)
        self._metrics.callbacks[recorded.outcome].inc()
        return recorded

    async def keep_invalid(self, body: bytes, reason: str) -> None:
        """Keep a body that was not understood, for an operator.

        Raises:
            NotDurableError: If it could not be kept.
        """
        self._in_flight.enter(len(body))
        try:
            entry = Entry(self._sequence.next(), Kind.INVALID, None, None, body, reason)
            await self._spool_writer.put(entry).stored
        except SpoolUnavailableError as error:
            raise NotDurableError(f"The body was not understood. The spool: {error}") from None
        finally:
            self._in_flight.leave(len(body))

    def is_busy(self, deployment_id: str) -> bool:
        """Whether a callback of a deployment is on its way, and an entry must wait for it."""
        key = COARSEST.key(deployment_id)
        return key in self._batcher or key in self._spool_writer

    @contextlib.contextmanager
    def replaying(self, deployment_ids: Iterable[str]) -> Iterator[None]:
        """Let callbacks of deployments go into the spool, as long as entries of theirs are applied.

        They are applied after those then.
        """
        keys = set(map(COARSEST.key, deployment_ids))
        self._replaying |= keys
        try:
            yield
        finally:
            self._replaying -= keys

    async def finish(self) -> None:
        """Wait until every callback has its answer."""
        await self._batcher.finish()
        await self._spool_writer.finish()

    def _submit(self, key: str, callback: Callback) -> "asyncio.Future[Recorded]":
        if not self._breaker.takes_callbacks:
            reason = DATABASE_DOWN
        elif self._has_entry(key):
            reason = OLDER_IN_SPOOL
        else:
            return self._batcher.submit(key, callback, self._time_limit)
        waiter: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._put(Group(key, callback, now(), 0.0, [waiter]), Kind.QUEUED, reason)
        return waiter

    def _has_entry(self, key: str) -> bool:
        """Whether a deployment has an entry for sure, without looking; else it may have one."""
        return key in self._spool_writer or key in self._replaying

    async def _process(self, groups: list[_Group]) -> None:
        try:
            await self._write_through(groups)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not lose callbacks
            _log.exception("write_failed")
            for group in groups:
                group.is_in_database = False
                if group.spooling is None:
                    self._put(group, Kind.QUEUED, f"{type(error).__name__}: a mistake of ours.")

    async def _write_through(self, groups: list[_Group]) -> None:
        while True:
            for_database, key_rule = await self._without_entries(groups)
            if not for_database:
                return
            try:
                await self._write(for_database, key_rule)
            except KeyRuleChangedError:  # by the first connection, or by an ALTER TABLE
                groups = for_database
                for group in groups:
                    group.is_in_database = False
                rule = self._database.key_rule
                with contextlib.suppress(SpoolUnavailableError):
                    await self._spool.rekey(rule.name, rule.key)
            else:
                return

    async def _without_entries(self, groups: list[_Group]) -> tuple[list[_Group], KeyRule]:
        """Send into the spool at once what has an entry there.

        Returns:
            The rest, and the key rule by which it has none.
        """
        found: set[str] = set()
        key_rule = self._database.key_rule
        spool_unchecked = False
        if self._spool.may_have_entries:
            try:
                found = await self._spool.with_entries(
                    [group.callback.deployment_id for group in groups]
                )
                key_rule = KeyRule.named(self._spool.key_rule)
            except SpoolUnavailableError:
                spool_unchecked = True
        for_database = []
        for group in groups:
            if group.spooling is not None:  # its time was up meanwhile
                continue
            if not self._breaker.takes_callbacks:
                self._put(group, Kind.QUEUED, DATABASE_DOWN)
            elif group.callback.deployment_id in found or self._has_entry(group.key):
                self._put(group, Kind.QUEUED, OLDER_IN_SPOOL)
            else:
                group.spool_unchecked = spool_unchecked
                for_database.append(group)
        return for_database, key_rule

    async def _write(self, groups: list[_Group], key_rule: KeyRule) -> None:
        """Apply to the database; resolve what is done, and send the rest into the spool."""
        for group in groups:
            group.is_in_database = True
        callbacks = [group.callback for group in groups]
        results = await self._database.write(callbacks, Source.CALLBACK, key_rule)
        done: list[tuple[_Group, Verdict]] = []
        late: list[Spooling] = []
        for group, applied in zip(groups, results, strict=True):
            group.is_in_database = False
            if applied.verdict in {Verdict.UPDATED, Verdict.SUPERSEDED}:
                self._breaker.matched()
                if group.spool_unchecked:
                    self._note_written_past_spool(group)
                done.append((group, applied.verdict))
                if group.spooling is not None:
                    late.append(group.spooling)
                continue
            if applied.verdict is Verdict.UNMATCHED:
                self._breaker.missed()
            if group.spooling is None:
                self._put(group, *spooled_as(applied))
        if late:
            self._spool_writer.withdraw(late)
        # After the next batch has begun: the database need not wait until the answers are written.
        asyncio.get_running_loop().call_soon(_resolve, done)

    def _note_written_past_spool(self, group: _Group) -> None:
        key = self._database.key_rule.key(group.callback.deployment_id)
        self.written_past_spool[key] = group.callback.number
        while len(self.written_past_spool) > MAX_WRITTEN_PAST:
            del self.written_past_spool[next(iter(self.written_past_spool))]

    def _expired(self, group: _Group) -> None:
        if group.spooling is not None:
            return
        if not group.is_in_database:
            self._put(group, Kind.QUEUED, WAITED_TOO_LONG)
        elif group.begun + self._time_limit - now() > SOON_SECONDS:
            self._put(group, Kind.QUEUED, NOT_ANSWERED)

    def _put(self, group: _Group, kind: Kind, reason: str, attempts: int = 0) -> None:
        """Store a group in the spool, and resolve it after the fsync."""
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
        group.spooling = self._spool_writer.put(entry)
        group.spooling.stored.add_done_callback(partial(self._stored, group, entry))

    def _stored(self, group: _Group, entry: Entry, stored: "asyncio.Future[int]") -> None:
        if error := stored.exception():
            group.spooling = None
            if not group.is_in_database:  # else it has a chance yet
                group.fail(NotDurableError(f"{entry.reason} The spool: {error}"))
            return
        seconds = now() - group.begun
        batch_size = group.batch_size or stored.result()
        group.resolve(Recorded(Outcome(entry.kind), entry.reason, seconds, batch_size))
        self.spooled.set()


def _resolve(done: list[tuple[_Group, Verdict]]) -> None:
    for group, verdict in done:
        seconds = now() - group.begun
        if verdict is Verdict.SUPERSEDED:
            recorded = Recorded(Outcome.SUPERSEDED, LATER_IN_ROW, seconds, group.batch_size)
        else:
            status = group.callback.status if len(group.waiters) > 1 else ""
            recorded = Recorded(Outcome.UPDATED, "", seconds, group.batch_size, status)
        group.resolve(recorded)
