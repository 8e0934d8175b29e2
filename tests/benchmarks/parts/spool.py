"""Does a million entries in the spool matter?

Callbacks come for other deployments than those of the entries, in four states; the first three have
an empty spool beside them:

- Dead letters, the database up: they stay, and each callback's deployment is looked up among them.
- Unmatched entries, the database up: they stay, and are tried all the time, in their share of it.
- Queued entries, the database down: they stay, and each callback is added to them. This is what a
  long outage looks like.
- Queued entries, the database up: catching up after it. They do not stay, so there is no ratio; it
  shows what an answer takes while the entries are applied.
"""

import contextlib
import tempfile
import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sam.callback.inbox.backoff import RETRY
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.store import Entry, Kind
from tests.benchmarks.databases import DatabaseName, Target, nowhere, sqlite_target
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import Server, running
from tests.benchmarks.subject import Subject
from tests.benchmarks.turns import Contender, rounds_of, take_turns

PART = "spool"
CONNECTIONS = 64
PAGE = 10_000
MAX_BYTES = 4 * 2**30  # a quarter of it is for dead letters
UP_EMPTY, UP_FULL = "database up, empty spool", "database up, full of dead letters"
DOWN_EMPTY, DOWN_FULL = "database down, empty spool", "database down, full of queued entries"
UP_WAITING = "database up, full of unmatched entries"
CATCHING_UP = "database up again, being replayed"
STATES = (UP_EMPTY, UP_FULL, UP_WAITING, DOWN_EMPTY, DOWN_FULL)
PAIRS = ((UP_FULL, UP_EMPTY), (UP_WAITING, UP_EMPTY), (DOWN_FULL, DOWN_EMPTY))
"""States that are compared: a full spool, and an empty one."""


@dataclass(frozen=True, slots=True)
class _State:
    """A service's circumstances."""

    variant: str
    spool: Path
    is_database_up: bool


def cells(variant: str, number: int) -> list[Cell]:
    """Return the cell of a round."""
    cell = Cell(
        part=PART,
        database=DatabaseName.SQLITE,
        subject=Subject.SERVICE,
        connections=CONNECTIONS,
        variant=variant,
        round=number,
    )
    return [cell]


def run(run: Run) -> None:
    """Fill three spools once, and measure the states in turns."""
    numbers = [number for start in run.rounds for number in rounds_of(start)]
    every = [cell for state in STATES for number in numbers for cell in cells(state, number)]
    every += cells(CATCHING_UP, 1)
    if run.has_all(every):
        return
    with (
        run.failing_alone(every),
        tempfile.TemporaryDirectory(prefix="sam-callback-bench-") as name,
    ):
        directory = Path(name)
        spooled = run.options.spooled
        run.say(f"making three spools of {spooled:,} entries")
        all_of_them = sqlite_target(directory / "sam.db", spooled + run.options.rows)
        entries = all_of_them.deployment_ids[:spooled]
        target = Target(all_of_them.connection_string, all_of_them.deployment_ids[spooled:])
        _fill(directory / "dead.db", Kind.DEAD_LETTER, entries)
        _fill(directory / "queued.db", Kind.QUEUED, entries)
        unknown = [f"{deployment_id}-unknown" for deployment_id in entries]
        _fill(directory / "unmatched.db", Kind.UNMATCHED, unknown)
        for start in run.rounds:
            states = [
                _State(UP_EMPTY, directory / "empty-up.db", is_database_up=True),
                _State(UP_FULL, directory / "dead.db", is_database_up=True),
                _State(UP_WAITING, directory / "unmatched.db", is_database_up=True),
                _State(DOWN_EMPTY, directory / f"empty-{start}.db", is_database_up=False),
                _State(DOWN_FULL, directory / "queued.db", is_database_up=False),
            ]
            _measure_in_turns(run, target, states, rounds_of(start))
        catching_up = _State(CATCHING_UP, directory / "queued.db", is_database_up=True)
        _measure(run, target, catching_up)


def _fill(path: Path, kind: Kind, deployment_ids: list[str]) -> None:
    first = time.time_ns() - len(deployment_ids)
    with closing(SpoolFile(path, MAX_BYTES)) as file:
        for start in range(0, len(deployment_ids), PAGE):
            page = [
                Entry(
                    number,
                    kind,
                    deployment_id,
                    "RUN_COMPLETED",
                    reason="For a benchmark.",
                    attempts=RETRY.failures_to_longest if kind is Kind.UNMATCHED else 0,
                )
                for number, deployment_id in enumerate(
                    deployment_ids[start : start + PAGE], first + start
                )
            ]
            assert all(file.put(page, page[-1].number))


def _measure_in_turns(run: Run, target: Target, states: list[_State], rounds: list[int]) -> None:
    every = [cell for state in states for number in rounds for cell in cells(state.variant, number)]
    if run.has_all(every):
        return
    with (
        run.failing_alone(every),
        bodies_for(target) as bodies,
        contextlib.ExitStack() as stack,
    ):
        contenders = [
            Contender(
                stack.enter_context(_running(target, state)), bodies, partial(cells, state.variant)
            )
            for state in states
        ]
        take_turns(run, contenders, rounds)


def _measure(run: Run, target: Target, state: _State) -> None:
    [cell] = cells(state.variant, 1)
    if run.has_all([cell]):
        return
    with (
        run.failing_alone([cell]),
        bodies_for(target) as bodies,
        _running(target, state) as server,
    ):
        warm_up(server, bodies)
        seconds = run.options.seconds
        run.take(cell, partial(measure, server, bodies, connections=CONNECTIONS, seconds=seconds))


def _running(target: Target, state: _State) -> AbstractContextManager[Server]:
    environment = environment_for(
        target if state.is_database_up else nowhere(),
        CALLBACK_SPOOL_PATH=str(state.spool),
        CALLBACK_SPOOL_MAX_BYTES=str(MAX_BYTES),
    )
    return running(Subject.SERVICE, environment)
