"""The databases: for all who write the same, and as durable as in production."""

import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import pyodbc

from tests.benchmarks.delay import delayed
from tests.support.databases import PostgresServer, SqliteDatabase, free_port

POSTGRESQL_OPTIONS: Final = "UseServerSidePrepare=0;"
"""For all alike, and best for (b) and (c): without it psqlODBC prepares each new cursor's statement
on the server, and a request of theirs takes 6 round trips instead of 2 (seen with 13.02)."""


LOCK_WAIT_MS: Final = 1_000
"""The time that SQLite waits for another's lock."""


class DatabaseName(StrEnum):
    """Which database, and how far away it is."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    DELAYED = "postgresql+5ms"


TITLES = {
    DatabaseName.SQLITE: "SQLite over ODBC",
    DatabaseName.POSTGRESQL: "PostgreSQL over ODBC",
    DatabaseName.DELAYED: "PostgreSQL, 5 ms away",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A database with robots that run.

    Attributes:
        connection_string: For ODBC.
        deployment_ids: Its deployments, or those of them that callbacks are sent for.
    """

    connection_string: str
    deployment_ids: list[str]

    def changed(self) -> int:
        """Count the robots that do not run any more."""
        connection = pyodbc.connect(self.connection_string, autocommit=True)
        with closing(connection):
            count = "SELECT count(*) FROM robots WHERE status <> 'RUNNING'"
            return int(connection.execute(count).fetchval())


class Databases:
    """Makes databases. PostgreSQL is started when it is first asked for.

    Args:
        postgresql_options: What its connection strings end with.
    """

    def __init__(self, postgresql_options: str = POSTGRESQL_OPTIONS) -> None:
        self._options = postgresql_options
        self._stack = contextlib.ExitStack()
        self._server: PostgresServer | None = None
        self._delayed_port: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def server(self) -> PostgresServer:
        """The PostgreSQL server, with fsync and synchronous_commit."""
        if self._server is None:
            self._server = PostgresServer(durable=True)
            self._stack.callback(self._server.destroy)
        return self._server

    @property
    def delayed_port(self) -> int:
        """A port that leads to the PostgreSQL server, 5 ms there and back."""
        if self._delayed_port is None:
            self._delayed_port = self._stack.enter_context(delayed(self.server.port))
        return self._delayed_port

    @contextmanager
    def fresh(self, name: DatabaseName, rows: int) -> Iterator[Target]:
        """A new database with so many robots; gone in the end."""
        if name is DatabaseName.SQLITE:
            with tempfile.TemporaryDirectory(prefix="sam-callback-bench-") as directory:
                yield sqlite_target(Path(directory) / "sam.db", rows)
            return
        database = self.server.create_database()
        database.execute(
            "INSERT INTO robots (\"deploymentId\", status) SELECT gen_random_uuid(), 'RUNNING'"
            f" FROM generate_series(1, {rows})"
        )
        port = self.delayed_port if name is DatabaseName.DELAYED else None
        try:
            yield Target(
                self.server.connection_string(database.name, port=port) + self._options,
                [*database.statuses()],
            )
        finally:
            with closing(self.server.connect("postgres")) as connection:
                connection.execute(f"DROP DATABASE {database.name} WITH (FORCE)")

    def facts(self, names: list[DatabaseName]) -> dict[str, str]:
        """Ask the databases themselves how durable they are, and how far away."""
        facts = {}
        for name in names:
            with self.fresh(name, 1) as target:
                connection = pyodbc.connect(target.connection_string, autocommit=True)
                with closing(connection):
                    facts[f"{name}: durability"] = _durability(connection, name)
                    if name is not DatabaseName.SQLITE:
                        facts[f"{name}: round trip"] = f"{round_trip(connection) * 1000:.2f} ms"
        return facts


def sqlite_target(path: Path, rows: int, *, callbacks_for: int | None = None) -> Target:
    """Make a SQLite file with so many robots, fast.

    Args:
        path: The file.
        rows: How many robots.
        callbacks_for: How many of them callbacks are sent for, spread over the whole table; by
            default all.
    """
    database = SqliteDatabase(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # nothing is lost if this fails
        connection.execute("PRAGMA synchronous = OFF")
        # In the order of the index, so that it grows at its end: sorting would take minutes.
        connection.execute(
            "INSERT INTO robots (deploymentId, status) WITH RECURSIVE counted(n) AS"
            " (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < :rows - 1),"
            " bytes(h) AS (SELECT printf('%08x', n * 4294967296 / :rows)"
            " || lower(hex(randomblob(12))) FROM counted)"
            " SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-'"
            " || substr(h, 17, 4) || '-' || substr(h, 21), 'RUNNING' FROM bytes",
            {"rows": rows},
        )
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
        step = max(1, rows // (callbacks_for or rows))
        ids = [
            deployment_id
            for (deployment_id,) in connection.execute(
                "SELECT deploymentId FROM robots WHERE rowid % ? = 0", (step,)
            )
        ]
    return Target(database.waiting_for_locks(LOCK_WAIT_MS), ids[:callbacks_for])


def nowhere() -> Target:
    """A server that does not exist: each connection is refused."""
    return Target(
        f"DRIVER={{PostgreSQL Unicode}};Server=127.0.0.1;Port={free_port()};Database=sam;", []
    )


def round_trip(connection: pyodbc.Connection) -> float:
    """Return what the simplest statement takes, in seconds."""
    cursor = connection.cursor()
    seconds = []
    for _ in range(50):
        started = time.perf_counter()
        cursor.execute("SELECT 1").fetchall()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _durability(connection: pyodbc.Connection, name: DatabaseName) -> str:
    if name is DatabaseName.SQLITE:
        [synchronous] = connection.execute("PRAGMA synchronous").fetchone()
        [journal] = connection.execute("PRAGMA journal_mode").fetchone()
        return f"synchronous={synchronous} (2 is FULL), journal_mode={journal}"
    shown = {
        setting: connection.execute(f"SHOW {setting}").fetchval()
        for setting in ("fsync", "synchronous_commit")
    }
    return ", ".join(f"{setting}={value}" for setting, value in shown.items())
