"""Which size of its pool is best for (b)? It gets that one, on each database its own."""

from functools import partial

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import POOL_SIZES, Run, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import Subject

PART = "pool"
CONNECTIONS = 64
SECONDS = 2.0


def run(run: Run) -> None:
    """Measure every size once."""
    if Subject.AIOODBC not in run.options.subjects:
        return
    for name in map(DatabaseName, run.options.databases):
        for size in POOL_SIZES[name]:
            cell = Cell(
                part=PART,
                database=name,
                subject=Subject.AIOODBC,
                connections=CONNECTIONS,
                variant=f"{size} connections",
                round=1,
            )
            if run.has_all([cell]):
                continue
            with (
                run.failing_alone([cell]),
                run.databases.fresh(name, run.options.rows) as target,
                bodies_for(target) as bodies,
                running(
                    Subject.AIOODBC, environment_for(target, BENCH_POOL_SIZE=str(size))
                ) as server,
            ):
                warm_up(server, bodies)
                run.take(
                    cell,
                    partial(measure, server, bodies, connections=CONNECTIONS, seconds=SECONDS),
                )
