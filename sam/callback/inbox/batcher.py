"""Group commit: a batch is all that arrived while the last commit ran. No timer, no added wait."""

import asyncio
import contextvars
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sam.callback.inbox.batch_limit import BatchLimit
from sam.callback.inbox.spool_writer import Spooling
from sam.callback.logs import get_logger
from sam.callback.model import Callback

_log = get_logger(__name__)

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Group(Generic[R]):
    """The callbacks of one deployment that go together: the last one stands for all.

    Attributes:
        key: What identifies the deployment.
        callback: The one with the highest sequence number.
        begun: When what is done for it began; monotonic, in seconds.
        deadline: When the first of them must have its answer; likewise.
        waiters: Who waits for the result.
        batch_size: How many deployments are in its batch; 0 if it was in none.
        spooling: Its entry in the spool, if it is there or on its way.
        is_in_database: Whether it is being written to the database.
        spool_unchecked: Whether the spool may have an older one, as it could not be read.
    """

    key: str
    callback: Callback
    begun: float
    deadline: float
    waiters: list["asyncio.Future[R]"] = field(default_factory=list)
    batch_size: int = 0
    spooling: Spooling | None = None
    is_in_database: bool = False
    spool_unchecked: bool = False

    def resolve(self, result: R) -> None:
        """Give the result to those who still wait."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the error to those who still wait."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)


class Batcher(Generic[R]):
    """Collects callbacks into batches, and never has one deployment in two of them.

    Args:
        process: Writes a batch, and resolves each of its groups, or sees that it is done.
        expired: Is told of a group whose deadline has come; it may be in a batch that goes on.
        slots: Each batch that is under way has one; it is formed when it has.
        limit: How large a batch may be.
        interval: Tells how many seconds to leave between the begins of two batches.
    """

    def __init__(
        self,
        process: Callable[[list[Group[R]]], Awaitable[None]],
        expired: Callable[[Group[R]], None],
        *,
        slots: asyncio.Semaphore,
        limit: BatchLimit,
        interval: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._slots = slots
        self._process = process
        self._expired = expired
        self._limit = limit
        self._interval = interval
        self._begun_at = -math.inf
        self._pending: dict[str, Group[R]] = {}
        self._in_flight: set[str] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._is_forming = False
        # All have the same time, so the first is the next whose deadline comes.
        self._deadlines: OrderedDict[Group[R], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, key: str) -> bool:
        """Whether a batch with this deployment is under way."""
        return key in self._in_flight

    def submit(self, key: str, callback: Callback, seconds: float) -> "asyncio.Future[R]":
        """Add a callback; the future tells what became of it.

        Args:
            key: What identifies its deployment, the same for all ids that may be one deployment's.
                Only those of the same id go together, as others may be another's after all; but not
                at the same time, and the last of them last.
            callback: The callback.
            seconds: How long it may wait; as long as all others.
        """
        waiter: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        group = self._pending.pop(callback.deployment_id, None)
        if group is None:
            moment = now()
            group = Group(key, callback, moment, moment + seconds)
            self._deadlines[group] = None
            if self._timer is None:
                self._set_timer(seconds)
        elif callback.number > group.callback.number:
            group.callback = callback
        self._pending[callback.deployment_id] = group
        group.waiters.append(waiter)
        self._wake()
        return waiter

    async def finish(self) -> None:
        """Wait until nothing is pending or under way."""
        while self._pending or self._batches:
            self._wake()
            await asyncio.wait(self._batches)

    def _wake(self) -> None:
        """Form a batch, once all that is ready to run has run: more may arrive in this turn."""
        if self._pending and not self._is_forming:
            self._is_forming = True
            # In a context of its own: a batch is not the work of the request that came first.
            batch = asyncio.get_running_loop().create_task(
                self._run(), context=contextvars.Context()
            )
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def _run(self) -> None:
        async with self._slots:
            try:
                await self._keep_pace()
            finally:
                self._is_forming = False
            groups = self._take()
            if not groups:
                return  # all that is pending waits for a batch that is under way
            self._wake()  # there may be more than one batch can have
            try:
                await self._process(groups)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave anybody waiting
                _log.exception("batch_failed")
                for group in groups:
                    group.fail(error)
            finally:
                for group in groups:
                    self._in_flight.discard(group.key)
                    self._deadlines.pop(group, None)
                self._wake()

    async def _keep_pace(self) -> None:
        if interval := self._interval():
            await asyncio.sleep(self._begun_at + interval - now())

    def _take(self) -> list[Group[R]]:
        taken: list[Group[R]] = []
        for group in self._pending.values():
            if len(taken) == self._limit.value:
                break
            if group.key not in self._in_flight:
                self._in_flight.add(group.key)
                taken.append(group)
        self._begun_at = begun = now()
        for group in taken:
            del self._pending[group.callback.deployment_id]
            group.begun = begun
            group.batch_size = len(taken)
        return taken

    def _set_timer(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(
            seconds, self._expire, context=contextvars.Context()
        )

    def _expire(self) -> None:
        self._timer = None
        moment = now()
        while self._deadlines:
            group = next(iter(self._deadlines))
            if group.deadline > moment:
                self._set_timer(group.deadline - moment)
                return
            del self._deadlines[group]
            if self._pending.get(group.callback.deployment_id) is group:
                del self._pending[group.callback.deployment_id]
            try:
                self._expired(group)
            except Exception as error:  # noqa: BLE001 - as above; and the others have deadlines too
                _log.exception("batch_failed")
                group.fail(error)


def now() -> float:
    """Return the time that deadlines are measured by: monotonic, in seconds."""
    return time.monotonic()
