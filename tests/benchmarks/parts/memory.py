"""Memory of 1,000 open connections, and its growth over a million callbacks."""

from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell, Growth, Results, Spread
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import Server, running
from tests.benchmarks.subject import Subject

PART = "memory"
OPEN_CONNECTIONS: Final = 1000
GROWTH_CONNECTIONS: Final = 64
CHUNK_SECONDS: Final = 5.0


def cell() -> Cell:
    """Return the cell with 1,000 connections."""
    return Cell(
        part=PART,
        database=DatabaseName.SQLITE,
        subject=Subject.SERVICE,
        connections=OPEN_CONNECTIONS,
        round=1,
    )


def run(run: Run) -> None:
    """Measure both, in one process."""
    this = cell()
    is_grown = sum(growth.callbacks for growth in run.results.growth[-1:]) >= (
        run.options.growth_callbacks
    )
    if run.has_all([this]) and is_grown:
        return
    with (
        run.failing_alone([this]),
        run.databases.fresh(DatabaseName.SQLITE, run.options.rows) as target,
        bodies_for(target) as bodies,
        running(Subject.SERVICE, environment_for(target)) as server,
    ):
        warm_up(server, bodies)
        if not is_grown:
            _watch(run, server, bodies)
        run.take(
            this,
            partial(
                measure,
                server,
                bodies,
                connections=OPEN_CONNECTIONS,
                seconds=run.options.seconds,
            ),
        )


def _watch(run: Run, server: Server, bodies: Path) -> None:
    """Look at the memory every few seconds, until so many callbacks were answered."""
    run.results.growth = []
    callbacks = 0
    while callbacks < run.options.growth_callbacks:
        figures = measure(server, bodies, connections=GROWTH_CONNECTIONS, seconds=CHUNK_SECONDS)
        callbacks += figures.answers
        run.results.growth.append(Growth(callbacks=callbacks, rss_mb=server.rss_mb))
        run.save()
    run.say(f"memory over {callbacks:,} callbacks: {growth_of(run.results)}")


def growth_of(results: Results) -> tuple[float, float] | None:
    """Return the memory early on and at the end, in 10^6 bytes: medians of a tenth of the samples.

    The first tenth is left out: until then buffers and caches take their size.
    """
    samples = [growth.rss_mb for growth in results.growth]
    tenth = max(1, len(samples) // 10)
    early, late = Spread.of(samples[tenth : 2 * tenth]), Spread.of(samples[-tenth:])
    return (early.median, late.median) if early and late else None
