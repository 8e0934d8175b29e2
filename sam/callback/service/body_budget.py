"""Memory budget of all bodies in flight."""

import asyncio
from types import TracebackType
from typing import Final, Self

UNCOUNTED_BYTES: Final = 2**16
"""Of each body so much is not counted: no common callback waits for large ones."""

MAX_WAITING: Final = 100
"""Bodies that may wait for room. Each has up to 384 KiB here: what is not counted and what the
protocol had read when it was paused."""


class NoRoomError(Exception):
    """There is no room for a body, and too many wait for some."""


class BodyBudget:
    """Bounds what bodies take beyond what is not counted of each.

    Of what may be taken, the size of the largest body is kept for one at a time: the first that
    finds no room beside the others. So of many that are half here, one can always come to its end.

    Args:
        max_bytes: What all may take.
        max_body_bytes: What one may; at most `max_bytes`.
    """

    def __init__(self, max_bytes: int, max_body_bytes: int) -> None:
        self._max_shared = max_bytes - max_body_bytes
        self._shared = 0
        self._privileged: BodyShare | None = None
        self._waiting = 0
        self._freed = asyncio.Event()

    @property
    def taken(self) -> int:
        """What they take now, in bytes."""
        return self._shared + (self._privileged.taken if self._privileged else 0)

    def grow(self, share: "BodyShare", taken: int) -> bool:
        """Let a share take so much in all; say whether there was room."""
        if share is not self._privileged:
            more = taken - share.taken
            if self._shared + more <= self._max_shared:
                self._shared += more
            elif self._privileged is None:
                self._privileged = share
                self._shared -= share.taken
                self._freed.set()
            else:
                return False
        share.taken = taken
        return True

    def release(self, share: "BodyShare") -> None:
        """Take back all that a share has."""
        if share is self._privileged:
            self._privileged = None
        else:
            self._shared -= share.taken
        share.taken = 0
        self._freed.set()

    async def wait(self) -> None:
        """Wait until something has been given back.

        Raises:
            NoRoomError: If too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise NoRoomError
        self._waiting += 1
        try:
            self._freed.clear()
            await self._freed.wait()
        finally:
            self._waiting -= 1


class BodyShare:
    """What one body takes of a budget, for the length of a ``with`` statement.

    Args:
        budget: The budget.

    Attributes:
        taken: How much it has, in bytes.
    """

    __slots__ = ("_budget", "taken")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.taken = 0

    def __enter__(self) -> Self:
        """Take nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give all of it back."""
        if self.taken:
            self._budget.release(self)

    def grow(self, size: int) -> bool:
        """Let the body grow to a size above what is not counted; say whether there was room."""
        return self._budget.grow(self, size - UNCOUNTED_BYTES)

    async def wait_for_room(self, size: int) -> None:
        """Let the body grow to a size as soon as there is room.

        Raises:
            NoRoomError: If too many wait already.
        """
        while not self.grow(size):
            await self._budget.wait()
