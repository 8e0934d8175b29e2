"""Readiness: whether callbacks can be made durable, for ``/ready``."""

from enum import StrEnum
from typing import Final

from sam.callback.inbox.circuit_breaker import CircuitBreaker, CircuitState
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sqlite.spool import Spool


class Readiness(StrEnum):
    """Whether callbacks can be made durable."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"


class DatabaseState(StrEnum):
    """Whether the database takes writes."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    """None has been committed since the start, and none has failed."""


_DATABASE: Final = {
    CircuitState.UNKNOWN: DatabaseState.UNKNOWN,
    CircuitState.CLOSED: DatabaseState.UP,
    CircuitState.OPEN: DatabaseState.DOWN,
    CircuitState.HALF_OPEN: DatabaseState.DOWN,
}


def database_state(breaker: CircuitBreaker) -> DatabaseState:
    """Return what the last writes say of the database."""
    return _DATABASE[breaker.state]


def readiness_of(breaker: CircuitBreaker, spool: Spool, shared: SharedStore | None) -> Readiness:
    """Return whether callbacks can be made durable, by the last writes to each place."""
    is_up = database_state(breaker) is DatabaseState.UP
    are_writable = [store.is_writable for store in (spool, shared) if store is not None]
    if not (is_up or any(are_writable)):
        return Readiness.UNAVAILABLE
    if is_up and all(are_writable) and not breaker.is_wrong_database:
        return Readiness.OK
    return Readiness.DEGRADED
