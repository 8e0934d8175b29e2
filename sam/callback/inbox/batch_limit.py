"""Batch size limit, found by congestion control: the largest that is committed in time."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

MAX_BATCH: Final = 100
"""The most deployments in one batch."""

_ENOUGH: Final = 0.75
"""A batch may take this share of the time limit; the rest is for one that takes longer."""

_HELPED: Final = 0.75
"""A batch with half of the rows takes less than this share of the time, if it is the rows."""

_MAY_VARY: Final = 1.2
"""So much longer than another one a batch may take, for other reasons than its rows."""

_WINDOW: Final = 8
"""So many batches the fixed part is known from: an older one was of another day's database."""


@dataclass(frozen=True, slots=True)
class _Fall:
    """A fall of the limit: what it was, and the batch that took too long."""

    limit: int
    rows: int
    seconds: float


class BatchLimit:
    """Limit of the deployments in a batch.

    What a batch takes has a fixed part, which is the COMMIT's (a synchronous replica, a trigger, a
    far network), and one that grows with its rows. Smaller batches help against the second alone;
    against the first they do harm, as fewer callbacks get through. So the limit falls by half when
    a batch took too long, as TCP's window does (RFC 5681), and a fall that did not help is taken
    back (as in RFC 3522). It grows as far as fits in time even if the rows are all that takes time.

    It has no clock: it learns from batches alone.

    Args:
        time_limit: Seconds that a batch is given.

    Attributes:
        value: The limit, 1 to `MAX_BATCH`.
    """

    def __init__(self, time_limit: float) -> None:
        self.value = MAX_BATCH
        self._enough = self._too_long = time_limit * _ENOUGH
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._fall: _Fall | None = None

    @property
    def fixed(self) -> float:
        """Seconds that a batch takes however few rows it has, by the last ones; 0 if unknown."""
        return min(self._recent, default=0.0)

    def committed(self, rows: int, seconds: float) -> None:
        """Learn from a batch that was committed.

        Args:
            rows: How many deployments it had.
            seconds: What it took.
        """
        self._recent.append(seconds)
        self._judge_fall(rows, seconds)
        if seconds <= self._enough:
            self._too_long = self._enough
        if seconds > self._too_long and rows > 1:
            self._fall = self._fall or _Fall(self.value, rows, seconds)
            self._halve(rows)
        elif rows >= self.value and seconds > 0:
            fitting = math.ceil(rows * self._enough / seconds)
            self.value = min(MAX_BATCH, max(self.value, fitting))

    def ran_out_of_time(self, rows: int) -> None:
        """Learn from a batch that used up its time limit: what it would have taken is not known."""
        self._fall = None
        self._halve(rows)

    def _halve(self, rows: int) -> None:
        self.value = max(1, min(self.value, rows // 2))

    def _judge_fall(self, rows: int, seconds: float) -> None:
        """Take back a fall that did not help, once a smaller batch shows that."""
        fall = self._fall
        if fall is None or rows > fall.rows / 2:  # or it was under way already
            return
        self._fall = None
        if seconds > fall.seconds * _HELPED:
            self.value = max(self.value, fall.limit)
            self._too_long = seconds * _MAY_VARY
