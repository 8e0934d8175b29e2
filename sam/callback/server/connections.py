"""Connection limit with eviction, and the deadlines of all connections on one timer."""

import asyncio
import contextlib
import ctypes
import math
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sam.callback.http_scope import Refusal
from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask, CutReason, Metrics
from sam.callback.settings import Settings
from sam.callback.tasks import Supervisor

if TYPE_CHECKING:
    from sam.callback.server.protocol import HttpProtocol

RESERVED_FILES: Final = 100
"""File descriptors for all but connections: the database, the spool, the event loop, libraries."""

_WAIT_SECONDS: Final = 0.05
_TRIM_SECONDS: Final = 5.0
_TRIM_CONNECTIONS: Final = 100

_log = get_logger(__name__)


class Connections:
    """All open connections, and room for more by evicting one: docs/decisions/0011.

    Args:
        settings: How many, and their time-outs.
        metrics: Where to count.
        throttle: Bounds the lines that are written.
        supervisor: Takes the exceptions of connections that expire.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, throttle: LogThrottle, supervisor: Supervisor
    ) -> None:
        self._limit = room_for(settings.callback_max_connections)
        self._grace = settings.callback_header_timeout / 3
        shortest = min(settings.callback_header_timeout, settings.callback_body_timeout)
        self._sweep_seconds = min(1.0, shortest / 10)
        self._metrics = metrics
        self._throttle = throttle
        self._supervisor = supervisor
        metrics.connections.set_function(self.__len__)
        metrics.connections_max.set(self._limit)
        # Ordered, since the first of a dict that loses its first ones is ever slower to find.
        self._unauthenticated: OrderedDict[HttpProtocol, None] = OrderedDict()
        self._authenticated: dict[HttpProtocol, None] = {}
        self._closed = 0  # since memory was last given back

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._unauthenticated) + len(self._authenticated)

    def add(self, connection: "HttpProtocol") -> None:
        """Add one that was just accepted."""
        self._unauthenticated[connection] = None

    def authenticate(self, connection: "HttpProtocol") -> None:
        """Note that a request with a valid key came over it."""
        connection.is_authenticated = True
        if connection in self._unauthenticated:
            del self._unauthenticated[connection]
            self._authenticated[connection] = None

    def remove(self, connection: "HttpProtocol") -> None:
        """Remove one that is closed; it may be removed twice."""
        for connections in (self._unauthenticated, self._authenticated):
            if connection in connections:
                del connections[connection]
                self._closed += 1

    def cut(self, connection: "HttpProtocol", reason: CutReason, **details: str) -> None:
        """Close one without an answer; count and log that."""
        self._metrics.connections_cut[reason].inc()
        if self._throttle.is_to_be_written("connection_cut", reason):
            _log.warning(
                "connection_cut",
                reason=reason,
                client=connection.client[0] if connection.client else None,
                has_key=connection.is_authenticated,
                open_seconds=round(asyncio.get_running_loop().time() - connection.opened, 3),
                connections=len(self),
                **details,
            )
        self.remove(connection)
        connection.abort()

    def report_refusal(self, connection: "HttpProtocol", refusal: Refusal) -> None:
        """Count and log a request that the app does not see."""
        self._metrics.refusals[refusal.reason].inc()
        if self._throttle.is_to_be_written("refused_early", refusal.reason):
            _log.warning(
                "refused_early",
                reason=refusal.reason,
                http_status=refusal.status,
                client=connection.client[0] if connection.client else None,
                has_key=connection.is_authenticated,
            )

    async def wait_for_room(self) -> None:
        """Return as soon as there is room for one more; evict one if need be."""
        while len(self) >= self._limit and not self.evict():  # noqa: ASYNC110 - time makes room too
            await asyncio.sleep(_WAIT_SECONDS)

    def evict(self, reason: CutReason = CutReason.TOO_MANY_CONNECTIONS) -> bool:
        """Cut the connection that is least likely to bring a callback, if one may be evicted."""
        youngest = asyncio.get_running_loop().time() - self._grace
        evicted = next(iter(self._unauthenticated), None)
        if evicted is None or evicted.opened > youngest:
            if len(self._unauthenticated) > len(self) // 10:
                return False  # a flood does not close idle connections of A360
            evicted = min(self._authenticated, key=lambda each: each.idle_since, default=None)
            if evicted is None or evicted.idle_since > youngest:
                return False
        self.cut(evicted, reason)
        return True

    async def sweep(self) -> None:
        """Have connections expire whose deadline has passed, until cancelled."""
        loop = asyncio.get_running_loop()
        next_trim = 0.0
        while True:
            await asyncio.sleep(self._sweep_seconds)
            now = loop.time()
            for connection in [*self._unauthenticated, *self._authenticated]:
                if connection.deadline <= now:
                    connection.deadline = math.inf
                    with self._supervisor.guard(BackgroundTask.DEADLINES):
                        try:
                            connection.expire()
                        except Exception:
                            connection.abort()  # without a deadline it could stay for ever
                            raise
            if self._closed >= _TRIM_CONNECTIONS and now >= next_trim:
                next_trim, self._closed = now + _TRIM_SECONDS, 0
                _trim_memory()


def _trim_memory() -> None:
    """Give back to the system what closed connections had; glibc keeps it otherwise."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def room_for(connections: int) -> int:
    """Raise the limit of open files if need be; return how many connections there is room for.

    Args:
        connections: How many there are to be.
    """
    if sys.platform == "win32":
        return connections  # it has no such limit
    import resource  # noqa: PLC0415 - not on Windows

    needed = connections + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    if raised == needed:
        return connections
    room = max(raised - RESERVED_FILES, raised // 2)
    _log.warning(
        "too_few_file_descriptors",
        open_files=raised,
        connections=room,
        action=f"The system allows {raised} open files, which is too few for {connections} "
        f"connections. Allow {needed} (ulimit -Hn), or lower CALLBACK_MAX_CONNECTIONS.",
    )
    return room
