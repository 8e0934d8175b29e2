"""The tables, for the terminal and for the page."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table as RichTable

from tests.benchmarks.databases import TITLES, DatabaseName
from tests.benchmarks.parts import outage, rows, shared_inbox, spool
from tests.benchmarks.report import text
from tests.benchmarks.results import Figures, Results
from tests.benchmarks.subject import DESCRIPTIONS, Subject
from tests.benchmarks.targets import targets_of

_FIGURES = ["answers/s", "p50 ms", "p99 ms", "CPU µs", "MB", "errors"]


@dataclass(slots=True)
class Table:
    """A table, whatever it will be written in."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def as_markdown(self) -> str:
        """Write it for the page."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def print(self, console: Console) -> None:
        """Print it in the terminal."""
        table = RichTable(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index == 0 else "right")
        for row in self.rows:
            table.add_row(*(value.replace("**", "") for value in row))
        console.print(table)


def targets(results: Results) -> Table:
    """Every target that something was measured for, with what was reached."""
    table = Table(
        "Targets: medians, and between which values the rounds were",
        ["target", "asked for", "reached", ""],
    )
    for target in targets_of(results):
        if target.reached is None:
            continue
        table.rows.append(
            [
                target.text,
                text.limit(target),
                text.spread(target.reached, target.unit),
                text.met(target),
            ]
        )
    return table


def comparisons(results: Results) -> Iterator[Table]:
    """The subjects side by side, a table for each database."""
    for database in map(DatabaseName, results.options.databases):
        table = Table(TITLES[database], ["subject", "open", *_FIGURES])
        for connections in results.options.connections:
            for subject in Subject:
                if rounds := results.rounds("compare", database, subject, connections):
                    name = f"({subject}) {DESCRIPTIONS[subject].name}"
                    table.rows.append([name, str(connections), *_figures(rounds, connections)])
        if table.rows:
            yield table


def circumstances(results: Results) -> Iterator[Table]:
    """The service in other circumstances."""
    wanted = [
        (
            "While the database is down (PostgreSQL, 64 connections)",
            [(outage.PART, DatabaseName.POSTGRESQL, 64, name) for name in (outage.UP, outage.DOWN)],
        ),
        *(
            (
                f"By the size of the table (SQLite, connections: {connections})",
                [
                    (rows.PART, DatabaseName.SQLITE, connections, rows.variant(size))
                    for size in rows.sizes(results.options.most_rows)
                ],
            )
            for connections in rows.CONNECTIONS
        ),
        (
            f"With {results.options.spooled:,} entries in the spool (SQLite, 64 connections)",
            [
                (spool.PART, DatabaseName.SQLITE, spool.CONNECTIONS, name)
                for name in (*spool.STATES, spool.CATCHING_UP)
            ],
        ),
        *(
            (
                f"With a shared inbox (PostgreSQL, connections: {connections})",
                [
                    (shared_inbox.PART, DatabaseName.POSTGRESQL, connections, name)
                    for name in shared_inbox.STATES
                ],
            )
            for connections in (*shared_inbox.CONNECTIONS, shared_inbox.OUTAGE_CONNECTIONS)
        ),
    ]
    for title, cells in wanted:
        table = Table(title, ["circumstances", *_FIGURES])
        for part, database, connections, variant in cells:
            rounds = results.rounds(part, database, Subject.SERVICE, connections, variant)
            if rounds:
                table.rows.append([variant, *_figures(rounds, connections)])
        if table.rows:
            yield table


def failures(results: Results) -> Table:
    """Failed measurements, with reasons; and callbacks that went where they should not."""
    table = Table("Not as it should be", ["what", "why"])
    for measurement in results.failures:
        table.rows.append([str(measurement.cell), measurement.failure.replace("\n", " ")])
    for measurement in results.measurements:
        figures, cell = measurement.figures, measurement.cell
        if figures is None:
            continue
        if figures.errors:
            table.rows.append([str(cell), f"errors: {figures.errors}"])
        if cell.part == "compare" and set(figures.outcomes) - {"updated"}:
            table.rows.append([str(cell), f"outcomes: {figures.outcomes}"])
    return table


def print_all(results: Results, console: Console) -> None:
    """Print every table."""
    for table in (
        *comparisons(results),
        *circumstances(results),
        targets(results),
        failures(results),
    ):
        if table.rows:
            table.print(console)


def _figures(rounds: dict[int, Figures], connections: int) -> list[str]:
    return [
        text.of("per_second", rounds),
        text.latency("p50_ms", rounds, connections),
        text.latency("p99_ms", rounds, connections),
        text.of("cpu_us", rounds),
        text.of("rss_mb", rounds),
        text.errors(rounds),
    ]
