"""Connection pool: filled in the background, one connection at a time; idle ones are renewed.

No caller's time is spent on connecting. A caller that finds no idle connection waits for the one
that is being made, or for one that comes back, whichever is first. If its time is up before that,
the connection goes on being made, and serves the next caller.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.errors import (
    DatabaseUnavailableError,
    NoConnectionError,
)
from sam.callback.tasks import Supervisor

MAX_IDLE_SECONDS: Final = 180
"""A connection idle for longer is renewed: firewalls forget a silent one in 240 s or so."""

RETRY_SECONDS: Final = 60
"""Pause after a failure before the pool is filled further, while it has connections."""

TICK_SECONDS: Final = 5
"""Interval of looks for connections that have been idle for too long."""

_log = get_logger(__name__)

_Waiter = asyncio.Future[DatabaseConnection]


OnConnectFailed = Callable[[DatabaseUnavailableError, float], object]
"""Is told why a connection could not be made, and when that began, on the monotonic clock."""


class ConnectionPool:
    """Connections that are idle, at work or given up, and the callers that wait for one.

    A connection that is given up is still in its thread, and may come back. It takes no place.

    Args:
        connect: Makes a connection, or raises `DatabaseUnavailableError`.
        disconnect: Ends one, closed or not.
        supervisor: Runs the task that fills the pool.
        size: The most idle and at work together.
        on_failed: Is told why a connection could not be made, where no caller waits and none is
            left.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[DatabaseConnection]],
        disconnect: Callable[[DatabaseConnection], Awaitable[None]],
        supervisor: Supervisor,
        *,
        size: int,
        on_failed: OnConnectFailed,
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._supervisor = supervisor
        self._size = size
        self._on_failed = on_failed
        self._idle: list[DatabaseConnection] = []  # the one used last at the end
        self._at_work: set[DatabaseConnection] = set()
        self._given_up: set[DatabaseConnection] = set()
        self._waiters: deque[_Waiter] = deque()
        self._changed = asyncio.Event()
        self._is_connecting = False
        self._has_failed = False
        self._retry_at = 0.0
        self._filling: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def in_use(self) -> int:
        """Connections at work, and one that is being made."""
        return len(self._at_work) + self._is_connecting

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection."""
        return len(self._waiters)

    def open(self) -> None:
        """Begin to fill the pool."""
        run = self._supervisor.run(BackgroundTask.CONNECT, self._keep_filled)
        self._filling = asyncio.create_task(run)

    async def close(self) -> None:
        """End what is idle; what is at work or given up ends when it comes back."""
        filling, self._filling = self._filling, None
        if filling is None:
            return
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        self._fail(DatabaseUnavailableError("The pool is closed."), list(self._waiters))
        self.drop_idle()
        await asyncio.gather(*self._ends)

    async def take(self, deadline: float) -> DatabaseConnection:
        """Return a connection, to be put back.

        Args:
            deadline: Until when to wait, on the event loop's clock.

        Raises:
            NoConnectionError: If all were at work until then, or it was still being made.
            DatabaseUnavailableError: If no connection can be made, and there is none.
        """
        if self._filling is None:
            raise DatabaseUnavailableError("The pool is not open.")
        if self._idle:
            connection = self._idle.pop()
            self._at_work.add(connection)
            return connection
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        self._waiters.append(waiter)
        self._changed.set()
        try:
            await asyncio.wait({waiter}, timeout=deadline - loop.time())
        except asyncio.CancelledError:
            if waiter.done() and not waiter.exception():
                self.put(waiter.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)
        if waiter.done():
            return waiter.result()
        if self._is_connecting:
            raise NoConnectionError("A connection to the database was still being made.")
        raise NoConnectionError(
            f"All {self._size} connections to the database were busy for too long."
        )

    def give_up(self, connection: DatabaseConnection) -> None:
        """Note that a connection's thread is waited for no more; `put` it when it comes back."""
        self._at_work.remove(connection)
        self._given_up.add(connection)
        self._changed.set()

    def put(self, connection: DatabaseConnection) -> None:
        """Take a connection back, given up or not; one that is closed, or one too many, ends."""
        self._at_work.discard(connection)
        self._given_up.discard(connection)
        if connection.closed or self._filling is None or self._alive >= self._size:
            self._end(connection)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._at_work.add(connection)
                waiter.set_result(connection)
                return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def drop_idle(self) -> None:
        """End the idle connections: a server that restarted has closed them all."""
        while self._idle:
            self._end(self._idle.pop())

    @property
    def _alive(self) -> int:
        return len(self._idle) + len(self._at_work)

    def _end(self, connection: DatabaseConnection) -> None:
        task = asyncio.ensure_future(self._disconnect(connection))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        self._changed.set()

    async def _keep_filled(self) -> None:
        while True:
            if self._is_one_wanted():
                await self._add_one()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._changed.wait()
                self._changed.clear()

    def _is_one_wanted(self) -> bool:
        if self._waiters and not self._alive:
            return True
        if self._has_failed and (not self._alive or time.monotonic() < self._retry_at):
            return False  # when an outage is tried again is not for the pool to say
        if self._waiters:
            return self._alive < self._size
        # Those given up are expected back.
        return self._alive + len(self._given_up) < self._size or self._is_one_stale()

    def _is_one_stale(self) -> bool:
        return bool(self._idle) and time.monotonic() - self._idle[0].idle_since > MAX_IDLE_SECONDS

    async def _add_one(self) -> None:
        waiting = list(self._waiters)
        begun = time.monotonic()
        self._is_connecting = True
        try:
            connection = await self._connect()
        except DatabaseUnavailableError as error:
            if self._alive:
                if not self._has_failed:
                    _log.warning("pool_not_filled", connections=self._alive, reason=str(error))
            # What came after it began has another try: the server may just have restarted.
            elif not self._fail(error, waiting):
                self._on_failed(error, begun)
            self._has_failed = True
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        finally:
            self._is_connecting = False
        self._has_failed = False
        if self._is_one_stale():
            self._end(self._idle.pop(0))
        self.put(connection)

    def _fail(self, error: DatabaseUnavailableError, waiting: list[_Waiter]) -> bool:
        """Give an error to those of these that still wait; say whether there was one."""
        failing = [each for each in self._waiters if each in waiting and not each.done()]
        for waiter in failing:
            waiter.set_exception(error)
            self._waiters.remove(waiter)
        return bool(failing)
