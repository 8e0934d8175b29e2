"""A TCP proxy that holds back all it passes on, as a network does that is 5 ms wide.

A process of its own, so that what it costs is not counted as a server's: ``python -m
tests.benchmarks.delay TARGET_PORT SECONDS_EACH_WAY`` prints the port that it listens on.
"""

import asyncio
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

ROUND_TRIP_SECONDS: Final = 0.005

_HOST = "127.0.0.1"


class _Side(asyncio.Protocol):
    """One side of a connection; what comes in goes out on the other side, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        for data in self._waiting:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self._loop.call_later(self._delay, self.other.write, data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.other is not None:
            self._loop.call_later(self._delay, self.other.close)

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._waiting.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Near(_Side):
    """The side that a client has connected to."""

    def __init__(self, delay: float, target: int) -> None:
        super().__init__(delay)
        self._target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = far = _Side(self._delay)
        far.other = self
        self._connecting = self._loop.create_task(self._connect(far))

    async def _connect(self, far: _Side) -> None:
        try:
            await self._loop.create_connection(lambda: far, _HOST, self._target)
        except OSError:
            self.close()


async def _serve(target: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Near(delay, target), _HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by its starter
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    target, delay = int(sys.argv[1]), float(sys.argv[2])
    # epoll and libuv count in whole milliseconds, select in microseconds.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        runner.run(_serve(target, delay))


@contextmanager
def delayed(target: int) -> Iterator[int]:
    """A port that leads to another one, half of `ROUND_TRIP_SECONDS` away each way."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.delay", str(target), str(ROUND_TRIP_SECONDS / 2)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    main()
