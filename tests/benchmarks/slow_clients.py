"""What 2,000 connections that send a byte a second take from 64 good ones.

``python -m tests.benchmarks.slow_clients`` starts the service with its default limits on a SQLite
file, and for each kind of slow client measures the callbacks per second of 64 connections that are
kept alive (by wrk, which must be installed), in turns without and with the slow ones.
"""

import asyncio
import math
import re
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop

from tests.benchmarks.server import KEY, Server, running
from tests.benchmarks.slow_sender import KINDS, NUMBER, sending_slowly
from tests.benchmarks.subject import Subject
from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase

GOOD: Final = 64
RAMP_SECONDS: Final = 12.0
"""Longer than any time limit: what is measured is the state that lasts."""

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
    cut, per_second = 0, []
    for _ in range(rounds):
        with sending_slowly(good.server.port, kind) as slow:
            besieged.append(await good.measure(RAMP_SECONDS, seconds))
        cut += slow.cut
        per_second.append(slow.per_second)
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
        f"{good.refused:9}{cut:9}{statistics.median(per_second):9.0f}"
    )


def main(
    rounds: Annotated[int, typer.Option(help="How many turns for each kind.", min=1)] = 3,
    seconds: Annotated[float, typer.Option(help="How long each turn is measured.")] = 10,
    kind: Annotated[list[str] | None, typer.Option(help="Of these kinds only.")] = None,
) -> None:
    """Measure what 2,000 slow connections take from 64 good ones."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (NUMBER + GOOD + 100, hard))
    with tempfile.TemporaryDirectory() as directory:
        database = SqliteDatabase(Path(directory) / "sam.db")
        database.add_robots(["d-1"])
        script = Path(directory) / "callback.lua"
        script.write_text(SCRIPT.format(key=KEY, body=body("d-1", "RUN_COMPLETED").decode()))
        typer.echo(
            "                    callbacks/s                         CPU of each, us"
            "     of a     good     slow   bytes/s\n"
            "slow clients         calm besieged   ratio                    calm besieged"
            "    core  refused      cut  of these"
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
