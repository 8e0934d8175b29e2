"""Who is connected, how long each may keep us waiting, and who goes when there is no room."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any, Final, Protocol

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask, Metrics
from sam.callback.reasons import CutReason
from sam.callback.tasks import Supervisor

SCOPE_KEY: Final = "sam.callback.connection"
"""Where a request's scope has its `Connection`."""

_NO_DEADLINE: Final = math.inf
_WAIT_SECONDS: Final = 0.05

_log = get_logger(__name__)


class Owner(Protocol):
    """Whoever has a connection's transport."""

    def expire(self) -> None:
        """Do what is right now that the connection's deadline has passed."""

    def abort(self) -> None:
        """Close the connection at once."""


class Connection:
    """What is known of one open connection.

    Attributes:
        client: The other end's address.
        opened: When it was accepted, on the event loop's clock, like all times here.
        owner: Whoever has its transport; None until it has one.
        deadline: When its owner has it expire, unless what it waits for comes before.
        idle_since: Since when nothing of a request is here; infinite while something is.
    """

    __slots__ = ("_connections", "client", "deadline", "has_key", "idle_since", "opened", "owner")

    def __init__(self, connections: "Connections", client: str, opened: float) -> None:
        self._connections = connections
        self.client = client
        self.opened = opened
        self.owner: Owner | None = None
        self.deadline = _NO_DEADLINE
        self.idle_since = _NO_DEADLINE
        self.has_key = False

    def show_key(self) -> None:
        """Note that a request with the key came over it: for want of room it will not go."""
        if not self.has_key:
            self.has_key = True
            self._connections.befriend(self)

    def expire(self) -> None:
        """Have its owner do what is right now that its deadline has passed."""
        self.deadline = _NO_DEADLINE
        if self.owner is None:
            return
        try:
            self.owner.expire()
        except Exception:
            self.owner.abort()  # without a deadline it could stay for ever
            raise

    def leave(self) -> None:
        """Give its place free; it may be said twice."""
        self._connections.remove(self)

    def cut(self, reason: CutReason) -> None:
        """Close it at once, and log that."""
        self._connections.report_cut(self, reason)
        self.leave()
        if self.owner is not None:
            self.owner.abort()


class Connections:
    """All open connections, and room for more.

    When there is none, the oldest that has shown no key goes; if there is none of that kind, the
    one with the key that has been idle the longest. A callback with the key never goes: the new
    connection then waits. Nor does anybody who has had less than `grace` seconds: a flood of new
    connections could otherwise push each other out before one of them has shown its key. Where
    those without the key have more than a tenth of the room, idle ones with it stay, too.

    Args:
        maximum: The most connections.
        header_timeout: Seconds from accepting one to the end of its first headers.
        grace: Seconds.
        sweep_seconds: How often deadlines are looked at.
        metrics: Where to count.
        throttle: Bounds the lines that are written.
        supervisor: Takes the exceptions of what is to expire.
    """

    def __init__(
        self,
        *,
        maximum: int,
        header_timeout: float,
        grace: float,
        sweep_seconds: float,
        metrics: Metrics,
        throttle: LogThrottle,
        supervisor: Supervisor,
    ) -> None:
        self._maximum = maximum
        self._header_timeout = header_timeout
        self._grace = grace
        self._sweep_seconds = sweep_seconds
        self._metrics = metrics
        self._throttle = throttle
        self._supervisor = supervisor
        metrics.connections.set_function(self.__len__)
        metrics.connections_max.set(maximum)
        # Ordered, since the first of a dict that loses its first ones is ever slower to find.
        self._strangers: OrderedDict[Connection, None] = OrderedDict()
        self._friends: dict[Connection, None] = {}
        self._freed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._strangers) + len(self._friends)

    def add(self, client: str) -> Connection:
        """Add a connection that was just accepted."""
        connection = Connection(self, client, asyncio.get_running_loop().time())
        connection.deadline = connection.opened + self._header_timeout
        self._strangers[connection] = None
        return connection

    def befriend(self, connection: Connection) -> None:
        """Note that a connection has shown the key."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._friends[connection] = None

    def remove(self, connection: Connection) -> None:
        """Give a connection's place free, if it has one."""
        self._strangers.pop(connection, None)
        self._friends.pop(connection, None)
        self._freed.set()

    def report_cut(self, connection: Connection, reason: CutReason, **details: str) -> None:
        """Count and log that a connection was closed without an answer."""
        self._metrics.cut(reason)
        if self._throttle.is_to_be_written("connection_cut", reason):
            _log.warning(
                "connection_cut",
                reason=reason,
                client=connection.client,
                has_key=connection.has_key,
                open_seconds=round(asyncio.get_running_loop().time() - connection.opened, 3),
                connections=len(self),
                **details,
            )

    async def wait_for_room(self) -> None:
        """Return as soon as there is room for one more; make it if need be."""
        while len(self) >= self._maximum and not self.make_room(CutReason.TOO_MANY_CONNECTIONS):
            self._freed.clear()
            try:
                await asyncio.wait_for(self._freed.wait(), _WAIT_SECONDS)
            except TimeoutError:
                continue  # somebody's grace may be over

    def make_room(self, reason: CutReason) -> bool:
        """Cut the connection that is to go first; say whether there was one."""
        had_grace = asyncio.get_running_loop().time() - self._grace
        oldest = next(iter(self._strangers), None)
        if oldest is None or oldest.opened > had_grace:
            if len(self._strangers) > len(self) // 10:
                return False
            oldest = min(self._friends, key=lambda friend: friend.idle_since, default=None)
            if oldest is None or oldest.idle_since > had_grace:
                return False
        oldest.cut(reason)
        return True

    async def sweep(self) -> None:
        """Have connections expire whose deadline has passed, until cancelled.

        One timer for all of them: one for each would cost every callback two more.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._sweep_seconds)
            now = loop.time()
            overdue = [
                connection
                for group in (self._strangers, self._friends)
                for connection in group
                if connection.deadline <= now
            ]
            for connection in overdue:
                with self._supervisor.guard(BackgroundTask.DEADLINES):
                    connection.expire()


def show_key(scope: MutableMapping[str, Any]) -> None:
    """Note that a request has shown the key, for the connection that it came over."""
    connection: Connection | None = scope.get(SCOPE_KEY)
    if connection is not None:  # it is None for an app that is called without a server
        connection.show_key()
