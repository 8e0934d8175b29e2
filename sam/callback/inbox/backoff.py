"""Retry delays with exponential back-off."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from the first delay to the longest, both in seconds."""

    first: float
    longest: float

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, the first being 1."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 32))

    @property
    def failures_to_longest(self) -> int:
        """After so many failures in a row the delay is the longest."""
        failures = 1
        while self.delay(failures) < self.longest:
            failures += 1
        return failures


RETRY: Final = Backoff(first=0.5, longest=60.0)
"""Of an entry whose row does not exist yet, or is locked: 0.5, 1, 2, 4 ... 60 s."""
