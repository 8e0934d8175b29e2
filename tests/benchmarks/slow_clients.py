"""What 2,000 connections that send a byte a second take from 64 good ones.

``python -m tests.benchmarks.slow_clients`` starts the service with its default limits on a SQLite
file, and for each kind of slow client measures the callbacks per second of 64 connections that are
kept alive (by wrk, which must be installed), in turns without and with the slow ones.
"""

import asyncio
import contextlib
import math
import re
import resource
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop

from tests.benchmarks.server import KEY, Server, running
from tests.benchmarks.subject import Subject
from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase

GOOD: Final = 64
SLOW: Final = 2_000
TICKS: Final = 20
"""In how many parts each second's bytes are sent, so that they do not come all at once."""

RAMP_SECONDS: Final = 12.0
"""Longer than any time limit: what is measured is the state that lasts."""

# What is sent at once when a connection is made; then a byte a second.
_REQUEST: Final = b"POST /callback HTTP/1.1\r\nHost: x\r\n"
_KEY: Final = b"X-API-KEY: %b\r\n" % KEY.encode()
_BODY: Final = b"Content-Length: 1000\r\n\r\n"
KINDS: Final = {
    "headers, no key": _REQUEST + b"X: ",
    "headers, key": _REQUEST + _KEY + b"X: ",
    "body, no key": _REQUEST + _BODY,
    "body, key": _REQUEST + _KEY + _BODY,
}

_WHAT_BECAME_OF_THEM: Final = (
    "sam_callback_refusals_total{",
    "sam_callback_connections_cut_total{",
)

SCRIPT: Final = """
wrk.method = "POST"
wrk.headers["X-API-KEY"] = "{key}"
wrk.body = [[{body}]]
"""


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


@dataclass
class Good:
    """Callbacks over 64 connections that are kept alive, by wrk."""

    server: Server
    script: Path
    refused: int = 0

    async def measure(self, wait: float, seconds: float) -> tuple[float, float]:
        """Count for a while, some time after they began; note those that were refused.

        Returns:
            Callbacks per second, and microseconds of the service's CPU for each. Where the machine
            is busy with other things, what the slow ones take of a core says more than the ratio.
        """
        wrk = await asyncio.create_subprocess_exec(
            *("wrk", "-t1", f"-c{GOOD}", f"-d{math.ceil(wait + seconds)}s", "--timeout", "30s"),
            *("-s", str(self.script), f"http://127.0.0.1:{self.server.port}/callback"),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.sleep(wait)
        before, started, cpu = self._count(), time.perf_counter(), self.server.cpu_seconds
        await asyncio.sleep(seconds)
        number = self._count() - before
        rate = number / (time.perf_counter() - started)
        cost = (self.server.cpu_seconds - cpu) / number * 1e6
        output, _ = await wrk.communicate()
        for line in output.decode().splitlines():
            if "Non-2xx" in line or "Socket errors" in line:
                self.refused += sum(map(int, re.findall(r"\b\d+\b(?!xx)", line.partition(":")[2])))
        return rate, cost

    def _count(self) -> int:
        return sum(self.server.outcomes.values())


async def compare(good: Good, kind: str, *, rounds: int, seconds: float) -> str:
    """Measure in turns without and with slow connections of a kind; return a line on it.

    Each turn with them is compared to the two beside it: a machine may be faster in one minute
    than in the next. The ratio is the median of these.
    """
    calm, besieged = [await good.measure(2, seconds)], []
    cut = 0
    for _ in range(rounds):
        slow = Slow(good.server.port, KINDS[kind])
        task = asyncio.create_task(slow.run())
        besieged.append(await good.measure(RAMP_SECONDS, seconds))
        cut += slow.cut
        task.cancel()
        await asyncio.wait([task])
        calm.append(await good.measure(2, seconds))
    ratios = [
        2 * rate / (calm[turn][0] + calm[turn + 1][0]) for turn, (rate, _) in enumerate(besieged)
    ]
    (calm_rate, calm_cost), (besieged_rate, besieged_cost) = (
        [statistics.median(values) for values in zip(*each, strict=True)]
        for each in (calm, besieged)
    )
    taken = (besieged_cost - calm_cost) * besieged_rate / 1e6
    return (
        f"{kind:16}{calm_rate:9.0f}{besieged_rate:9.0f}{statistics.median(ratios):8.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f})"
        f"{calm_cost:9.0f}{besieged_cost:9.0f}{taken:8.2f}"
        f"{good.refused:9}{cut:9}"
    )


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
        database.add_robots(["d-1"])
        script = Path(directory) / "callback.lua"
        script.write_text(SCRIPT.format(key=KEY, body=body("d-1", "RUN_COMPLETED").decode()))
        typer.echo(
            "                    callbacks/s                         CPU of each, us"
            "     of a     good     slow\n"
            "slow clients         calm besieged   ratio                    calm besieged"
            "    core  refused      cut"
        )
        environment = {"SQL_SAM_CONNECTION_STRING": database.connection_string}
        with running(Subject.SERVICE, environment, Path(directory)) as server:
            for each in kind or KINDS:
                good = Good(server, script)
                line = uvloop.run(compare(good, each, rounds=rounds, seconds=seconds))
                typer.echo(line)
            for text in server.get("/metrics").decode().splitlines():
                if text.startswith(_WHAT_BECAME_OF_THEM) and not text.endswith(" 0.0"):
                    typer.echo(f"  {text}")


if __name__ == "__main__":
    typer.run(main)
