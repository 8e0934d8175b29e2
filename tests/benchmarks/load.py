"""The load: wrk with callbacks as A360 sends them, on one thread and a number of connections."""

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.benchmarks.server import KEY
from tests.support.callbacks import AS_A360_SENDS_THEM

TIMEOUT_SECONDS: Final = 30
"""The time after which wrk counts an answer as an error."""

_SCRIPT = Path(__file__).with_name("callbacks.lua")
# The first of them are what comes every day; further down are the odd ones.
_SHAPES = AS_A360_SENDS_THEM[:9]
# SQLite writes nothing where a row has the value already, and then waits for no disk.
STATUSES: Final = (
    "RUN_COMPLETED", "RUN_FAILED", "COMPLETED", "RUN_ABORTED", "RUN_TIMED_OUT", "UNKNOWN",
)  # fmt: skip
"""Each is that of all callbacks of one pass over the deployments, so that each changes its row."""


class LoadError(Exception):
    """wrk failed. The message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """The counts of wrk.

    Attributes:
        seconds: How long it sent.
        answers: How many answers came.
        p50_ms: The median latency.
        p99_ms: The 99th percentile.
        max_ms: The slowest.
        errors: Socket errors, time-outs and statuses of 400 and above, by kind; those above 0.
    """

    seconds: float
    answers: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]


def write_bodies(path: Path, deployment_ids: Sequence[str]) -> None:
    """Write callbacks to a file, one a line: each deployment once with each status.

    In another order than that of the rows, or callbacks that follow one another would share pages.
    """
    shuffled = random.Random(0).sample(deployment_ids, len(deployment_ids))  # noqa: S311 - not a secret
    with path.open("w", encoding="utf-8") as file:
        for status in STATUSES:
            for number, deployment_id in enumerate(shuffled):
                shape = _SHAPES[number % len(_SHAPES)]
                body: dict[str, Any] = {**shape, "deploymentId": deployment_id, "status": status}
                file.write(json.dumps(body, ensure_ascii=False) + "\n")


class Wrk:
    """wrk, under way.

    Args:
        port: The server's.
        bodies: The file that `write_bodies` wrote.
        connections: How many stay open.
        seconds: How long to send.
    """

    def __init__(self, port: int, bodies: Path, *, connections: int, seconds: float) -> None:
        program = shutil.which("wrk")
        if program is None:
            raise LoadError("wrk is not installed: apt-get install wrk")
        self._limit = seconds + TIMEOUT_SECONDS + 30
        begin = random.random()  # noqa: S311 - not a secret
        self._process = subprocess.Popen(
            [
                program,
                "--threads=1",
                f"--connections={connections}",
                f"--duration={max(1, round(seconds))}s",
                f"--timeout={TIMEOUT_SECONDS}s",
                f"--script={_SCRIPT}",
                f"http://127.0.0.1:{port}",
                "--",
                str(bodies),
                KEY,
                f"{begin:.6f}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._itself = psutil.Process(self._process.pid)
        self.cpu_seconds = 0.0
        """Its CPU time, as of the last look."""

    def is_running(self) -> bool:
        """Whether it still sends; looks at its CPU time."""
        try:
            times = self._itself.cpu_times()
        except psutil.NoSuchProcess:
            pass
        else:
            self.cpu_seconds = max(self.cpu_seconds, times.user + times.system)
        return self._process.poll() is None

    def result(self) -> Load:
        """Wait for its end.

        Raises:
            LoadError: If it does not end, says nothing that can be understood, or had no answer.
        """
        try:
            _, text = self._process.communicate(timeout=self._limit)
        except subprocess.TimeoutExpired:
            self.stop()
            raise LoadError("wrk did not end") from None
        try:
            counted = json.loads(text.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise LoadError(f"wrk ended with {self._process.returncode}: {text[-500:]}") from None
        if not counted["answers"]:
            raise LoadError(f"no answer came within {counted['microseconds'] / 1e6:.1f} s")
        return Load(
            seconds=counted["microseconds"] / 1e6,
            answers=counted["answers"],
            p50_ms=counted["p50"] / 1e3,
            p99_ms=counted["p99"] / 1e3,
            max_ms=counted["max"] / 1e3,
            errors={kind: count for kind, count in counted["errors"].items() if count},
        )

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
