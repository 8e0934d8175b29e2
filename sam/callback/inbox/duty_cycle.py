"""Duty cycle: limits work to a share of the time, by a rest after each piece."""

import math
import time
from collections.abc import Callable


class DutyCycle:
    """Work that may take a share of the time: after each piece of it there is a rest.

    Args:
        share: The share, above 0 and up to 1.
        clock: Tells the time in seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._rests_until = -math.inf

    @property
    def seconds_to_rest(self) -> float:
        """How long no work may be done yet."""
        return max(0.0, self._rests_until - self._clock())

    def worked(self, seconds: float, load: float) -> None:
        """Rest after a piece of work.

        Args:
            seconds: What it took.
            load: What part it was of a full piece: small ones need less of a rest, as there is
                hardly more to do.
        """
        self._rests_until = self._clock() + seconds * max(0.0, load / self._share - 1)
