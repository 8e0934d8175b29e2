"""When an entry of the spool that was tried is to be tried again."""

import heapq
import time
from typing import Final

from sam.callback.inbox.backoff import Backoff

RETRY: Final = Backoff(first=0.5, longest=60.0)
"""For a row that does not exist yet, and for one that is locked: 0.5, 1, 2, 4 ... 60 s."""


class Schedule:
    """The entries that are waiting for their time, by number.

    In memory and on the monotonic clock: after a restart all are due, and no clock that is set can
    put one off. A queued entry that is not here is due now; one that waits for its row is here, or
    is not tried.
    """

    def __init__(self) -> None:
        self._failures: dict[int, int] = {}
        self._heap: list[tuple[float, int]] = []

    def __contains__(self, number: int) -> bool:
        """Whether the entry waits for its time."""
        return number in self._failures

    def put_off(self, number: int, failures: int = 1) -> None:
        """Put an entry off after this many failures in a row."""
        self._failures[number] = failures
        heapq.heappush(self._heap, (time.monotonic() + RETRY.delay(failures), number))

    def make_due(self, number: int) -> None:
        """Let an entry be tried as soon as may be."""
        self._failures[number] = 0
        heapq.heappush(self._heap, (time.monotonic(), number))

    def take_due(self, limit: int) -> dict[int, int]:
        """Take out entries whose time has come: their numbers, and how often each has failed."""
        due: dict[int, int] = {}
        now = time.monotonic()
        while self._heap and len(due) < limit and self._heap[0][0] <= now:
            _, number = heapq.heappop(self._heap)
            if (failures := self._failures.pop(number, None)) is not None:
                due[number] = failures
        return due

    def seconds_to_next(self) -> float | None:
        """Return how long until the next is due, or None if none waits."""
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None
