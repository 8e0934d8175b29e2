"""Rate limit for log lines that others can cause: the first are written, the rest are counted."""

import asyncio
import contextvars
from collections import Counter
from typing import Final

from sam.callback.logs import get_logger

FULL_LINES: Final = 10
INTERVAL_SECONDS: Final = 60.0

_log = get_logger(__name__)


class LogThrottle:
    """Says of each line whether it is still to be written, and sums up those that were not.

    Of one event with one reason `FULL_LINES` are written in `INTERVAL_SECONDS`; at the end of the
    interval one line, ``repeated``, tells how many more there were. Not thread-safe: for the event
    loop.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def is_to_be_written(self, event: str, reason: str) -> bool:
        """Count one line, and say whether to write it."""
        self._counts[event, reason] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                INTERVAL_SECONDS,
                self.sum_up,
                # Of no request: its id would be in the summary.
                context=contextvars.Context(),
            )
        return self._counts[event, reason] <= FULL_LINES

    def sum_up(self) -> None:
        """Write how many lines were not, and begin a new interval."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for (event, reason), count in self._counts.items():
            if count > FULL_LINES:
                _log.warning(
                    "repeated",
                    of=event,
                    reason=reason,
                    not_written=count - FULL_LINES,
                    within_seconds=INTERVAL_SECONDS,
                )
        self._counts.clear()
