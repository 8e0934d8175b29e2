"""A run: its parts one after another, each cell kept as soon as it is measured."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from tests.benchmarks.databases import DatabaseName, Databases, Target
from tests.benchmarks.load import write_bodies
from tests.benchmarks.results import Cell, Figures, Measurement, Options, Results
from tests.benchmarks.subject import Subject


class Run:
    """The state that the parts of a run share.

    Attributes:
        results: What was measured until now.
        databases: Where callbacks go.
    """

    def __init__(
        self, results: Results, path: Path, databases: Databases, console: Console
    ) -> None:
        self.results = results
        self.databases = databases
        self._path = path
        self._console = console

    @property
    def options(self) -> Options:
        """The set-up of the run."""
        return self.results.options

    @property
    def rounds(self) -> range:
        """The rounds, from 1."""
        return range(1, self.options.rounds + 1)

    def has_all(self, cells: list[Cell]) -> bool:
        """Whether these were measured already, by a run that was stopped."""
        return all(self.results.has(cell) for cell in cells)

    def take(self, cell: Cell, measure: Callable[[], Figures]) -> None:
        """Measure a cell, if it was not; what fails is a failure of this cell alone."""
        if self.results.has(cell):
            return
        try:
            figures = measure()
        except Exception as error:  # noqa: BLE001 - the others are to be measured all the same
            self.fail([cell], error)
            return
        self.results.add(Measurement(cell=cell, figures=figures))
        self.save()
        self.say(
            f"{cell}: {figures.per_second:,.0f}/s, p50 {figures.p50_ms:.2f} ms, "
            f"p99 {figures.p99_ms:.2f} ms, {figures.cpu_us:.0f} µs CPU, {figures.rss_mb:.0f} MB"
            + (f", errors {figures.errors}" if figures.errors else "")
        )

    def fail(self, cells: list[Cell], error: Exception) -> None:
        """Note that cells could not be measured, and why."""
        missing = [cell for cell in cells if not self.results.has(cell)]
        self.reject(missing, f"{type(error).__name__}: {error}")

    def reject(self, cells: list[Cell], why: str) -> None:
        """Note that cells have no figures that count, and why."""
        for cell in cells:
            self.results.add(Measurement(cell=cell, failure=why))
            self.say(f"[red]{cell}: {escape(why)}[/]")
        self.save()

    def check_written(self, target: Target, cells: list[Cell]) -> None:
        """Look whether what was answered is in the database: it would be fast not to write it.

        Each measurement sends for one deployment after the other, so it has reached as many as it
        had answers, or all.
        """
        answers = max((self.results.answers(cell) for cell in cells), default=0)
        wanted, changed = min(answers, len(target.deployment_ids)), target.changed()
        if changed < wanted:
            self.reject(cells, f"{answers} callbacks were answered, but {changed} rows changed")

    @contextmanager
    def failing_alone(self, cells: list[Cell]) -> Iterator[None]:
        """A failure in here is one of these cells, and the run goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the others are to be measured all the same
            self.fail(cells, error)

    def say(self, text: str) -> None:
        """Tell how far it is."""
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {text}", highlight=False)

    def save(self) -> None:
        """Keep what was measured until now."""
        self.results.save(self._path)


@contextmanager
def bodies_for(target: Target) -> Iterator[Path]:
    """A file of callbacks for a database's deployments."""
    with tempfile.TemporaryDirectory(prefix="sam-callback-bench-") as directory:
        path = Path(directory) / "bodies.jsonl"
        write_bodies(path, target.deployment_ids)
        yield path


def environment_for(target: Target, **variables: str) -> dict[str, str]:
    """The variables that tell a subject of a database."""
    return {"SQL_SAM_CONNECTION_STRING": target.connection_string, **variables}


POOL_SIZES: Final = {
    DatabaseName.SQLITE: (1, 2, 4),
    DatabaseName.POSTGRESQL: (2, 4, 8, 16, 32),
    DatabaseName.DELAYED: (8, 16, 32, 64),
}
"""Sizes of the pool of (b) that are tried; where none was, the one in the middle is taken."""


def best_pool_size(results: Results, database: DatabaseName) -> int:
    """Return the size of its pool with which (b) answered most callbacks per second."""
    sizes = POOL_SIZES[database]
    measured = {
        size: figures[1].per_second
        for size in sizes
        if (figures := results.rounds("pool", database, Subject.AIOODBC, 64, f"{size} connections"))
    }
    if measured:
        return max(measured, key=lambda size: measured[size])
    return 1 if database is DatabaseName.SQLITE else sizes[len(sizes) // 2]
