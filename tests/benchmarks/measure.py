"""One measurement: a load on a server, and what the server needed for it."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from tests.benchmarks.load import Wrk
from tests.benchmarks.results import Figures
from tests.benchmarks.server import Server

SAMPLE_SECONDS: Final = 0.1
WARM_UP_CONNECTIONS: Final = 64


IDLE_SECONDS: Final = 60
"""The time that a server may still be at work on requests whose senders have hung up."""

_FSYNCS = 15


def warm_up(server: Server, bodies: Path, *, seconds: float = 1) -> None:
    """Let the server open its connections and prepare its statements."""
    wrk = Wrk(server.port, bodies, connections=WARM_UP_CONNECTIONS, seconds=seconds)
    try:
        wrk.result()
    finally:
        wrk.stop()
    server.wait_until_idle(IDLE_SECONDS)


def measure(server: Server, bodies: Path, *, connections: int, seconds: float) -> Figures:
    """Send callbacks over so many connections for so long.

    Raises:
        LoadError: If wrk failed.
    """
    if hasattr(os, "sync"):  # what the last measurement left to write is not this one's burden
        os.sync()
    disk_ms = fsync_ms()
    outcomes_before = server.outcomes.copy()
    cpu_before = server.cpu_seconds
    busy_before = busy_seconds()
    rss = server.rss_mb
    wrk = Wrk(server.port, bodies, connections=connections, seconds=seconds)
    try:
        while wrk.is_running():
            rss = max(rss, server.rss_mb)
            time.sleep(SAMPLE_SECONDS)
        cpu = server.cpu_seconds - cpu_before
        busy = busy_seconds() - busy_before
        load = wrk.result()
    finally:
        wrk.stop()
    server.wait_until_idle(IDLE_SECONDS)
    outcomes = server.outcomes - outcomes_before
    return Figures(
        seconds=load.seconds,
        answers=load.answers,
        per_second=load.answers / load.seconds,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        max_ms=load.max_ms,
        cpu_us=cpu * 1e6 / load.answers,
        rss_mb=rss,
        errors=load.errors,
        outcomes=dict(outcomes),
        generator_cores=wrk.cpu_seconds / load.seconds,
        other_cores=max(0.0, busy - cpu - wrk.cpu_seconds) / load.seconds,
        disk_ms=disk_ms,
    )


def busy_seconds() -> float:
    """Return the CPU time that all processes of this machine have taken."""
    times = psutil.cpu_times()
    idle: float = times.idle + getattr(times, "iowait", 0.0)
    return sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)


def fsync_ms() -> float:
    """Return what it takes to write 4 KiB and have them on the disk, where the databases are."""
    milliseconds = []
    with tempfile.NamedTemporaryFile(buffering=0) as file:
        for _ in range(_FSYNCS):
            started = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fsync(file.fileno())
            milliseconds.append((time.perf_counter() - started) * 1000)
    return statistics.median(milliseconds)
