"""Comparison of the subjects, on each database and at each number of connections.

In each round every subject is started anew with a fresh database, in another order.
"""

from collections.abc import Iterator
from functools import partial

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, best_pool_size, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import DESCRIPTIONS, Subject

PART = "compare"


def run(run: Run) -> None:
    """Measure all in interleaved rounds."""
    for number in run.rounds:
        for name, subject in _turns(run, number):
            _measure_subject(run, name, subject, number)


def _turns(run: Run, number: int) -> Iterator[tuple[DatabaseName, Subject]]:
    for name in map(DatabaseName, run.options.databases):
        # What writes to no database is the same with all: it is measured beside the first one.
        subjects = [
            subject
            for subject in run.options.subjects
            if DESCRIPTIONS[subject].writes or name == run.options.databases[0]
        ]
        turn = number % len(subjects) if subjects else 0
        for subject in subjects[turn:] + subjects[:turn]:
            yield name, subject


def _measure_subject(run: Run, name: DatabaseName, subject: Subject, number: int) -> None:
    cells = [
        Cell(part=PART, database=name, subject=subject, connections=connections, round=number)
        for connections in run.options.connections
    ]
    if run.has_all(cells):
        return
    pool_size = best_pool_size(run.results, name)
    with (
        run.failing_alone(cells),
        run.databases.fresh(name, run.options.rows) as target,
        bodies_for(target) as bodies,
        running(subject, environment_for(target, BENCH_POOL_SIZE=str(pool_size))) as server,
    ):
        warm_up(server, bodies)
        for cell in cells:
            run.take(
                cell,
                partial(
                    measure,
                    server,
                    bodies,
                    connections=cell.connections,
                    seconds=run.options.seconds,
                ),
            )
        if DESCRIPTIONS[subject].writes:
            run.check_written(target, cells)
