"""What 2,000 connections that send a byte a second take from 64 good ones.

``python -m tests.benchmarks.slow_clients`` starts the service with its default limits on a SQLite
file, and for each kind of slow client measures the callbacks per second of 64 connections that are
kept alive, in turns without and with the slow ones. Both run here, the service in its own process.
"""

import asyncio
import contextlib
import resource
import socket
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, request
from tests.support.service import KEY, Service

GOOD: Final = 64
SLOW: Final = 2_000
TICKS: Final = 20
"""In how many parts each second's bytes are sent, so that they do not come all at once."""

RAMP_SECONDS: Final = 12.0
"""Longer than any time limit: what is measured is the state that lasts."""

# What is sent at once when a connection is made; then a byte a second.
KINDS: Final = {
    "headers, no key": b"POST /callback HTTP/1.1\r\nX: ",
    "headers, key": b"POST /callback HTTP/1.1\r\n%bX: " % KEY_HEADER,
    "body, no key": request(headers=b"", length=1000),
    "body, key": request(length=1000),
}


@dataclass
class Good:
    """Callbacks over connections that are kept alive, one after the other on each."""

    port: int
    answers: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0

    async def run(self, number: int) -> None:
        """Send callbacks until cancelled."""
        content = body(f"d-{number}", "RUN_COMPLETED")
        callback = request(content=content)
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):
                while True:
                    sent = time.perf_counter()
                    writer.write(callback)
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                    await reader.readexactly(int(length))
                    self.answers[head[9:12].decode()] += 1
                    self.longest = max(self.longest, time.perf_counter() - sent)
            self.answers["broken"] += 1


@dataclass
class Slow:
    """Connections that send their beginning at once and then a byte a second, for ever."""

    port: int
    beginning: bytes
    cut: int = 0
    open: list[socket.socket | None] = field(default_factory=lambda: [None] * SLOW)

    async def run(self) -> None:
        """Keep all of them at it until cancelled."""
        part = 0
        next_tick = time.monotonic()
        try:
            while True:
                for index in range(part, SLOW, TICKS):
                    self.open[index] = self._poke(self.open[index])
                part = (part + 1) % TICKS
                next_tick += 1 / TICKS
                await asyncio.sleep(max(0.0, next_tick - time.monotonic()))
        finally:
            for connection in self.open:
                if connection is not None:
                    connection.close()

    def _poke(self, connection: socket.socket | None) -> socket.socket | None:
        if connection is None:
            # One that was cut comes again a second later.
            connection = socket.socket()
            connection.setblocking(False)  # noqa: FBT003 - the standard library's
            with contextlib.suppress(BlockingIOError):
                connection.connect(("127.0.0.1", self.port))
            with contextlib.suppress(OSError):
                connection.send(self.beginning)
            return connection
        try:
            with contextlib.suppress(BlockingIOError):
                if connection.recv(4096) == b"":
                    raise ConnectionResetError
            connection.send(b"x")
        except BlockingIOError:
            return connection  # not connected yet
        except OSError:
            self.cut += 1
            connection.close()
            return None
        return connection


async def callbacks_per_second(good: Good, seconds: float) -> float:
    """Count for a while."""
    before, started = good.answers["200"], time.perf_counter()
    await asyncio.sleep(seconds)
    return (good.answers["200"] - before) / (time.perf_counter() - started)


async def compare(port: int, kind: str, *, rounds: int, seconds: float) -> str:
    """Measure in turns without and with slow connections of a kind; return a line on it."""
    good = Good(port)
    senders = [asyncio.create_task(good.run(number)) for number in range(GOOD)]
    calm, besieged = [], []
    cut = 0
    longest_calm = longest_besieged = 0.0
    for _ in range(rounds):
        await asyncio.sleep(2)
        good.longest = 0
        calm.append(await callbacks_per_second(good, seconds))
        longest_calm, good.longest = max(longest_calm, good.longest), 0
        slow = Slow(port, KINDS[kind])
        task = asyncio.create_task(slow.run())
        await asyncio.sleep(RAMP_SECONDS)
        besieged.append(await callbacks_per_second(good, seconds))
        longest_besieged = max(longest_besieged, good.longest)
        cut += slow.cut
        await _end([task])
    await _end(senders)
    ratio = statistics.median(besieged) / statistics.median(calm)
    refused = sum(count for answer, count in good.answers.items() if answer != "200")
    return (
        f"{kind:16}{statistics.median(calm):9.0f}{statistics.median(besieged):9.0f}{ratio:8.2f}"
        f"{longest_calm * 1000:9.0f}{longest_besieged * 1000:9.0f}{refused:9}{cut:9}"
    )


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main(
    rounds: Annotated[int, typer.Option(help="How many turns for each kind.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="How long each turn is measured.")] = 10,
    kind: Annotated[list[str] | None, typer.Option(help="Of these kinds only.")] = None,
) -> None:
    """Measure what 2,000 slow connections take from 64 good ones."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SLOW + GOOD + 100, hard))
    with tempfile.TemporaryDirectory() as directory:
        database = SqliteDatabase(Path(directory) / "sam.db")
        database.add_robots(f"d-{number}" for number in range(GOOD))
        service = Service(
            Path(directory),
            {
                "CALLBACK_API_KEY": KEY,
                "SQL_SAM_CONNECTION_STRING": database.connection_string,
            },
        )
        typer.echo(
            "                callbacks/s      ratio  longest answer, ms   good    slow\n"
            "slow clients         calm besieged           calm besieged  refused      cut"
        )
        try:
            for each in kind or KINDS:
                line = uvloop.run(compare(service.port, each, rounds=rounds, seconds=seconds))
                typer.echo(line)
        finally:
            service.stop()
            warnings = Counter(
                (line["event"], line.get("reason") or line.get("of"))
                for line in service.lines
                if line["level"] in {"warning", "error", "critical"}
            )
        for (event, reason), count in sorted(warnings.items(), key=str):
            typer.echo(f"  {count} lines {event} {reason}")


if __name__ == "__main__":
    typer.run(main)
