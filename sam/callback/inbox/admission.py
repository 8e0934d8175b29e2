"""Admission control: bounds on the callbacks and bodies in flight, in number and in bytes."""

from sam.callback.metrics import RefusalReason


class NotDurableError(Exception):
    """Neither the database nor a store could take a callback: it may be lost."""

    reason = RefusalReason.NOT_SAFE
    """Why, in one word, for logs and metrics."""


class OverloadedError(NotDurableError):
    """Too many callbacks are in flight."""

    reason = RefusalReason.OVERLOADED


class AdmissionControl:
    """Counts what is in flight, and refuses what is too much.

    Args:
        max_count: How many may be.
        max_bytes: How many bytes of theirs may be kept in memory; a single one may have more.

    Attributes:
        count: How many are.
        max_count: How many may be.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.count = 0
        self.max_count = max_count
        self._bytes = 0
        self._max_bytes = max_bytes

    def enter(self, size: int) -> None:
        """Count one of so many bytes.

        Raises:
            OverloadedError: If there is no room for it.
        """
        if self.count >= self.max_count:
            raise OverloadedError(f"{self.count} callbacks are in flight already.")
        if self._bytes and self._bytes + size > self._max_bytes:
            raise OverloadedError(f"{self._bytes} bytes are in flight already.")
        self.count += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Count it no more."""
        self.count -= 1
        self._bytes -= size
