"""Cost of an answer while the database is down, against one while it is up.

PostgreSQL is stopped and started again in each round, under the same service. What is measured is
the state, not the moment of the change: a callback that meets a database that has just fallen
silent waits for CALLBACK_DB_TIMEOUT, and no longer.
"""

import json
import time
from functools import partial
from pathlib import Path

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import Server, running
from tests.benchmarks.subject import Subject

PART = "outage"
CONNECTIONS = 64
UP, DOWN = "database up", "database down"
RECOVERY_SECONDS = 60


def cell(variant: str, number: int) -> Cell:
    """Return the cell of a round."""
    return Cell(
        part=PART,
        database=DatabaseName.POSTGRESQL,
        subject=Subject.SERVICE,
        connections=CONNECTIONS,
        variant=variant,
        round=number,
    )


def run(run: Run) -> None:
    """Measure up and down in turns."""
    cells = [cell(variant, number) for number in run.rounds for variant in (UP, DOWN)]
    if run.has_all(cells):
        return
    with (
        run.failing_alone(cells),
        run.databases.fresh(DatabaseName.POSTGRESQL, run.options.rows) as target,
        bodies_for(target) as bodies,
        running(Subject.SERVICE, environment_for(target)) as server,
    ):
        for number in run.rounds:
            _measure_round(run, server, bodies, number)


def _measure_round(run: Run, server: Server, bodies: Path, number: int) -> None:
    take = partial(measure, server, bodies, connections=CONNECTIONS, seconds=run.options.seconds)
    warm_up(server, bodies)
    run.take(cell(UP, number), take)
    run.databases.server.stop()
    try:
        warm_up(server, bodies)  # it learns that the database is down
        run.take(cell(DOWN, number), take)
    finally:
        run.databases.server.start()
    _wait_until_replayed(server)


def _wait_until_replayed(server: Server) -> None:
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        state = json.loads(server.get("/ready"))
        if state["database"] == "up" and not state["spool"]["queued"]:
            return
        time.sleep(0.2)
    raise RuntimeError(f"the spool was not replayed within {RECOVERY_SECONDS} s")
