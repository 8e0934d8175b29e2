"""Listener: accepts connections one at a time, while there is room for them."""

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask, CutReason
from sam.callback.server.connections import Connections
from sam.callback.server.protocol import HttpProtocol
from sam.callback.server.tls import TlsTransport
from sam.callback.tasks import Supervisor

_BURST: Final = 16
_PAUSE_SECONDS: Final = 0.01
# Too many open files, here or in the whole system; no memory for one more socket.
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = get_logger(__name__)


class Listener:
    """Accepts connections as `Connections` has room; closed like one of asyncio's servers.

    Those accept all that comes: without room nothing would wait in the system's queue, where a
    flood and a callback are served in turn.

    Args:
        connections: Where there must be room.
        make_protocol: Makes the protocol of a connection.
        tls: What TLS needs, or None to go without.
        throttle: Bounds the lines that are written.
        supervisor: Runs the tasks.
    """

    def __init__(
        self,
        connections: Connections,
        make_protocol: Callable[[], HttpProtocol],
        tls: ssl.SSLContext | None,
        throttle: LogThrottle,
        supervisor: Supervisor,
    ) -> None:
        self._connections = connections
        self._make_protocol = make_protocol
        self._tls = tls
        self._throttle = throttle
        self._supervisor = supervisor
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept from these, which are closed at the end."""
        for each in sockets:
            self._start(self._serve(each))

    def close(self) -> None:
        """Accept nothing more."""
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, listening: socket.socket) -> None:
        with listening:
            accept = functools.partial(self._accept, listening)
            await self._supervisor.run(BackgroundTask.ACCEPT, accept)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._take(*await loop.sock_accept(listening))
                # What else is there already: waiting for a socket costs as much as all the rest of
                # a connection.
                for _ in range(_BURST):
                    await self._take(*listening.accept())
            except OSError as error:
                await self._recover(error)

    async def _take(self, accepted: socket.socket, _address: object) -> None:
        with self._supervisor.guard(BackgroundTask.ACCEPT), contextlib.ExitStack() as unless_taken:
            unless_taken.callback(accepted.close)
            await self._connections.wait_for_room()
            accepted.setblocking(False)  # noqa: FBT003 - the standard library's
            protocol = self._make_protocol()
            self._connections.add(protocol)
            self._start(self._set_up(accepted, protocol))
            unless_taken.pop_all()

    async def _set_up(self, accepted: socket.socket, protocol: HttpProtocol) -> None:
        with self._supervisor.guard(BackgroundTask.ACCEPT), contextlib.ExitStack() as unless_set_up:
            unless_set_up.callback(accepted.close)
            unless_set_up.callback(self._connections.remove, protocol)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: TlsTransport(protocol, self._tls) if self._tls else protocol, accepted
            )
            unless_set_up.pop_all()

    async def _recover(self, error: OSError) -> None:
        # Else there is nothing more to accept, or it was gone before.
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
        self._connections.evict(CutReason.TOO_MANY_OPEN_FILES)
        await asyncio.sleep(_PAUSE_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
