"""What does a callback cost in CPU time, against the empty endpoint's request?

Both servers run side by side, and each is under load for a second in turn: a machine that is faster
in one minute than in the next is so for both.
"""

from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import Subject

PART = "cpu"
CONNECTIONS = 64
TURNS = 4
"""How often each has its turn before both are started anew; each pair of turns is a round."""

SECONDS = 1.0
SUBJECTS: Final = (Subject.EMPTY, Subject.SERVICE)


def cell(subject: Subject, number: int) -> Cell:
    """Return the cell of a round."""
    return Cell(
        part=PART,
        database=DatabaseName.SQLITE,
        subject=subject,
        connections=CONNECTIONS,
        round=number,
    )


def run(run: Run) -> None:
    """Measure both in turns, the other one first each time."""
    for start in run.rounds:
        _measure(run, [(start - 1) * TURNS + turn for turn in range(1, TURNS + 1)])


def _measure(run: Run, rounds: list[int]) -> None:
    cells = [cell(subject, number) for number in rounds for subject in SUBJECTS]
    if run.has_all(cells):
        return
    with (
        run.failing_alone(cells),
        run.databases.fresh(DatabaseName.SQLITE, run.options.rows) as target,
        bodies_for(target) as bodies,
        ExitStack() as stack,
    ):
        servers = {
            subject: stack.enter_context(running(subject, environment_for(target)))
            for subject in SUBJECTS
        }
        for server in servers.values():
            warm_up(server, bodies)
        for number in rounds:
            for subject in SUBJECTS[:: 1 if number % 2 else -1]:
                take = partial(measure, servers[subject], bodies, connections=CONNECTIONS)
                run.take(cell(subject, number), partial(take, seconds=SECONDS))
        run.check_written(target, [cell(Subject.SERVICE, number) for number in rounds])
