"""Does the size of SAM's table matter? SQLite files with 1,000 to 10 million robots.

Callbacks come for 1,000 of them, the same number whatever the size, spread over the whole table.
"""

import contextlib
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.databases import DatabaseName, Target, sqlite_target
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import Subject

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
    every = [cell for rows in wanted for number in run.rounds for cell in cells(rows, number)]
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
        for number in run.rounds:
            for rows, target in targets.items():
                _measure_table(run, target, cells(rows, number))


def _measure_table(run: Run, target: Target, cells: list[Cell]) -> None:
    if run.has_all(cells):
        return
    with (
        run.failing_alone(cells),
        bodies_for(target) as bodies,
        running(Subject.SERVICE, environment_for(target)) as server,
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
