"""Does a million entries in the spool matter?

Callbacks come for other deployments than those of the entries, in three states; the first two have
an empty spool beside them:

- Dead letters, the database up: they stay, and each callback's deployment is looked up among them.
- Queued entries, the database down: they stay, and each callback is added to them. This is what a
  long outage looks like.
- Queued entries, the database up: catching up after it. They do not stay, so there is no ratio; it
  shows what an answer takes while the entries are applied.

Unmatched entries would be tried all the time: a million of them is the wrong database, which the
service reports as such.
"""

import contextlib
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sam.callback.inbox.entries import Entry, Kind
from sam.callback.inbox.spool_file import SpoolFile
from tests.benchmarks.databases import DatabaseName, Target, sqlite_target
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import running
from tests.benchmarks.subject import Subject
from tests.support.databases import free_port

PART = "spool"
CONNECTIONS = 64
PAGE = 10_000
MAX_BYTES = 4 * 2**30  # a quarter of it is for dead letters
UP_EMPTY, UP_FULL = "database up, empty spool", "database up, full of dead letters"
DOWN_EMPTY, DOWN_FULL = "database down, empty spool", "database down, full of queued entries"
CATCHING_UP = "database up again, being replayed"


@dataclass(frozen=True, slots=True)
class _State:
    """A service's circumstances."""

    variant: str
    spool: Path
    is_database_up: bool


def cell(variant: str, number: int) -> Cell:
    """Return the cell of a round."""
    return Cell(
        part=PART,
        database=DatabaseName.SQLITE,
        subject=Subject.SERVICE,
        connections=CONNECTIONS,
        variant=variant,
        round=number,
    )


def run(run: Run) -> None:
    """Fill two spools once, and measure the states in turns."""
    states = [UP_EMPTY, UP_FULL, DOWN_EMPTY, DOWN_FULL]
    cells = [cell(state, number) for number in run.rounds for state in states]
    cells.append(cell(CATCHING_UP, 1))
    if run.has_all(cells):
        return
    with (
        run.failing_alone(cells),
        tempfile.TemporaryDirectory(prefix="sam-callback-bench-") as name,
    ):
        directory = Path(name)
        spooled = run.options.spooled
        run.say(f"making two spools of {spooled:,} entries")
        every = sqlite_target(directory / "sam.db", spooled + run.options.rows)
        target = Target(every.connection_string, every.deployment_ids[spooled:])
        entries = every.deployment_ids[:spooled]
        _fill(directory / "dead.db", Kind.DEAD_LETTER, entries)
        _fill(directory / "queued.db", Kind.QUEUED, entries)
        for number in run.rounds:
            for state in (
                _State(UP_EMPTY, directory / "empty-up.db", is_database_up=True),
                _State(UP_FULL, directory / "dead.db", is_database_up=True),
                _State(DOWN_EMPTY, directory / f"empty-{number}.db", is_database_up=False),
                _State(DOWN_FULL, directory / "queued.db", is_database_up=False),
            ):
                _measure(run, target, state, number)
        _measure(run, target, _State(CATCHING_UP, directory / "queued.db", is_database_up=True), 1)


def _fill(path: Path, kind: Kind, deployment_ids: list[str]) -> None:
    first = time.time_ns() - len(deployment_ids)
    with closing(SpoolFile(path, MAX_BYTES)) as file:
        for start in range(0, len(deployment_ids), PAGE):
            page = [
                Entry(number, kind, deployment_id, "RUN_COMPLETED", reason="For a benchmark.")
                for number, deployment_id in enumerate(
                    deployment_ids[start : start + PAGE], first + start
                )
            ]
            assert all(file.put(page, page[-1].number))


def _measure(run: Run, target: Target, state: _State, number: int) -> None:
    this = cell(state.variant, number)
    if run.has_all([this]):
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(run.failing_alone([this]))
        bodies = stack.enter_context(bodies_for(target))
        environment = environment_for(
            target if state.is_database_up else _nowhere(),
            CALLBACK_SPOOL_PATH=str(state.spool),
            CALLBACK_SPOOL_MAX_BYTES=str(MAX_BYTES),
        )
        server = stack.enter_context(running(Subject.SERVICE, environment))
        warm_up(server, bodies)
        run.take(
            this,
            partial(measure, server, bodies, connections=CONNECTIONS, seconds=run.options.seconds),
        )


def _nowhere() -> Target:
    """A server that does not exist: each connection is refused."""
    return Target(
        f"DRIVER={{PostgreSQL Unicode}};Server=127.0.0.1;Port={free_port()};Database=sam;", []
    )
