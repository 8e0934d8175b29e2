"""Group commit: a batch is all that arrived while the last commit ran. No timer, no added wait."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from sam.callback.logs import get_logger
from sam.callback.model import Callback

MAX_BATCH: Final = 100
"""The most deployments in one batch."""

_log = get_logger(__name__)

R = TypeVar("R")


@dataclass(slots=True)
class Group(Generic[R]):
    """The callbacks of one deployment that go together: the last one stands for all.

    Attributes:
        callback: The one with the highest number.
        deadline: When the first of them must have its answer; monotonic, in seconds.
        waiters: Who waits for what becomes of it.
        is_blind: Whether it could not be told if the spool has an older one.
    """

    callback: Callback
    deadline: float
    waiters: list["asyncio.Future[R]"] = field(default_factory=list)
    is_blind: bool = False

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
        process: Makes a batch safe, and resolves each of its groups.
        max_batches: How many batches may be under way.
        is_blocked: Whether a deployment may not be written now, for reasons of somebody else's.
    """

    def __init__(
        self,
        process: Callable[[list[Group[R]]], Awaitable[None]],
        *,
        max_batches: int,
        is_blocked: Callable[[str], bool],
    ) -> None:
        self._process = process
        self._max_batches = max_batches
        self._is_blocked = is_blocked
        self._pending: dict[str, Group[R]] = {}
        self._in_flight: set[str] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._is_starting = False
        self._batch_limit = MAX_BATCH

    def __contains__(self, deployment_id: str) -> bool:
        """Whether a batch with this deployment is under way."""
        return deployment_id in self._in_flight

    @property
    def batch_limit(self) -> int:
        """How many deployments a batch may have, as the database is that fast."""
        return self._batch_limit

    def submit(self, callback: Callback, deadline: float) -> "asyncio.Future[R]":
        """Add a callback; the future tells what became of it."""
        waiter: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        group = self._pending.get(callback.deployment_id)
        if group is None:
            group = self._pending[callback.deployment_id] = Group(callback, deadline)
        elif callback.number > group.callback.number:
            group.callback = callback
        group.waiters.append(waiter)
        self.wake()
        return waiter

    def wake(self) -> None:
        """Start batches, once all that is ready to run has run: more may arrive in this turn."""
        if not self._is_starting:
            self._is_starting = True
            # In a context of its own: a batch is not the work of the request that came last.
            asyncio.get_running_loop().call_soon(self._start, context=contextvars.Context())

    def took(self, seconds: float, deployments: int, time_limit: float) -> None:
        """Learn from a batch how long one deployment takes: a batch must not use up its time."""
        affordable = int(time_limit / 4 * deployments / max(seconds, 1e-6))
        self._batch_limit = max(1, min(MAX_BATCH, affordable))

    def ran_out_of_time(self) -> None:
        """Learn from a batch that was too slow, however slow it was."""
        self._batch_limit = max(1, self._batch_limit // 2)

    async def finish(self) -> None:
        """Wait until nothing is pending or under way."""
        while self._pending or self._batches:
            self._start()
            if not self._batches:
                return  # what is pending is blocked for good
            await asyncio.wait(self._batches, return_when=asyncio.FIRST_COMPLETED)

    def _start(self) -> None:
        self._is_starting = False
        while self._pending and len(self._batches) < self._max_batches:
            groups = self._take()
            if not groups:
                return
            task = asyncio.create_task(self._run(groups))
            self._batches.add(task)
            task.add_done_callback(self._end)

    def _take(self) -> list[Group[R]]:
        taken: list[str] = []
        for deployment_id in self._pending:
            if len(taken) == self._batch_limit:
                break
            if deployment_id not in self._in_flight and not self._is_blocked(deployment_id):
                taken.append(deployment_id)
        self._in_flight.update(taken)
        return [self._pending.pop(deployment_id) for deployment_id in taken]

    async def _run(self, groups: list[Group[R]]) -> None:
        try:
            await self._process(groups)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave anybody waiting
            _log.exception("batch_failed")
            for group in groups:
                group.fail(error)
        finally:
            self._in_flight.difference_update(group.callback.deployment_id for group in groups)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._batches.discard(task)
        self.wake()


def now() -> float:
    """Return the time that deadlines are measured by: monotonic, in seconds."""
    return time.monotonic()
