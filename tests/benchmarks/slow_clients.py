"""The cost of 2,000 slow connections, of a byte a second each, to 64 good ones.

``python -m tests.benchmarks.slow_clients`` starts the service twice, with its default limits and a
SQLite file each, and besieges one of them. Each has 64 connections that wrk (which must be
installed) keeps alive. They are at work on one service for a second, then on the other, so that
both meet the same machine: what that does meanwhile is no doing of the service, nor is what it
costs to send those bytes. By how much the two differ before the siege is told as well, and how long
a callback takes that comes over a new connection.
"""

import math
import re
import resource
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Protocol

import typer

from tests.benchmarks.databases import LOCK_WAIT_MS
from tests.benchmarks.newcomers import coming
from tests.benchmarks.server import KEY, running
from tests.benchmarks.slow_sender import KINDS, NUMBER, sending_slowly
from tests.benchmarks.subject import Subject
from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase

GOOD: Final = 64

_SETTLE_SECONDS: Final = 0.15
_WRK_SECONDS: Final = 3600  # it is told to end before

_HEADINGS: Final = (
    "                        ratio of callbacks/s"
    "              callbacks/s     of a core   seconds of new      good    slow   bytes/s\n"
    "slow clients            before           besieged"
    "       calm besieged   alone  added    ones (longest)  refused    cut  of these"
)

