"""Waiting for a condition, with a limit; never for luck."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], seconds: float = 20) -> float:
    """Wait until a condition holds; return the seconds it took.

    Raises:
        AssertionError: If it does not hold in time.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not come true in time"
        time.sleep(0.02)
    return time.monotonic() - started
