"""Accepting connections: only while there is room, and without the end of a TLS handshake."""

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask
from sam.callback.reasons import CutReason
from sam.callback.service.connections import Connection, Connections
from sam.callback.tasks import Supervisor

_PAUSE_SECONDS: Final = 0.01
_BURST: Final = 16
# Too many open files, here or in the whole system; no memory for one more socket.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = get_logger(__name__)

MakeProtocol = Callable[[Connection], asyncio.Protocol]


class Listener:
    """Accepts connections as `Connections` has room, and gives each its protocol.

    asyncio's own servers accept whatever comes, know nothing of a connection whose TLS handshake
    has not ended, and where file descriptors run out they drop new connections (uvloop) or write a
    traceback each second (asyncio).

    Args:
        sockets: What to accept from; they are closed with it.
        connections: Where there must be room first.
        make_protocol: Makes the protocol of a connection.
        tls: What TLS needs, or None to go without.
        throttle: Bounds the lines that are written.
        supervisor: Runs the tasks.
    """

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        connections: Connections,
        make_protocol: MakeProtocol,
        *,
        tls: ssl.SSLContext | None,
        throttle: LogThrottle,
        supervisor: Supervisor,
    ) -> None:
        self.sockets = tuple(sockets)
        self._connections = connections
        self._make_protocol = make_protocol
        self._tls = tls
        self._throttle = throttle
        self._supervisor = supervisor
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._sweep = asyncio.create_task(
            self._supervisor.run(BackgroundTask.DEADLINES, self._connections.sweep)
        )
        self._tasks.update(asyncio.create_task(self._serve(each)) for each in self.sockets)

    def close(self) -> None:
        """Accept nothing more, and drop what has not yet got its protocol."""
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more; until then, deadlines hold."""
        if self._sweep is not None:
            self._sweep.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, listening: socket.socket) -> None:
        with listening:
            await self._supervisor.run(
                BackgroundTask.ACCEPT, functools.partial(self._accept, listening)
            )

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
                await self._take(accepted, address)
                # What else is there already: waiting for a socket costs as much as all the rest of
                # a connection.
                for _ in range(_BURST):
                    await self._take(*listening.accept())
            except BlockingIOError:
                continue
            except OSError as error:
                await self._recover(error)

    async def _take(self, accepted: socket.socket, address: Any) -> None:  # noqa: ANN401 - by family
        with self._supervisor.guard(BackgroundTask.ACCEPT), contextlib.ExitStack() as unless_set_up:
            unless_set_up.callback(accepted.close)
            await self._connections.wait_for_room()
            accepted.setblocking(False)  # noqa: FBT003 - the standard library's
            connection = self._connections.add(str(address[0]))
            unless_set_up.callback(connection.leave)
            task = asyncio.create_task(
                asyncio.get_running_loop().connect_accepted_socket(
                    functools.partial(self._make_protocol, connection), accepted, ssl=self._tls
                )
            )
            self._tasks.add(task)
            task.add_done_callback(
                functools.partial(self._drop_unless_set_up, accepted, connection)
            )
            connection.owner = _SettingUp(connection, task)
            unless_set_up.pop_all()

    async def _recover(self, error: OSError) -> None:
        # Any other error is of that one connection, which was gone before it was accepted.
        if error.errno not in _EXHAUSTED:
            return
        if self._throttle.is_to_be_written("cannot_accept", str(error.errno)):
            _log.error(
                "cannot_accept",
                error=str(error),
                connections=len(self._connections),
                action="Raise the limit of open files (ulimit -n), or lower "
                "CALLBACK_MAX_CONNECTIONS.",
            )
        self._connections.make_room(CutReason.TOO_MANY_OPEN_FILES)
        await asyncio.sleep(_PAUSE_SECONDS)

    def _drop_unless_set_up(
        self, accepted: socket.socket, connection: Connection, task: asyncio.Task[Any]
    ) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        accepted.close()
        if error is not None and not isinstance(error, OSError):  # ssl.SSLError is one
            _log.error("crash", exc_info=error)
        elif error is not None:
            self._connections.report_cut(connection, CutReason.HANDSHAKE_FAILED, error=str(error))
        connection.leave()


class _SettingUp:
    """Owns a connection until its protocol does: with TLS, until the handshake has ended."""

    def __init__(self, connection: Connection, task: asyncio.Task[Any]) -> None:
        self._connection = connection
        self._task = task

    def expire(self) -> None:
        self._connection.cut(CutReason.HANDSHAKE_TOO_SLOW)

    def abort(self) -> None:
        self._task.cancel()
