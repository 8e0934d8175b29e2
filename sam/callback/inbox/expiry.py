"""Expiry: an entry past `CALLBACK_UNMATCHED_TTL` (in settings.py) becomes a dead letter."""

import math
import time
from typing import Final

from sam.callback.inbox.circuit_breaker import CircuitBreaker
from sam.callback.inbox.store import Entry

GRACE_SECONDS: Final = 600.0
"""Grace period after an outage, in which nothing expires."""

_NS: Final = 1_000_000_000


class Expiry:
    """The age at which an entry expires; it counts only while the entry could be tried.

    Args:
        ttl: The age, in seconds.
        breaker: Since when the database takes writes.
    """

    def __init__(self, ttl: float, breaker: CircuitBreaker) -> None:
        self.ttl = ttl
        self._breaker = breaker
        self._running_since = -math.inf
        self._clock_offset = time.time_ns() - time.monotonic_ns()

    def begin(self) -> None:
        """Note that entries are tried from now on."""
        self._running_since = time.monotonic()

    def is_expired(self, entry: Entry) -> bool:
        """Whether an entry that was tried just now, in vain, is too old."""
        tried_since = max(self._running_since, self._breaker.closed_since)
        if time.monotonic() - tried_since < min(self.ttl, GRACE_SECONDS):
            return False
        # By the clock that says less: a clock that is set must not end a wait.
        now = min(time.time_ns(), time.monotonic_ns() + self._clock_offset)
        return now - entry.number > self.ttl * _NS
