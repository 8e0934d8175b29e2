"""Results in one JSON file, written anew after each measurement."""

import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from tests.benchmarks.machine import Machine
from tests.benchmarks.subject import Subject


class Cell(BaseModel):
    """A measurement, and its round.

    Attributes:
        part: The part of the run.
        database: Its name.
        subject: Who is measured.
        connections: How many are open.
        variant: What else is different from the others of its part.
        round: Which round; ratios are taken within one.
    """

    model_config = ConfigDict(frozen=True)

    part: str
    database: str
    subject: Subject
    connections: int
    variant: str = ""
    round: int

    def __str__(self) -> str:
        """Say it in one line."""
        variant = f", {self.variant}" if self.variant else ""
        return (
            f"{self.part}: ({self.subject}) on {self.database}, "
            f"{self.connections} connections{variant}, round {self.round}"
        )


class Figures(BaseModel):
    """The figures of a measurement.

    Attributes:
        seconds: How long the load was.
        answers: How many there were.
        per_second: Answers per second.
        p50_ms: Median latency.
        p99_ms: The 99th percentile.
        max_ms: The slowest.
        cpu_us: User and system time of the server's processes per answer, in microseconds.
        rss_mb: The most resident memory seen, in 10^6 bytes.
        errors: Statuses of 400 and above and socket errors, by kind; those above 0.
        outcomes: Callbacks by outcome, as the service logged them.
        generator_cores: How many cores the load generator took.
        other_cores: How many cores others took: a database server, and what else ran.
        disk_ms: What writing 4 KiB and an fsync took just before, the median of a few.
    """

    seconds: float
    answers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: float
    rss_mb: float
    errors: dict[str, int]
    outcomes: dict[str, int]
    generator_cores: float
    other_cores: float
    disk_ms: float


def has_enough_answers(rounds: dict[int, Figures], connections: int) -> bool:
    """Whether each connection had time for two answers: of fewer, latencies say too little."""
    return all(figures.answers >= 2 * connections for figures in rounds.values())


class Measurement(BaseModel):
    """A cell's figures, or why there are none."""

    cell: Cell
    figures: Figures | None = None
    failure: str = ""


class Growth(BaseModel):
    """Memory after so many callbacks."""

    callbacks: int
    rss_mb: float


class StoreCall(BaseModel):
    """What a call of the shared inbox took, or a round trip to it.

    Attributes:
        name: The call.
        entries: How many the table had; None for the round trip.
        milliseconds: The median of a few.
        round: Which round.
    """

    name: str
    entries: int | None
    milliseconds: float
    round: int


class Options(BaseModel):
    """The set-up of a run."""

    subjects: list[Subject]
    databases: list[str]
    connections: list[int]
    parts: list[str]
    rounds: int
    seconds: float
    rows: int
    most_rows: int
    spooled: int
    growth_callbacks: int
    postgresql_options: str


class Results(BaseModel):
    """A run."""

    machine: Machine
    options: Options
    facts: dict[str, str] = {}
    measurements: list[Measurement] = []
    growth: list[Growth] = []
    store_calls: list[StoreCall] = []

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a run from its file."""
        return cls.model_validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Write the run to its file; what was there stays whole until then."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        os.replace(new, path)  # noqa: PTH105 - the same thing, and known to be atomic

    def has(self, cell: Cell) -> bool:
        """Whether a cell was measured, and did not fail."""
        return any(m.cell == cell and m.figures is not None for m in self.measurements)

    def answers(self, cell: Cell) -> int:
        """Return how many answers a cell had; 0 if it was not measured."""
        return sum(m.figures.answers for m in self.measurements if m.cell == cell and m.figures)

    def add(self, measurement: Measurement) -> None:
        """Add a measurement in the place of one of the same cell, if there is one."""
        self.measurements = [m for m in self.measurements if m.cell != measurement.cell]
        self.measurements.append(measurement)

    @property
    def failures(self) -> list[Measurement]:
        """Those that could not be taken."""
        return [m for m in self.measurements if m.figures is None]

    def calls(self, name: str, entries: int | None = None) -> dict[int, float]:
        """Return what a call of the shared inbox took in each round, in milliseconds."""
        return {
            call.round: call.milliseconds
            for call in self.store_calls
            if (call.name, call.entries) == (name, entries)
        }

    def rounds(
        self, part: str, database: str, subject: Subject, connections: int, variant: str = ""
    ) -> dict[int, Figures]:
        """Return the figures of a cell in each round."""
        return {
            m.cell.round: m.figures
            for m in self.measurements
            if m.figures is not None
            and (m.cell.part, m.cell.database, m.cell.subject, m.cell.connections, m.cell.variant)
            == (part, database, subject, connections, variant)
        }


@dataclass(frozen=True, slots=True)
class Spread:
    """Several values of one thing: the median, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Return the spread of values; None if there are none."""
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1]) if known else None


def ratio(figure: str, ours: dict[int, Figures], theirs: dict[int, Figures]) -> Spread | None:
    """Divide our figure by theirs, round by round."""
    return Spread.of(
        getattr(ours[number], figure) / getattr(theirs[number], figure)
        for number in sorted(ours.keys() & theirs.keys())
        if getattr(theirs[number], figure)
    )


def median(figure: str, rounds: dict[int, Figures]) -> float | None:
    """Return the median of a figure over the rounds."""
    spread = Spread.of(getattr(figures, figure) for figures in rounds.values())
    return spread.median if spread else None
