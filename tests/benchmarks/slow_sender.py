"""Connections that send their beginning at once and then a byte a second, for ever.

``python -m tests.benchmarks.slow_sender PORT KIND`` keeps at it until it is terminated, and tells
then what it did. It is a process of its own that lets others go first: elsewhere it would be on
machines of its own, and what is of interest is what it takes from the service.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from tests.benchmarks.server import KEY

NUMBER: Final = 2_000
TICKS: Final = 20
"""In how many parts each second's bytes are sent, so that they do not come all at once."""

_NICENESS: Final = 10
_REQUEST: Final = b"POST /callback HTTP/1.1\r\nHost: x\r\n"
_KEY: Final = b"X-API-KEY: %b\r\n" % KEY.encode()
_BODY: Final = b"Content-Length: 1000\r\n\r\n"

KINDS: Final = {
    "headers, no key": _REQUEST + b"X: ",
    "headers, key": _REQUEST + _KEY + b"X: ",
    "body, no key": _REQUEST + _BODY,
    "body, key": _REQUEST + _KEY + _BODY,
}
"""The bytes sent at once when a connection is made."""


@dataclass
class Sent:
    """The account of the connections.

    Attributes:
        per_second: Bytes a second, behind the beginnings.
        cut: How many connections were cut; each comes again a second later.
    """

    per_second: float = 0
    cut: int = 0


class SlowSender:
    """The connections.

    Attributes:
        cut: How many were cut.
        sent: How many bytes were sent, behind the beginnings.
    """

    def __init__(self, port: int, beginning: bytes) -> None:
        self.cut = 0
        self.sent = 0
        self._port = port
        self._beginning = beginning
        self._open: list[socket.socket | None] = [None] * NUMBER

    async def run(self) -> None:
        """Keep all of them at it until cancelled."""
        part = 0
        next_tick = time.monotonic()
        while True:
            for index in range(part, NUMBER, TICKS):
                self._open[index] = self._poke(self._open[index])
            part = (part + 1) % TICKS
            next_tick += 1 / TICKS
            await asyncio.sleep(max(0.0, next_tick - time.monotonic()))

    def _poke(self, connection: socket.socket | None) -> socket.socket | None:
        if connection is None:
            connection = socket.socket()
            connection.setblocking(False)  # noqa: FBT003 - the standard library's
            with contextlib.suppress(BlockingIOError):
                connection.connect(("127.0.0.1", self._port))
            with contextlib.suppress(OSError):
                connection.send(self._beginning)
            return connection
        try:
            self.sent += connection.send(b"x")
        except BlockingIOError:
            return connection  # not connected yet
        except OSError:  # it was closed; an answer, if there was one, is not read
            self.cut += 1
            connection.close()
            return None
        return connection


@contextmanager
def sending_slowly(port: int, kind: str) -> Iterator[Sent]:
    """Keep 2,000 connections of a kind at it; what they did is known in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.slow_sender", str(port), kind],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    sent = Sent()
    try:
        yield sent
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
        if output:
            sent.per_second, sent.cut = float(output.split()[0]), int(output.split()[1])


async def _main(port: int, kind: str) -> None:
    started = time.monotonic()
    sender = SlowSender(port, KINDS[kind])
    task = asyncio.create_task(sender.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    print(sender.sent / (time.monotonic() - started), sender.cut)  # noqa: T201 - it was asked for


if __name__ == "__main__":
    os.nice(_NICENESS)
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2]))
