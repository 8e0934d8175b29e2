"""The database's side alone: an execute per row, or the statement repeated in one execute?

Batches of UPDATEs with a COMMIT each, from as many threads as connections, no HTTP. Three ways:

- ``per row``: an execute per row, on a cursor that is kept, so the statement stays prepared.
- ``repeated``: the statement repeated in one execute, each count read with ``nextset``; kept too.
- ``repeated, any size``: the same with batches of changing size, as traffic makes them, half to one
  and a half times as large: what is prepared for one size is of no use for the next.

libsqliteodbc takes one statement in an execute, so SQLite has the first way only.
"""

import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import psutil
import pyodbc
from rich.console import Console
from rich.table import Table

from tests.benchmarks.databases import TITLES, DatabaseName, Databases, Target
from tests.benchmarks.subjects.common import UPDATE

BATCHES: Final = (1, 10, 50, 100)
CONNECTIONS: Final = (1, 2, 4, 8)
ROWS: Final = 4000

DRIVER_OPTIONS: Final = ("", "UseServerSidePrepare=0;")
"""psqlODBC by default, and with parameters put into the statement by itself."""

_starts = itertools.count()


class Way(StrEnum):
    """Ways to execute a batch."""

    PER_ROW = "per row"
    REPEATED = "repeated"
    ANY_SIZE = "repeated, any size"


@dataclass(slots=True)
class Worked:
    """The work of all connections together."""

    rows: int = 0
    batch_seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    errors: list[pyodbc.Error] = field(default_factory=list)

    def add(self, rows: int, batch_seconds: list[float]) -> None:
        """Add what one connection did."""
        with self.lock:
            self.rows += rows
            self.batch_seconds += batch_seconds


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of that work.

    Attributes:
        rows_per_second: Of all connections together.
        batch_ms: The median of a batch with its COMMIT.
        cpu_us: CPU time of this process per row: the driver's and pyodbc's.
    """

    rows_per_second: float
    batch_ms: float
    cpu_us: float


def _per_row(cursor: pyodbc.Cursor, rows: list[tuple[str, str]]) -> None:
    for status, deployment_id in rows:
        cursor.execute(UPDATE, status, deployment_id)
        _check(cursor.rowcount)


def _repeated(cursor: pyodbc.Cursor, rows: list[tuple[str, str]]) -> None:
    cursor.execute(";".join([UPDATE] * len(rows)), *(value for row in rows for value in row))
    _check(cursor.rowcount)
    for _ in rows[1:]:
        cursor.nextset()
        _check(cursor.rowcount)


def _check(count: int) -> None:
    if count != 1:
        raise RuntimeError(f"a row was met {count} times")


_EXECUTE: dict[Way, Callable[[pyodbc.Cursor, list[tuple[str, str]]], None]] = {
    Way.PER_ROW: _per_row,
    Way.REPEATED: _repeated,
    Way.ANY_SIZE: _repeated,
}


def _work(target: Target, ids: list[str], way: Way, batch: int, end: float, done: Worked) -> None:
    try:
        with closing(pyodbc.connect(target.connection_string)) as connection:
            rows, seconds = _until(end, connection, ids, way, batch)
            done.add(rows, seconds)
    except pyodbc.Error as error:
        done.errors.append(error)


def _until(
    end: float, connection: pyodbc.Connection, ids: list[str], way: Way, batch: int
) -> tuple[int, list[float]]:
    cursor = connection.cursor()
    execute = _EXECUTE[way]
    started_as = next(_starts)
    rows, position, seconds = 0, 0, []
    while (started := time.perf_counter()) < end:
        size = batch
        if way is Way.ANY_SIZE:
            size = random.randint(batch - batch // 2, batch + batch // 2)  # noqa: S311 - not a secret
        execute(
            cursor,
            [
                # Another status in each pass: SQLite writes nothing where it is there already.
                (f"{started_as}.{number // len(ids)}", ids[number % len(ids)])
                for number in range(position, position + size)
            ],
        )
        position += size
        connection.commit()
        rows += size
        seconds.append(time.perf_counter() - started)
    cursor.close()
    return rows, seconds


def measure(target: Target, way: Way, *, batch: int, connections: int, seconds: float) -> Speed:
    """Let so many connections work at the same time, each on rows of its own.

    Raises:
        pyodbc.Error: If one of them failed.
    """
    share = len(target.deployment_ids) // connections
    done = Worked()
    started, cpu = time.perf_counter(), psutil.Process().cpu_times()
    threads = [
        threading.Thread(
            target=_work,
            args=(
                target,
                target.deployment_ids[number * share : (number + 1) * share],
                way,
                batch,
                started + seconds,
                done,
            ),
        )
        for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, cpu_after = time.perf_counter() - started, psutil.Process().cpu_times()
    if done.errors:
        raise done.errors[0]
    used = cpu_after.user + cpu_after.system - cpu.user - cpu.system
    return Speed(
        done.rows / took, statistics.median(done.batch_seconds) * 1000, used * 1e6 / done.rows
    )


def run(console: Console, seconds: float, databases: Databases) -> None:
    """Measure all, and print a table for each database."""
    for name in DatabaseName:
        is_sqlite = name is DatabaseName.SQLITE
        for options in ("",) if is_sqlite else DRIVER_OPTIONS:
            table = Table(title=f"{TITLES[name]}, {options or 'the driver’s defaults'}")
            for column in ("way", "rows a batch", "connections"):
                table.add_column(column)
            for column in ("rows/s", "ms a batch", "client CPU, µs a row"):
                table.add_column(column, justify="right")
            for way in [Way.PER_ROW] if is_sqlite else Way:
                with databases.fresh(name, ROWS) as fresh:
                    target = Target(fresh.connection_string + options, fresh.deployment_ids)
                    _add_rows(table, target, way, seconds)
                table.add_section()
            console.print(table)


def _add_rows(table: Table, target: Target, way: Way, seconds: float) -> None:
    for batch in BATCHES:
        for connections in CONNECTIONS:
            try:
                speed = measure(target, way, batch=batch, connections=connections, seconds=seconds)
            except (pyodbc.Error, RuntimeError) as error:
                table.add_row(way, str(batch), str(connections), f"failed: {error}")
                continue
            table.add_row(
                way,
                str(batch),
                str(connections),
                f"{speed.rows_per_second:,.0f}",
                f"{speed.batch_ms:.2f}",
                f"{speed.cpu_us:.0f}",
            )
