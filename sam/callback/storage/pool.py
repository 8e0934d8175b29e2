"""Session pool: filled in the background, one connection at a time; idle ones are renewed.

Nobody connects on a caller's time. Who finds no idle session waits for one: for the connection that
is being made, or for one that comes back, whichever is first. If the time is up before that, the
connection goes on being made, and serves whoever comes later.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask
from sam.callback.storage.errors import (
    DatabaseUnavailableError,
    PoolExhaustedError,
    StillConnectingError,
)
from sam.callback.storage.session import Session
from sam.callback.tasks import Supervisor

MAX_IDLE_SECONDS: Final = 180
"""A session idle for longer is renewed: firewalls forget a silent connection in 240 s or so."""

RETRY_SECONDS: Final = 60
"""How long after a failure the pool is filled further, while there are sessions to work with."""

TICK_SECONDS: Final = 5
"""How often to look for sessions that have been idle for too long."""

_log = get_logger(__name__)


class SessionPool:
    """Sessions that are idle, at work or given up, and those who wait for one.

    A session that is given up is still in its thread, and may come back. It takes nobody's place.

    Args:
        connect: Makes a session, or raises `DatabaseUnavailableError`.
        disconnect: Ends one, closed or not.
        supervisor: Runs the task that fills it.
        size: The most idle and at work together.
        on_failed: Is told why a connection could not be made, where nobody waits and none is left.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Session]],
        disconnect: Callable[[Session], Awaitable[None]],
        supervisor: Supervisor,
        *,
        size: int,
        on_failed: Callable[[DatabaseUnavailableError], object],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._supervisor = supervisor
        self._size = size
        self._on_failed = on_failed
        self._idle: list[Session] = []  # the one used last at the end
        self._at_work: set[Session] = set()
        self._given_up: set[Session] = set()
        self._waiters: deque[asyncio.Future[Session]] = deque()
        self._changed = asyncio.Event()
        self._is_connecting = False
        self._has_failed = False
        self._retry_at = 0.0
        self._filling: asyncio.Task[None] | None = None
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def in_use(self) -> int:
        """Sessions at work, and a connection that is being made."""
        return len(self._at_work) + self._is_connecting

    @property
    def waiting(self) -> int:
        """Calls that wait for a session."""
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
        self._fail_waiters(DatabaseUnavailableError("The pool is closed."), set(self._waiters))
        self.drop_idle()
        await asyncio.gather(*self._ends)

    async def take(self, deadline: float) -> Session:
        """Return a session, to be put back.

        Args:
            deadline: Until when to wait, on the event loop's clock.

        Raises:
            StillConnectingError: If it was still being made then.
            PoolExhaustedError: If all were at work until then.
            DatabaseUnavailableError: If no connection can be made, and there is none.
        """
        if self._filling is None:
            raise DatabaseUnavailableError("The pool is not open.")
        if self._idle:
            session = self._idle.pop()
            self._at_work.add(session)
            return session
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Session] = loop.create_future()
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
            raise StillConnectingError("A connection to the database was still being made.")
        raise PoolExhaustedError(
            f"All {self._size} connections to the database were busy for too long."
        )

    def give_up(self, session: Session) -> None:
        """Note that a session's thread is not waited for any more; `put` it when it comes back."""
        self._at_work.remove(session)
        self._given_up.add(session)
        self._changed.set()

    def put(self, session: Session) -> None:
        """Take a session back, given up or not; one that is closed, or one too many, ends."""
        self._at_work.discard(session)
        self._given_up.discard(session)
        if session.closed or self._filling is None or self._alive >= self._size:
            self._end(session)
            return
        session.used()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._at_work.add(session)
                waiter.set_result(session)
                return
        self._idle.append(session)

    def drop_idle(self) -> None:
        """End the idle sessions: a server that restarted has closed them all."""
        while self._idle:
            self._end(self._idle.pop())

    @property
    def _alive(self) -> int:
        return len(self._idle) + len(self._at_work)

    def _end(self, session: Session) -> None:
        task = asyncio.ensure_future(self._disconnect(session))
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
        if self._has_failed and (not self._alive or self._now() < self._retry_at):
            return False  # who tries an outage again, and when, is not for the pool to say
        if self._waiters:
            return self._alive < self._size
        # Those given up are expected back.
        return self._alive + len(self._given_up) < self._size or self._is_one_stale()

    def _is_one_stale(self) -> bool:
        return bool(self._idle) and self._idle[0].idle_seconds > MAX_IDLE_SECONDS

    async def _add_one(self) -> None:
        waiting = set(self._waiters)
        self._is_connecting = True
        try:
            session = await self._connect()
        except DatabaseUnavailableError as error:
            self._failed(error, waiting)
            return
        finally:
            self._is_connecting = False
        self._has_failed = False
        if self._is_one_stale():
            self._end(self._idle.pop(0))
        self.put(session)

    def _failed(
        self, error: DatabaseUnavailableError, waiting: "set[asyncio.Future[Session]]"
    ) -> None:
        if self._alive:
            if not self._has_failed:
                _log.warning("pool_not_filled", connections=self._alive, reason=str(error))
        # Who came after it began has another try: the server may just have restarted.
        elif not self._fail_waiters(error, waiting):
            self._on_failed(error)
        self._has_failed = True
        self._retry_at = self._now() + RETRY_SECONDS

    def _fail_waiters(
        self, error: DatabaseUnavailableError, waiting: "set[asyncio.Future[Session]]"
    ) -> bool:
        """Give an error to those who wait, of these; say whether there was one."""
        failing = [each for each in self._waiters if each in waiting and not each.done()]
        for waiter in failing:
            waiter.set_exception(error)
            self._waiters.remove(waiter)
        return bool(failing)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