_SCRIPT: Final = """
wrk.method = "POST"
wrk.headers["X-API-KEY"] = "{key}"
wrk.body = [[{body}]]
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """The account of a service's turn.

    Attributes:
        rate: Callbacks per second.
        cost: Microseconds of its CPU for each.
        other: How much of a core the other service took, which had no callbacks.
    """

    rate: float
    cost: float
    other: float


class Target(Protocol):
    """A receiver of callbacks: a `Server`, or several behind a proxy."""

    port: int

    @property
    def cpu_seconds(self) -> float: ...
    @property
    def outcomes(self) -> Counter[str]: ...


class Contender:
    """A service with 64 connections that are kept alive, and are at work in its turns only.

    Args:
        server: The service.
        wrk: What has the connections.
    """

    def __init__(self, server: Target, wrk: subprocess.Popen[str]) -> None:
        self.server = server
        self._wrk = wrk

    def take_turn(self, other: Target, seconds: float) -> Turn:
        """Have the connections at work for so long."""
        self._wrk.send_signal(signal.SIGCONT)
        time.sleep(_SETTLE_SECONDS)
        started = time.perf_counter()
        number, cpu, other_cpu = self._number, self.server.cpu_seconds, other.cpu_seconds
        time.sleep(seconds)
        lasted = time.perf_counter() - started
        number = self._number - number
        cpu, other_cpu = self.server.cpu_seconds - cpu, other.cpu_seconds - other_cpu
        self._wrk.send_signal(signal.SIGSTOP)
        time.sleep(_SETTLE_SECONDS)
        return Turn(number / lasted, cpu / max(number, 1) * 1e6, other_cpu / lasted)

    def refused(self) -> int:
        """End the connections; return how many callbacks were refused, or had no answer.

        Raises:
            RuntimeError: If wrk does not tell: it has ended before.
        """
        self._wrk.send_signal(signal.SIGCONT)
        time.sleep(_SETTLE_SECONDS)  # a thread that is stopped would not have the signal
        self._wrk.send_signal(signal.SIGINT)
        output, _ = self._wrk.communicate(timeout=60)
        if "requests in" not in output:
            raise RuntimeError(
                f"wrk ended with {self._wrk.returncode}, and tells nothing: {output}"
            )
        return sum(
            sum(map(int, re.findall(r"\b\d+\b(?!xx)", line.partition(":")[2])))
            for line in output.splitlines()
            if "Non-2xx" in line or "Socket errors" in line
        )

    @property
    def _number(self) -> int:
        return sum(self.server.outcomes.values())


@contextmanager
def contender(directory: Path) -> Iterator[Contender]:
    """A service on a database of its own, with its connections; both ended in the end."""
    directory.mkdir()
    database = SqliteDatabase(directory / "sam.db")
    database.add_robots(["d-1"])
    environment = {"SQL_SAM_CONNECTION_STRING": database.waiting_for_locks(LOCK_WAIT_MS)}
    with (
        running(Subject.SERVICE, environment, directory) as server,
        at_work(server, f"http://127.0.0.1:{server.port}", directory) as contending,
    ):
        yield contending


@contextmanager
def at_work(server: Target, url: str, directory: Path) -> Iterator[Contender]:
    """The good connections of a server, which speak to a URL."""
    script = directory / "callback.lua"
    script.write_text(_SCRIPT.format(key=KEY, body=body("d-1", "RUN_COMPLETED").decode()))
    command = [
        *("wrk", "-t1", f"-c{GOOD}", f"-d{_WRK_SECONDS}s", "--timeout", "30s"),
        *("-s", str(script), f"{url}/callback"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        try:
            yield Contender(server, wrk)
        finally:
            wrk.kill()


class Comparison:
    """Turns of two services beside each other.

    Args:
        calm: One.
        besieged: The other.
        seconds: How long each turn is measured.
    """

    def __init__(self, calm: Contender, besieged: Contender, seconds: float) -> None:
        self._pair = (calm, besieged)
        self._seconds = seconds
        self.calm: list[Turn] = []
        self.besieged: list[Turn] = []

    def take(self, turns: int) -> "Comparison":
        """Give both so many turns, the other way round each time."""
        calm, besieged = self._pair
        order = [(calm, besieged, self.calm), (besieged, calm, self.besieged)]
        for _ in range(turns):
            order.reverse()
            for each, other, taken in order:
                taken.append(each.take_turn(other.server, self._seconds))
        return self

    @property
    def ratio(self) -> str:
        """The median of the ratios of neighbouring turns, and what half of them lie between."""
        pairs = zip(self.calm, self.besieged, strict=True)
        low, middle, high = statistics.quantiles(
            # Nothing is a multiple of no callbacks.
            (besieged.rate / calm.rate if calm.rate else math.nan for calm, besieged in pairs),
            n=4,
        )
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    @property
    def figures(self) -> str:
        """The rates, and what the slow ones take of a core: alone, and while there are callbacks.

        Where the machine is busy with other things, this says more than the ratio.
        """
        (calm, calm_cost), (besieged, besieged_cost) = [
            (
                statistics.median(turn.rate for turn in turns),
                statistics.median(turn.cost for turn in turns),
            )
            for turns in (self.calm, self.besieged)
        ]
        alone = statistics.fmean(turn.other for turn in self.calm)
        added = (besieged_cost - calm_cost) * besieged / 1e6
        return f"{calm:9.0f}{besieged:9.0f}{alone:8.2f}{added:7.2f}"


def besiege(kind: str, *, turns: int, seconds: float, ramp: float) -> str:
    """Besiege one of two services with slow connections of a kind; return a line on it."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calm, besieged = [
            stack.enter_context(contender(root / name)) for name in ("calm", "besieged")
        ]
        Comparison(calm, besieged, seconds).take(2)
        before = Comparison(calm, besieged, seconds).take(max(2, turns // 2))
        during = Comparison(calm, besieged, seconds)
        port = besieged.server.port
        with sending_slowly(port, kind) as slow:
            ready = time.monotonic() + ramp
            while time.monotonic() < ready:
                # The good ones too: who has been idle for long may be cut to make room.
                Comparison(calm, besieged, seconds).take(1)
            with coming(port, body("d-1", "RUN_COMPLETED")) as newcomers:
                during.take(turns)
                # At once: idle while the last newcomer waits, the good ones would be evicted.
                refused = besieged.refused() + calm.refused()
        refused += newcomers.failed
    return (
        f"{kind:16}{before.ratio:>19}{during.ratio:>20}{during.figures}"
        f"{newcomers.summary:>18}{refused:9}{slow.cut:7}{slow.per_second:10.0f}"
    )


def main(
    turns: Annotated[int, typer.Option(help="How many for each service and kind.", min=2)] = 40,
    seconds: Annotated[float, typer.Option(help="How long each is measured.", max=2)] = 1,
    ramp: Annotated[
        float, typer.Option(help="Seconds of siege before; by default more than any time limit.")
    ] = 13,
    kind: Annotated[list[str] | None, typer.Option(help="Of these kinds only.")] = None,
) -> None:
    """Measure what 2,000 slow connections take from 64 good ones."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (NUMBER + GOOD + 100, hard))
    typer.echo(_HEADINGS)
    for each in kind or KINDS:
        typer.echo(besiege(each, turns=turns, seconds=seconds, ramp=ramp))


if __name__ == "__main__":
    typer.run(main)
