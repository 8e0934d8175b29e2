"""The targets, each with the figure that was reached."""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

from tests.benchmarks.databases import TITLES, DatabaseName
from tests.benchmarks.parts import cpu, memory, outage, rows, shared_inbox, spool
from tests.benchmarks.results import Figures, Results, Spread, has_enough_answers, ratio
from tests.benchmarks.subject import Subject

SQLITE, POSTGRESQL, DELAYED = DatabaseName
MAX_GROWTH_MB = 2.0
"""The largest difference over a million callbacks that still counts as memory not grown."""


@dataclass(frozen=True, slots=True)
class Target:
    """One promise.

    Attributes:
        text: What is promised.
        at_most: The highest figure that meets it, if that is what it asks for.
        at_least: The lowest one, if it asks for that.
        reached: The figure, and its spread over the rounds; None if it was not measured.
        unit: What it is counted in.
    """

    text: str
    reached: Spread | None
    _: KW_ONLY
    at_most: float = math.inf
    at_least: float = -math.inf
    unit: str = "times"

    @property
    def is_met(self) -> bool | None:
        """Whether it was reached; None if it was not measured."""
        if self.reached is None:
            return None
        return self.at_least <= self.reached.median <= self.at_most


def targets_of(results: Results) -> list[Target]:
    """Compute the figure for every target."""
    return [
        *_compared(results),
        *_many_connections(results),
        *_circumstances(results),
        *_shared_inbox(results),
        *_memory(results),
    ]


def _compared(results: Results) -> Iterator[Target]:
    def against(
        figure: str, database: DatabaseName, other: Subject, connections: int = 64
    ) -> Spread | None:
        ours = results.rounds("compare", database, Subject.SERVICE, connections)
        return ratio(figure, ours, results.rounds("compare", database, other, connections))

    # A run that has not measured them in turns may have them among all the others.
    in_turns = (
        results.rounds(cpu.PART, SQLITE, subject, cpu.CONNECTIONS)
        for subject in (Subject.SERVICE, Subject.EMPTY)
    )
    cpu_us = ratio("cpu_us", *in_turns) or against("cpu_us", SQLITE, Subject.EMPTY)
    where = f"64 connections, {TITLES[SQLITE]}"
    yield Target(f"Server CPU per callback against (a), {where}", cpu_us, at_most=1.0)
    yield Target("The same, the stretch", cpu_us, at_most=0.8)
    for database, factor in ((SQLITE, 3.0), (POSTGRESQL, 2.5)):
        where = f"64 connections, {TITLES[database]}"
        throughput = against("per_second", database, Subject.AIOODBC)
        yield Target(f"Throughput against (b), {where}", throughput, at_least=factor)
        p99 = against("p99_ms", database, Subject.AIOODBC)
        yield Target(f"p99 against (b)'s, {where}", p99, at_most=0.5)
    throughput = against("per_second", DELAYED, Subject.BLOCKING)
    yield Target(
        f"Throughput against (c), 64 connections, {TITLES[DELAYED]}", throughput, at_least=10
    )
    for database in DatabaseName:
        latency = against("p50_ms", database, Subject.AIOODBC, 1)
        yield Target(f"p50 against (b)'s, 1 connection, {TITLES[database]}", latency, at_most=1.1)


def _many_connections(results: Results) -> Iterator[Target]:
    for database in DatabaseName:
        rounds = results.rounds("compare", database, Subject.SERVICE, 512)
        where = f"512 connections, {TITLES[database]}"
        errors = Spread.of(float(sum(figures.errors.values())) for figures in rounds.values())
        worst = Spread(errors.high, errors.low, errors.high) if errors else None
        yield Target(f"Errors, {where}", worst, at_most=0, unit="errors")
        reached = _p99_to_p50(rounds)
        if not has_enough_answers(rounds, 512):
            reached = Spread(math.inf, math.inf, math.inf)
        yield Target(f"p99 against p50, {where}", reached, at_most=10)


def _p99_to_p50(rounds: dict[int, Figures]) -> Spread | None:
    return Spread.of(
        figures.p99_ms / figures.p50_ms for figures in rounds.values() if figures.p50_ms
    )


