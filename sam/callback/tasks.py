"""Supervised tasks: an exception is logged and counted, and ends neither a loop nor a timer."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask, Metrics

RESTART_SECONDS: Final = 1.0
"""The pause before a task that has ended runs again."""

_log = get_logger(__name__)


class Supervisor:
    """Runs background tasks, which end only when they are cancelled.

    Args:
        metrics: Where failures are counted.
        throttle: Bounds the lines of a task that keeps failing.
    """

    def __init__(self, metrics: Metrics, throttle: LogThrottle) -> None:
        self._metrics = metrics
        self._throttle = throttle

    async def run(self, task: BackgroundTask, work: Callable[[], Awaitable[object]]) -> None:
        """Run `work` until cancelled; where it fails or returns, run it again after a pause."""
        while True:
            with self.guard(task):
                await _require_no_end(work)
            await asyncio.sleep(RESTART_SECONDS)

    @contextlib.contextmanager
    def guard(self, task: BackgroundTask) -> Iterator[None]:
        """Log and count an exception, and go on behind the block: for one item of a loop."""
        try:
            yield
        except asyncio.CancelledError:
            # Not this task was cancelled, but a future that it waited for: that is a failure too.
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            self._report(task)
        except Exception:  # noqa: BLE001 - whatever it is, the next item is not to blame
            self._report(task)

    def _report(self, task: BackgroundTask) -> None:
        self._metrics.task_failures[task].inc()
        if self._throttle.is_to_be_written("task_failed", task):
            _log.exception("task_failed", task=task)


async def _require_no_end(work: Callable[[], Awaitable[object]]) -> None:
    await work()
    raise RuntimeError("the task has returned, and should run until it is cancelled")
