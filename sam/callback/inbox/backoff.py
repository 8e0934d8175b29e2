"""How long to wait before the next try."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from the first delay to the longest, both in seconds."""

    first: float
    longest: float

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, the first being 1."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 32))
