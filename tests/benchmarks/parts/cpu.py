"""CPU time of a callback, against the empty endpoint's request."""

from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import Subject
from tests.benchmarks.turns import Contender, rounds_of, take_turns

PART = "cpu"
CONNECTIONS = 64
SUBJECTS: Final = (Subject.EMPTY, Subject.SERVICE)


def cells(subject: Subject, number: int) -> list[Cell]:
    """Return the cell of a round."""
    cell = Cell(
        part=PART,
        database=DatabaseName.SQLITE,
        subject=subject,
        connections=CONNECTIONS,
        round=number,
    )
    return [cell]


def run(run: Run) -> None:
    """Measure both in turns."""
    for start in run.rounds:
        _measure(run, rounds_of(start))


def _measure(run: Run, rounds: list[int]) -> None:
    every = [cell for number in rounds for subject in SUBJECTS for cell in cells(subject, number)]
    if run.has_all(every):
        return
    with (
        run.failing_alone(every),
        run.databases.fresh(DatabaseName.SQLITE, run.options.rows) as target,
        bodies_for(target) as bodies,
        ExitStack() as stack,
    ):
        contenders = [
            Contender(
                stack.enter_context(running(subject, environment_for(target))),
                bodies,
                partial(cells, subject),
            )
            for subject in SUBJECTS
        ]
        take_turns(run, contenders, rounds)
        run.check_written(target, [cell for cell in every if cell.subject is Subject.SERVICE])
