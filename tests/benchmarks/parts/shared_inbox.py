"""Cost of the shared inbox, against the spool alone.

The inbox is in a PostgreSQL cluster of three nodes, one of which has each COMMIT beside the
primary; all on this machine, as are the load and SAM's database.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.schema import DEFAULT_TABLE, script
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.store import LIVE, Kind
from sam.callback.settings import SpoolSettings
from sam.callback.storage.odbc.dialects import POSTGRESQL
from tests.benchmarks.databases import DatabaseName, Target, nowhere, round_trip
from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell, Figures, StoreCall
from tests.benchmarks.run import Run, bodies_for, environment_for
from tests.benchmarks.server import Server, running
from tests.benchmarks.subject import Subject
from tests.benchmarks.turns import Contender, rounds_of, take_turns
from tests.support.cluster import DATABASE, Cluster

PART = "shared inbox"
CONNECTIONS: Final = (1, 64)
OUTAGE_CONNECTIONS: Final = 256
"""So many that the CPU is the bound, and not how long one COMMIT on two machines takes."""

SPOOL, SHARED = "spool alone", "shared inbox"
SPOOL_DOWN, SHARED_DOWN = f"{SPOOL}, database down", f"{SHARED}, database down"
TWO_DOWN = f"{SHARED}, database down, two instances"
STATES: Final = (SPOOL, SHARED, SPOOL_DOWN, SHARED_DOWN, TWO_DOWN)
ROUND_TRIP: Final = "round trip"
BATCH: Final = 64
REPETITIONS: Final = 30
FULL_TABLE: Final = "full_inbox"
CALLS: Final = ("put", "look-up", "page", "due")


def cell(variant: str, number: int, connections: int = OUTAGE_CONNECTIONS) -> Cell:
    """Return the cell of a round."""
    return Cell(
        part=PART,
        database=DatabaseName.POSTGRESQL,
        subject=Subject.SERVICE,
        connections=connections,
        variant=variant,
        round=number,
    )


def cells(variant: str, number: int) -> list[Cell]:
    """Return the cells of a round while the database is up."""
    return [cell(variant, number, connections) for connections in CONNECTIONS]


def run(run: Run) -> None:
    """Measure both in turns, the database up and down; then what a large table costs."""
    every = [
        each
        for start in run.rounds
        for number in rounds_of(start)
        for variant in (SPOOL, SHARED)
        for each in cells(variant, number)
    ]
    down = [
        cell(variant, number)
        for variant in (SPOOL_DOWN, SHARED_DOWN, TWO_DOWN)
        for number in run.rounds
    ]
    if run.has_all([*every, *down]) and run.results.store_calls:
        return
    with run.failing_alone([*every, *down]), ExitStack() as stack:
        cluster = Cluster(durable=True)
        stack.callback(cluster.destroy)
        target = stack.enter_context(run.databases.fresh(DatabaseName.POSTGRESQL, run.options.rows))
        bodies = stack.enter_context(bodies_for(target))
        for start in run.rounds:
            _measure_healthy(run, cluster, target, bodies, rounds_of(start))
        _measure_outage(run, cluster, bodies)
        _measure_calls(run, cluster)


def _start(stack: ExitStack, target: Target, cluster: Cluster | None) -> Server:
    inbox = {"CALLBACK_INBOX_CONNECTION_STRING": cluster.connection_string} if cluster else {}
    return stack.enter_context(running(Subject.SERVICE, environment_for(target, **inbox)))


def _measure_healthy(
    run: Run, cluster: Cluster, target: Target, bodies: Path, rounds: list[int]
) -> None:
    with ExitStack() as stack:
        contenders = [
            Contender(_start(stack, target, inbox), bodies, partial(cells, variant))
            for variant, inbox in ((SPOOL, None), (SHARED, cluster))
        ]
        take_turns(run, contenders, rounds)


def _measure_outage(run: Run, cluster: Cluster, bodies: Path) -> None:
    """Measure what is taken by one instance with a spool, by one without, and by two."""
    with ExitStack() as stack:
        alone, first, second = (
            _start(stack, nowhere(), inbox) for inbox in (None, cluster, cluster)
        )
        for server in (alone, first, second):
            warm_up(server, bodies)
        contenders = {SPOOL_DOWN: [alone], SHARED_DOWN: [first], TWO_DOWN: [first, second]}
        for number in run.rounds:
            for variant, servers in contenders.items():
                take = partial(_measure_together, servers, bodies, run.options.seconds)
                run.take(cell(variant, number), take)


def _measure_together(servers: list[Server], bodies: Path, seconds: float) -> Figures:
    take = partial(measure, bodies=bodies, connections=OUTAGE_CONNECTIONS, seconds=seconds)
    with ThreadPoolExecutor() as threads:
        figures = list(threads.map(take, servers))
    return figures[0].model_copy(
        update={
            "answers": sum(each.answers for each in figures),
            "per_second": sum(each.per_second for each in figures),
            "p50_ms": statistics.mean(each.p50_ms for each in figures),
            "p99_ms": max(each.p99_ms for each in figures),
            "cpu_us": statistics.mean(each.cpu_us for each in figures),
        }
    )


def _measure_calls(run: Run, cluster: Cluster) -> None:
    """Measure calls of a table with few entries, and of one with many."""
    entries = run.options.spooled
    run.say(f"making a table of {entries:,} entries")
    with closing(cluster.primary.connect(DATABASE)) as connection:
        connection.execute(script("postgresql", FULL_TABLE, POSTGRESQL.quote))
        for table, number in ((DEFAULT_TABLE, BATCH), (FULL_TABLE, entries)):
            connection.execute(f"TRUNCATE {table}")
            connection.execute(
                f"INSERT INTO {table} (entry_key, number, kind, deployment_id, status, reason,"
                " size, line, attempts, due) SELECT id, n, 'queued', id, 'RUN_COMPLETED',"
                " 'For a benchmark.', 250, 0, 0, 0 FROM (SELECT n, gen_random_uuid() || '' AS id"
                f" FROM generate_series(1, {number}) AS n) AS made"
            )
        run.results.store_calls = [
            StoreCall(
                name=ROUND_TRIP,
                entries=None,
                milliseconds=round_trip(connection) * 1000,
                round=number,
            )
            for number in run.rounds
        ]
    run.results.store_calls += asyncio.run(_time_calls(run.rounds, cluster, entries))
    run.save()


async def _time_calls(rounds: range, cluster: Cluster, entries: int) -> list[StoreCall]:
    stores = {0: await _open(cluster, DEFAULT_TABLE), entries: await _open(cluster, FULL_TABLE)}
    found = []
    for number in rounds:
        calls = {
            size: await _calls(store, after=size * number // (len(rounds) + 1))
            for size, store in stores.items()
        }
        for name in CALLS:
            taken: dict[int, list[float]] = {size: [] for size in stores}
            for _ in range(REPETITIONS):
                for size, seconds in taken.items():
                    seconds.append(await _seconds(calls[size][name]))
            found += [
                StoreCall(
                    name=name,
                    entries=size,
                    milliseconds=statistics.median(seconds) * 1000,
                    round=number,
                )
                for size, seconds in taken.items()
            ]
    for store in stores.values():
        await store.close()
    return found


async def _calls(store: SharedStore, *, after: int) -> dict[str, Callable[[], Awaitable[object]]]:
    known = await store.page(LIVE, after=after, limit=BATCH)
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        partial(store.put, known),
        partial(store.with_entries, [entry.deployment_id or "" for entry in known]),
        partial(store.page, [Kind.QUEUED], after=after, limit=BATCH),
        partial(store.due, BATCH),
    )
    return dict(zip(CALLS, calls, strict=True))


async def _open(cluster: Cluster, table: str) -> SharedStore:
    settings = SpoolSettings.model_validate(
        {
            "callback_inbox_connection_string": cluster.connection_string,
            "callback_inbox_table": table,
            "callback_inbox_timeout": 60,
        }
    )
    store = SharedStore(settings, Sequence(), is_quiet=True)
    await store.open(patient=True)
    return store


async def _seconds(call: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await call()
    return time.perf_counter() - begun
