"""Waiting for a condition, with a limit."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

LIMIT_SECONDS: Final = 60
"""The longest that a test waits for anything. No machine is so slow that this decides a test."""

_PAUSE_SECONDS: Final = 0.02


def eventually(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: If it does not hold in time.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not come true in time"
        time.sleep(_PAUSE_SECONDS)


async def becomes_true(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, while the event loop runs.

    Raises:
        AssertionError: If it does not hold in time.
    """
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < LIMIT_SECONDS, "it did not come true in time"
        await asyncio.sleep(_PAUSE_SECONDS)
