"""Disk thread: runs the calls to a disk, which may hang."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from sam.callback.threads import DaemonThreadPool

T = TypeVar("T")


class DiskHangsError(Exception):
    """A call has not returned in its time."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """A call that waits for the thread.

    Attributes:
        run: What the thread does.
        limit: Seconds that it may take there; None for any.
        result: What its caller waits for.
    """

    run: Callable[[], T]
    limit: float | None
    result: "asyncio.Future[T]"


class DiskThread:
    """Runs calls one at a time, in their order. To be used from one event loop.

    A call's time counts from when the thread takes it: waiting for others is not the disk's fault.
    When that time is over, the disk hangs: the call fails, and with it all that wait and all that
    come, at once and without being kept, until it returns.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._thread = DaemonThreadPool(1, name)
        self._waiting: deque[_Call[object]] = deque()
        self._running: asyncio.Future[object] | None = None
        self._time_limit: asyncio.TimerHandle | None = None
        self._is_hanging = False

    async def run(self, call: Callable[[], T], limit: float | None) -> T:
        """Run a call. If the caller is cancelled, one that the thread has taken goes on.

        Raises:
            DiskHangsError: If it, or the one that is running, takes longer than its limit.
        """
        if self._is_hanging:
            raise DiskHangsError
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(call, limit, result))  # type: ignore[arg-type]  # Future is invariant
        self._take_next()
        try:
            return await result
        finally:
            del result  # else an error, its traceback and this frame would keep one another

    def shutdown(self) -> None:
        """Let the thread end; it is not waited for."""
        self._thread.shutdown()

    def _take_next(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._running is None:
            call = self._waiting.popleft()
            if call.result.done():  # its caller has given it up
                continue
            self._running = call.result
            if call.limit is not None:
                self._time_limit = loop.call_later(call.limit, self._hang)
            self._thread.submit(call.run).add_done_callback(partial(self._hand_back, loop))

    def _hand_back(self, loop: asyncio.AbstractEventLoop, job: Future[object]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._end, job)

    def _hang(self) -> None:
        self._is_hanging = True
        given_up = [self._running, *(call.result for call in self._waiting)]
        self._waiting.clear()
        for result in given_up:
            if result is not None and not result.done():
                result.set_exception(DiskHangsError())

    def _end(self, job: Future[object]) -> None:
        if self._time_limit is not None:
            self._time_limit.cancel()
        result, self._running, self._time_limit, self._is_hanging = self._running, None, None, False
        if result is not None and not result.done():
            if error := job.exception():
                result.set_exception(error)
            else:
                result.set_result(job.result())
        self._take_next()