def _circumstances(results: Results) -> Iterator[Target]:
    def between(
        figure: str,
        this: tuple[str, DatabaseName, int, str],
        other: tuple[str, DatabaseName, int, str],
    ) -> Spread | None:
        measured = [
            results.rounds(part, database, Subject.SERVICE, connections, variant)
            for part, database, connections, variant in (this, other)
        ]
        return ratio(figure, *measured)

    down = between(
        "p99_ms",
        (outage.PART, POSTGRESQL, outage.CONNECTIONS, outage.DOWN),
        (outage.PART, POSTGRESQL, outage.CONNECTIONS, outage.UP),
    )
    yield Target("p99 while the database is down, against up", down, at_most=2.0)
    most, fewest = rows.variant(results.options.most_rows), rows.variant(rows.FEWEST)
    for connections in rows.CONNECTIONS:
        latency = between(
            "p50_ms",
            (rows.PART, SQLITE, connections, most),
            (rows.PART, SQLITE, connections, fewest),
        )
        text = f"p50 with {most} against {fewest}, {_connections(connections)}"
        yield Target(text, latency, at_most=1.15)
    for full, empty in spool.PAIRS:
        latency = between(
            "p50_ms",
            (spool.PART, SQLITE, spool.CONNECTIONS, full),
            (spool.PART, SQLITE, spool.CONNECTIONS, empty),
        )
        text = f"p50 with {results.options.spooled:,} spooled entries ({full}) against none"
        yield Target(text, latency, at_most=1.2)


def _shared_inbox(results: Results) -> Iterator[Target]:
    def rounds(variant: str, connections: int) -> dict[int, Figures]:
        part = shared_inbox.PART
        return results.rounds(part, POSTGRESQL, Subject.SERVICE, connections, variant)

    for connections in shared_inbox.CONNECTIONS:
        spool_alone = rounds(shared_inbox.SPOOL, connections)
        shared = rounds(shared_inbox.SHARED, connections)
        cpu_us = ratio("cpu_us", shared, spool_alone)
        text = f"CPU with a shared inbox against the spool alone, {_connections(connections)}"
        yield Target(text, cpu_us, at_most=1.25)
    alone, shared = (rounds(name, 1) for name in (shared_inbox.SPOOL, shared_inbox.SHARED))
    trip = Spread.of(results.calls(shared_inbox.ROUND_TRIP).values())
    more = Spread.of(
        (shared[number].p50_ms - alone[number].p50_ms) / trip.median
        for number in shared.keys() & alone.keys()
        if trip
    )
    yield Target(
        "Longer p50 with a shared inbox, 1 connection", more, at_most=1.0, unit="round trips"
    )
    alone, one, two = (
        rounds(variant, shared_inbox.OUTAGE_CONNECTIONS)
        for variant in (shared_inbox.SPOOL_DOWN, shared_inbox.SHARED_DOWN, shared_inbox.TWO_DOWN)
    )
    throughput = ratio("per_second", one, alone)
    where = f"the database down, {_connections(shared_inbox.OUTAGE_CONNECTIONS)}"
    text = f"Throughput with a shared inbox against the spool alone, {where}"
    yield Target(text, throughput, at_least=0.7)
    throughput = ratio("per_second", two, one)
    yield Target("The same, two instances against one", throughput, at_least=1.0)
    for name in shared_inbox.CALLS:
        few, many = (results.calls(name, entries) for entries in (0, results.options.spooled))
        slower = Spread.of(many[number] / few[number] for number in few.keys() & many.keys())
        text = f"Shared inbox, {results.options.spooled:,} entries against few: {name}"
        yield Target(text, slower, at_most=1.5)


def _connections(number: int) -> str:
    return "1 connection" if number == 1 else f"{number} connections"


def _memory(results: Results) -> Iterator[Target]:
    cell = memory.cell()
    rounds = results.rounds(cell.part, SQLITE, cell.subject, cell.connections)
    peak = Spread.of(figures.rss_mb for figures in rounds.values())
    yield Target("Memory with 1,000 open connections, under load", peak, at_most=120, unit="MB")
    growth = memory.growth_of(results)
    grown = Spread.of([growth[1] - growth[0]] if growth else [])
    callbacks = results.growth[-1].callbacks if results.growth else 0
    text = f"Growth of memory over {callbacks:,} callbacks (0, but for noise)"
    yield Target(text, grown, at_most=MAX_GROWTH_MB, unit="MB")
