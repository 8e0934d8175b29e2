"""Batches, by group commit: all that arrived while the last COMMIT ran. No timer, no added wait."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from sam.callback.inbox.batch_limit import BatchLimit
from sam.callback.inbox.store_writer import Storing
from sam.callback.model import Callback, Recorded

_FINISH_POLL_SECONDS = 0.01


@dataclass(slots=True, eq=False)
class Group:
    """Callbacks of one deployment that go together: the last one stands for all.

    Attributes:
        key: What identifies the deployment.
        callback: The one with the highest sequence number.
        begun: When its batch began, or it did, if it was in none; monotonic, in seconds.
        deadline: When the first of them must have its answer; likewise.
        waiters: Futures of the result.
        batch_size: How many deployments are in its batch; 0 if it was in none.
        storing: Its entry in the store, if it is there or on its way.
        is_being_written: Whether its batch is with the database.
        spool_unchecked: Whether the store may have an older one, as it could not be read.
    """

    key: str
    callback: Callback
    begun: float
    deadline: float
    waiters: list["asyncio.Future[Recorded]"] = field(default_factory=list)
    batch_size: int = 0
    storing: Storing | None = None
    is_being_written: bool = False
    spool_unchecked: bool = False

    def resolve(self, result: Recorded) -> None:
        """Give the result to those who still wait."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the error to those who still wait."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)


class Batcher:
    """A queue of callbacks that is taken from in batches, and never has a deployment in two.

    Args:
        in_batch: Keys of the deployments in batches that are under way.
        slots: Each batch under way has one; it is formed when it has.
        limit: How large a batch may be.
        interval: Returns how many seconds to leave between the begins of two batches.
        time_limit: How many seconds a callback may wait for its answer.
    """

    def __init__(
        self,
        in_batch: set[str],
        *,
        slots: asyncio.Semaphore,
        limit: BatchLimit,
        interval: Callable[[], float],
        time_limit: float,
    ) -> None:
        self._in_batch = in_batch
        self._slots = slots
        self._limit = limit
        self._interval = interval
        self._time_limit = time_limit
        self._begun_at = -math.inf
        self._pending: dict[str, Group] = {}
        self._arrived = asyncio.Event()
        self._forming = asyncio.Lock()
        # All have the same time, so the first is the next whose deadline comes.
        self._deadlines: OrderedDict[Group, None] = OrderedDict()

    def submit(self, key: str, callback: Callback) -> "asyncio.Future[Recorded]":
        """Add a callback; the future is for its result.

        Args:
            key: What identifies its deployment, the same for all ids that may be one deployment's.
                Only those of the same id go together, as others may be another's after all; but not
                at the same time, and the last of them last.
            callback: The callback.
        """
        waiter: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        group = self._pending.pop(callback.deployment_id, None)
        if group is None:
            now = monotonic()
            group = Group(key, callback, now, now + self._time_limit)
            self._deadlines[group] = None
        elif callback.number > group.callback.number:
            group.callback = callback
        self._pending[callback.deployment_id] = group
        group.waiters.append(waiter)
        self._arrived.set()
        return waiter

    async def next(self) -> list[Group]:
        """Wait for the next batch; `done` must be called with it."""
        async with self._forming:  # one at a time: what arrives meanwhile goes with it
            while True:
                await self._arrived.wait()
                await self._slots.acquire()
                try:
                    if interval := self._interval():
                        await asyncio.sleep(self._begun_at + interval - monotonic())
                    # What came while the last batch ran is read in one turn of the event loop, and
                    # submitted in the next: without them 16 connections made batches of 6, not 13.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    groups = self._take()
                except BaseException:
                    self._slots.release()
                    raise
                if groups:
                    return groups
                self._slots.release()  # all that is pending waits for a batch that is under way
                self._arrived.clear()

    def done(self, groups: list[Group]) -> None:
        """End a batch."""
        self._slots.release()
        for group in groups:
            self._in_batch.discard(group.key)
            self._deadlines.pop(group, None)
        if self._pending:
            self._arrived.set()

    async def next_expired(self) -> Group:
        """Wait for a group whose deadline has come; it may be in a batch that goes on."""
        while True:
            group = next(iter(self._deadlines), None)
            left = self._time_limit if group is None else group.deadline - monotonic()
            if group is None or left > 0:
                await asyncio.sleep(left)
                continue
            del self._deadlines[group]
            if self._pending.get(group.callback.deployment_id) is group:
                del self._pending[group.callback.deployment_id]
            return group

    async def finish(self) -> None:
        """Wait until nothing is pending or under way."""
        while self._pending or self._in_batch:  # noqa: ASYNC110 - once, when the service ends
            await asyncio.sleep(_FINISH_POLL_SECONDS)

    def _take(self) -> list[Group]:
        taken: list[Group] = []
        for group in self._pending.values():
            if len(taken) == self._limit.value:
                break
            if group.key not in self._in_batch:
                self._in_batch.add(group.key)
                taken.append(group)
        self._begun_at = begun = monotonic()
        for group in taken:
            del self._pending[group.callback.deployment_id]
            group.begun = begun
            group.batch_size = len(taken)
        if not self._pending:
            self._arrived.clear()
        return taken
