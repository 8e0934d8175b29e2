"""Group commit into the store: one fsync for all that arrived while the last one ran."""

import asyncio
import contextlib
import time
from typing import NamedTuple

from sam.callback.inbox.in_flight import InFlight
from sam.callback.inbox.store import Entry, Store, StoreUnavailableError, internal_error
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics

_log = get_logger(__name__)


class Storing(NamedTuple):
    """An entry on its way into the store.

    Attributes:
        entry: The entry.
        stored: Is done after the fsync, and tells how many entries had it together. It fails with
            `StoreUnavailableError` if the entry may not be durable.
    """

    entry: Entry
    stored: "asyncio.Future[int]"


class StoreWriter:
    """Puts entries into the store, in the order in which they come.

    Args:
        store: The store.
        in_flight: The deployments that are under way.
        metrics: Where to time.
    """

    def __init__(self, store: Store, in_flight: InFlight, metrics: Metrics) -> None:
        self._store = store
        self._in_flight = in_flight
        self._metrics = metrics
        self._waiting: list[Storing] = []
        self._writing: asyncio.Task[None] | None = None
        self._withdrawals: set[asyncio.Task[None]] = set()

    def put(self, entry: Entry) -> Storing:
        """Store an entry."""
        storing = Storing(entry, asyncio.get_running_loop().create_future())
        self._waiting.append(storing)
        self._in_flight.enter_store(entry.deployment_id)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())
        return storing

    def withdraw(self, entries: list[Storing]) -> None:
        """Delete entries of callbacks that were committed after all, before they are replayed."""
        for entry, _ in entries:
            self._in_flight.enter_store(entry.deployment_id)
        task = asyncio.get_running_loop().create_task(self._delete(entries))
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)

    async def finish(self) -> None:
        """Wait until nothing is on its way any more."""
        while under_way := {*self._withdrawals, *filter(None, [self._writing])}:
            await asyncio.wait(under_way)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                are_stored = await self._put(batch)
            except StoreUnavailableError as error:
                _fail(batch, str(error))
            except Exception as error:  # noqa: BLE001 - an error of this code must not leave a caller waiting
                _log.exception("batch_failed")
                _fail(batch, internal_error(error))
            else:
                _settle(batch, are_stored)
            for entry, _ in batch:
                self._in_flight.leave_store(entry.deployment_id)
        self._writing = None

    async def _put(self, batch: list[Storing]) -> list[bool]:
        begun = time.monotonic()
        are_stored = await self._store.put([entry for entry, _ in batch])
        self._metrics.spool_write.observe(time.monotonic() - begun)
        return are_stored

    async def _delete(self, entries: list[Storing]) -> None:
        try:
            await asyncio.wait([stored for _, stored in entries])
            # If it fails, that is logged, and they are applied once more, which changes nothing.
            with contextlib.suppress(StoreUnavailableError):
                await self._store.settle([entry for entry, _ in entries])
        finally:
            for entry, _ in entries:
                self._in_flight.leave_store(entry.deployment_id)


def _settle(batch: list[Storing], are_stored: list[bool]) -> None:
    for (_, stored), is_stored in zip(batch, are_stored, strict=True):
        if stored.done():
            continue
        if is_stored:
            stored.set_result(len(batch))
        else:
            stored.set_exception(
                StoreUnavailableError("The spool is full, or the share of such entries is.")
            )


def _fail(batch: list[Storing], reason: str) -> None:
    for _, stored in batch:
        if not stored.done():
            # One for each: the traceback of one for all would keep them all, with their bodies.
            stored.set_exception(StoreUnavailableError(reason))
