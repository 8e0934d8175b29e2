"""Sequence numbers of callbacks: always rising, even if the clock is set back."""

import time
from collections.abc import Callable


class Sequence:
    """Gives out sequence numbers: ns since 1970, and always more than the one before.

    One thread has it, that of the event loop: two would give out the same number twice.

    Args:
        clock: Tells the time in ns since 1970.

    Attributes:
        last: The highest number that was given out, or is known of an earlier life.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self.last = 0

    def next(self) -> int:
        """Return a new number."""
        self.last = max(self.last + 1, self._clock())
        return self.last

    def continue_after(self, number: int) -> None:
        """Give out only numbers above this one, as a spool holds it from an earlier life."""
        self.last = max(self.last, number)
