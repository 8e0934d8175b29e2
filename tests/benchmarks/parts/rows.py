"""Does the size of SAM's table matter? SQLite files with 1,000 to 10 million robots.

Callbacks come for 1,000 of them, the same number whatever the size, spread over the whole table.
"""

import contextlib
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.databases import DatabaseName, Target, sqlite_target
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import Subject
from tests.benchmarks.turns import Contender, rounds_of, take_turns

PART = "rows"
CONNECTIONS = (1, 64)
FEWEST = 1000


def sizes(most: int) -> list[int]:
    """Return the sizes to measure: 1,000 and every hundredfold of it, up to the most."""
    found = [FEWEST]
    while found[-1] * 100 < most:
        found.append(found[-1] * 100)
    return [*found, most] if most > FEWEST else found


def variant(rows: int) -> str:
    """Name a size."""
    return f"{rows:,} rows"


def cells(rows: int, number: int) -> list[Cell]:
    """Return the cells of a size in a round."""
    return [
        Cell(
            part=PART,
            database=DatabaseName.SQLITE,
            subject=Subject.SERVICE,
            connections=connections,
            variant=variant(rows),
            round=number,
        )
        for connections in CONNECTIONS
    ]


def run(run: Run) -> None:
    """Make the files once, and measure them in turns."""
    wanted = sizes(run.options.most_rows)
    numbers = [number for start in run.rounds for number in rounds_of(start)]
    every = [cell for rows in wanted for number in numbers for cell in cells(rows, number)]
    if run.has_all(every):
        return
    with contextlib.ExitStack() as stack, run.failing_alone(every):
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sam-callback-bench-"))
        )
        targets = {}
        for rows in wanted:
            run.say(f"making a table of {rows:,} rows")
            targets[rows] = sqlite_target(directory / f"{rows}.db", rows, callbacks_for=FEWEST)
        for start in run.rounds:
            _measure(run, targets, rounds_of(start))


def _measure(run: Run, targets: dict[int, Target], rounds: list[int]) -> None:
    every = [cell for size in targets for number in rounds for cell in cells(size, number)]
    if run.has_all(every):
        return
    with run.failing_alone(every), contextlib.ExitStack() as stack:
        contenders = [
            Contender(
                stack.enter_context(running(Subject.SERVICE, environment_for(target))),
                stack.enter_context(bodies_for(target)),
                partial(cells, size),
            )
            for size, target in targets.items()
        ]
        take_turns(run, contenders, rounds)
