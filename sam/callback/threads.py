"""Threads for calls that block, which never keep the process from ending."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple[Future[object], list[Callable[[], object]]]
"""What is waited for, and the call; none once it was cancelled, so that no argument is kept."""


class DaemonThreadPool(Executor):
    """An executor whose threads are daemons.

    A thread that waits in an ODBC driver for a silent server cannot be interrupted, and
    `concurrent.futures.ThreadPoolExecutor` would join it when the interpreter ends: SIGTERM would
    then hang for as long as the server is silent.

    Args:
        max_workers: The most threads. Further calls wait in line, where they can be cancelled.
        name: The beginning of each thread's name.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        self._max_workers = max_workers
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` on a thread.

        Raises:
            RuntimeError: If the pool has been shut down.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the thread pool has been shut down")
            calls = [lambda: fn(*args, **kwargs)]
            future.add_done_callback(lambda _: calls.clear())
            self._jobs.put((future, calls))  # type: ignore[arg-type]  # Future is invariant
            if not self._idle.acquire(blocking=False) and self._started < self._max_workers:
                self._started += 1
                threading.Thread(
                    target=self._work, name=f"{self._name}-{self._started}", daemon=True
                ).start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        """Let each thread end when it has done what was submitted; none is waited for.

        Raises:
            ValueError: If waiting or cancelling is asked for.
        """
        if wait or cancel_futures:
            raise ValueError("these threads are left to themselves")
        with self._lock:
            self._closed = True
            for _ in range(self._started):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, calls = job
            if future.set_running_or_notify_cancel():
                try:
                    result = calls.pop()()
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            # An idle thread must not keep a connection alive through its last call.
            del job, future, calls
            self._idle.release()
