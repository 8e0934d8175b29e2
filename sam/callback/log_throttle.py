"""Rate limit for log lines that senders can cause: the first are written, the rest counted."""

import sys
import threading
from collections import Counter
from typing import Final

import structlog

FULL_LINES: Final = 10
INTERVAL_SECONDS: Final = 60.0

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger(__name__)


class LogThrottle:
    """Decides for each line whether to write it, and sums up those that were not.

    Of one event with one reason `FULL_LINES` are written in `INTERVAL_SECONDS`; at the end of the
    interval one line, ``repeated``, tells how many more there were. Thread-safe.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.RLock()  # a finalizer may log while its thread counts
        self._timer: threading.Timer | None = None

    def is_to_be_written(self, event: str, reason: str) -> bool:
        """Count one line, and return whether to write it."""
        with self._lock:
            self._counts[event, reason] += 1
            # A thread that starts while the interpreter ends never runs, and is waited for.
            if self._timer is None and not sys.is_finalizing():
                self._timer = threading.Timer(INTERVAL_SECONDS, self.sum_up)
                self._timer.daemon = True
                self._timer.start()
            return self._counts[event, reason] <= FULL_LINES

    def sum_up(self) -> None:
        """Write how many lines were not, and begin a new interval."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            counts, self._counts = self._counts, Counter()
        for (event, reason), count in counts.items():
            if count > FULL_LINES:
                _log.warning(
                    "repeated",
                    of=event,
                    reason=reason,
                    not_written=count - FULL_LINES,
                    within_seconds=INTERVAL_SECONDS,
                )
