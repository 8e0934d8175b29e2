"""A TCP proxy in front of a database, which can refuse, fall silent, cut, and admit none."""

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.support.conditions import LIMIT_SECONDS

T = TypeVar("T")


class Proxy:
    """Forwards one local port to another, on a thread and an event loop of its own.

    Args:
        target: The port on 127.0.0.1 that connections are forwarded to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._hold_on = b""
        self._holds_answer = False
        self._admitted: float = math.inf
        self._admitting = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(self._serve(0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.connections = 0

    def fall_silent(self) -> None:
        """Pass nothing on any more; new connections are accepted, and hear nothing."""
        self._call(self._flowing.clear)

    def fall_silent_on(self, request: bytes, *, after_it: bool) -> None:
        """Fall silent when a request with these bytes comes: before it goes on, or after."""
        self._hold_on, self._holds_answer = request, after_it

    def admit(self, connections: float) -> None:
        """Let so many connections, of all since the start, through to the server.

        The others are accepted, and hear nothing until they are admitted.
        """

        async def tell() -> None:
            async with self._admitting:
                self._admitted = connections
                self._admitting.notify_all()

        self._do(tell())

    @property
    def is_silent(self) -> bool:
        """Whether nothing is passed on."""
        return not self._flowing.is_set()

    def speak(self) -> None:
        """Pass on what was held back, and what comes."""
        self._hold_on = b""
        self._call(self._flowing.set)

    def cut(self) -> None:
        """Reset every connection."""

        def abort() -> None:
            for writer in self._writers:
                writer.transport.abort()

        self._call(abort)

    def refuse(self) -> None:
        """Take no new connections, and reset those that are open."""
        self._call(self._server.close)
        self.cut()

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._server = self._do(self._serve(self.port))

    def close(self) -> None:
        self.refuse()
        self.admit(math.inf)
        self.speak()  # what is held back ends on its cut connection
        self._do(self._end())
        self._call(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT_SECONDS)

    def _call(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(call)
        done.wait(LIMIT_SECONDS)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=LIMIT_SECONDS)

    async def _serve(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._forward, "127.0.0.1", port)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        async with self._admitting:
            await self._admitting.wait_for(lambda: number <= self._admitted)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._writers.remove(writer)
            return
        self._writers.add(far_writer)
        await asyncio.gather(
            self._pump(reader, far_writer, is_request=True),
            self._pump(far_reader, writer, is_request=False),
        )
        self._writers -= {writer, far_writer}

    def _is_held(self, data: bytes) -> bool:
        return bool(self._hold_on) and self._hold_on in data

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_request and not self._holds_answer and self._is_held(data):
                    self._flowing.clear()
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
                # Asked again: it may have been told to speak meanwhile.
                if is_request and self._holds_answer and self._is_held(data):
                    self._flowing.clear()
        writer.close()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy in front of a port."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
