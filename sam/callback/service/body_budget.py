"""Memory budget of all bodies in flight."""

import asyncio
from typing import Final, Self

UNCOUNTED_BYTES: Final = 2**16
"""Of each body so much is not counted: no common callback waits for large ones."""

MAX_WAITING: Final = 100
"""Bodies that may wait for room. Each has up to 384 KiB here: what is not counted and what the
protocol had read when it was paused."""


class NoRoomError(Exception):
    """There is no room for a body, and too many wait for some, or it has waited too long."""


class BodyBudget:
    """Bounds what bodies take beyond what is not counted of each.

    Of what may be taken, the size of the largest body is kept for one at a time: the first that
    finds no room beside the others. So of many that are half here, one can always come to its end.

    Args:
        max_bytes: What all may take.
        max_body_bytes: What one may; at most `max_bytes`.
        timeout: For how many seconds a body waits.

    Attributes:
        max_shared: What all but the privileged one may take, in bytes.
        shared: What they take now.
        privileged: The share that has the rest to itself.
        waiting: How many bodies wait.
        freed: Set when something has been given back.
    """

    def __init__(self, max_bytes: int, max_body_bytes: int, timeout: float) -> None:
        self.timeout = timeout
        self.max_shared = max_bytes - max_body_bytes
        self.shared = 0
        self.privileged: BodyShare | None = None
        self.waiting = 0
        self.freed = asyncio.Event()


class BodyShare:
    """What one body takes of a budget, for the length of a ``with`` statement.

    Args:
        budget: The budget.
    """

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._taken = 0

    def __enter__(self) -> Self:
        """Take nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give all of it back."""
        budget = self._budget
        if budget.privileged is self:
            budget.privileged = None
        elif self._taken:
            budget.shared -= self._taken
        else:
            return
        budget.freed.set()

    def grow(self, size: int) -> bool:
        """Let the body grow to a size above what is not counted; say whether there was room."""
        budget, taken = self._budget, size - UNCOUNTED_BYTES
        if budget.privileged is not self:
            if budget.shared + taken - self._taken <= budget.max_shared:
                budget.shared += taken - self._taken
            elif budget.privileged is None:
                budget.privileged = self
                budget.shared -= self._taken
                budget.freed.set()
            else:
                return False
        self._taken = taken
        return True

    async def wait_for_room(self, size: int) -> None:
        """Let the body grow to a size as soon as there is room.

        Raises:
            NoRoomError: If there is none in time, or too many wait already.
        """
        budget = self._budget
        if budget.waiting >= MAX_WAITING:
            raise NoRoomError
        budget.waiting += 1
        try:
            async with asyncio.timeout(budget.timeout):
                while not self.grow(size):
                    budget.freed.clear()
                    await budget.freed.wait()
        except TimeoutError:
            raise NoRoomError from None
        finally:
            budget.waiting -= 1
