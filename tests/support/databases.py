"""Real databases over real ODBC: SQLite, a PostgreSQL server of the tests' own, SQL Server."""

import contextlib
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

import pyodbc

from tests.support.conditions import LIMIT_SECONDS

ROBOT = ("d-1", "RUNNING")
SAM_TEST_SQLSERVER = "SAM_TEST_SQLSERVER"
"""The variable with a connection string, without DATABASE: tests use that SQL Server too."""

UNUSED_PASSWORD = "unused-but-secret"


ROW_LOCKING = ["postgres_database", *["sql_server_database"] * (SAM_TEST_SQLSERVER in os.environ)]
"""The fixtures of the databases that lock rows; SQLite has one lock for the whole file."""


class Database(Protocol):
    """A database that has a table `robots`."""

    @property
    def connection_string(self) -> str:
        """The value of SQL_SAM_CONNECTION_STRING."""

    def execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement past the service; commit; return its rows."""

    def add_robots(self, deployment_ids: Iterable[str]) -> None:
        """Add rows that run."""

    def statuses(self) -> dict[str, str]:
        """The status of every deployment."""


class SqliteDatabase:
    """A SQLite file, written to with Python's own sqlite3 and read so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute("PRAGMA journal_mode = WAL")
        self.execute(
            "CREATE TABLE robots (deploymentId VARCHAR(128) UNIQUE, status VARCHAR(64) NOT NULL"
            " CHECK (length(status) <= 64), payload TEXT, finished TEXT)"
        )

    @property
    def connection_string(self) -> str:
        return self.waiting_for_locks(LIMIT_SECONDS * 1000)

    def waiting_for_locks(self, milliseconds: int) -> str:
        """The connection string of a client that waits so long for another's lock."""
        return (
            f"DRIVER=SQLite3;Database={self.path};SyncPragma=FULL;JournalMode=WAL;"
            f"Timeout={milliseconds};"
        )

    def execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, timeout=LIMIT_SECONDS)) as connection, connection:
            return connection.execute(sql, parameters).fetchall()

    def add_robots(self, deployment_ids: Iterable[str]) -> None:
        with closing(sqlite3.connect(self.path, timeout=LIMIT_SECONDS)) as connection, connection:
            connection.executemany(
                "INSERT INTO robots (deploymentId, status) VALUES (?, 'RUNNING')",
                [(deployment_id,) for deployment_id in deployment_ids],
            )

    def statuses(self) -> dict[str, str]:
        return dict(self.execute("SELECT deploymentId, status FROM robots"))


class PostgresServer:
    """A PostgreSQL server on a port of its own, gone with its directory when stopped.

    Args:
        durable: Whether a COMMIT waits for the disk. Tests that cut no power need not wait.
        host: The address to listen on.
        port: The port; a free one, unless given.
    """

    def __init__(
        self, *, durable: bool = False, host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        self._fsync = "on" if durable else "off"
        self._binaries = _postgres_binaries()
        self.directory = Path(tempfile.mkdtemp(prefix="sam-callback-postgres-"))
        self.host = host
        self.port = port or free_port()
        self._databases = 0
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.name == "posix" and os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.directory, self._user, self._user)
        self._make_data()
        self.start()

    def _make_data(self) -> None:
        self._run("initdb", "--auth=trust", "--username=sam", "--no-sync", "--encoding=UTF8")
        with self._rules.open("a") as rules:  # this machine's other addresses
            rules.write("host all,replication sam samenet trust\n")

    def start(self) -> None:
        options = (
            f"-p {self.port} -k {self.directory} -c listen_addresses={self.host}"
            f" -c fsync={self._fsync} -c max_connections=100"
        )
        self._run(
            "pg_ctl", "start", "--wait", f"--log={self.directory}/log", f"--options={options}"
        )

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def restart_after_kill(self) -> None:
        """Start again after the postmaster was killed, once its children are gone."""
        for attempt in range(100):
            try:
                self.start()
            except subprocess.CalledProcessError:
                if attempt == 99:
                    raise
            else:
                return

    def destroy(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.directory)

    def create_database(self) -> "PostgresDatabase":
        self._databases += 1
        name = f"sam{self._databases}"
        with closing(self.connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return PostgresDatabase(self, name)

    def connect(self, database: str) -> pyodbc.Connection:
        return pyodbc.connect(self.connection_string(database), autocommit=True)

    def connection_string(
        self, database: str, *, port: int | None = None, user: str = "sam"
    ) -> str:
        return (
            f"DRIVER={{PostgreSQL Unicode}};Server={self.host};Port={port or self.port};"
            f"Database={database};UID={user};PWD={UNUSED_PASSWORD};"
        )

    def require_password(self, role: str) -> None:
        """Let a role of this name log in with a password only, which no test has."""
        rule = f"host all {role} 127.0.0.1/32 scram-sha-256\n"
        self._rules.write_text(rule + self._rules.read_text())
        self._run("pg_ctl", "reload")

    @property
    def _rules(self) -> Path:
        return self.directory / "data/pg_hba.conf"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, f"--pgdata={self.directory}/data", *arguments],
            user=self._user,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
        )


class PostgresDatabase:
    """One database on a PostgreSQL server."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        self.execute(
            'CREATE TABLE robots ("deploymentId" VARCHAR(128) UNIQUE,'
            " status VARCHAR(64) NOT NULL, payload TEXT, finished TIMESTAMP)"
        )

    @property
    def connection_string(self) -> str:
        return self.server.connection_string(self.name)

    def execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(self.server.connect(self.name)) as connection:
            cursor = connection.execute(sql, *parameters)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def add_robots(self, deployment_ids: Iterable[str]) -> None:
        rows: Sequence[tuple[str]] = [(deployment_id,) for deployment_id in deployment_ids]
        with closing(self.server.connect(self.name)) as connection:
            connection.cursor().executemany(
                "INSERT INTO robots (\"deploymentId\", status) VALUES (?, 'RUNNING')", rows
            )

    def statuses(self) -> dict[str, str]:
        return dict(self.execute('SELECT "deploymentId", status FROM robots'))

    def rename(self, table: str, to: str) -> None:
        self.execute(f"ALTER TABLE {table} RENAME TO {to}")


class SqlServerDatabase:
    """A table of its own on the SQL Server that SAM_TEST_SQLSERVER leads to.

    The login must be allowed to create databases: each test has one, gone with it.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self.name = f"sam_test_{uuid.uuid4().hex}"
        self._on_server(f"CREATE DATABASE {self.name}")
        self.execute(
            "CREATE TABLE robots (deploymentId VARCHAR(128) COLLATE Latin1_General_100_BIN2_UTF8"
            " UNIQUE, status VARCHAR(64) COLLATE Latin1_General_100_BIN2_UTF8 NOT NULL"
            " CHECK (LEN(status) <= 64), payload NVARCHAR(MAX), finished DATETIME2(6))"
        )

    @property
    def connection_string(self) -> str:
        return f"{self._server.rstrip(';')};DATABASE={self.name};"

    def execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(pyodbc.connect(self.connection_string, autocommit=True)) as connection:
            cursor = connection.execute(sql, *parameters)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def add_robots(self, deployment_ids: Iterable[str]) -> None:
        for deployment_id in deployment_ids:
            self.execute(
                "INSERT INTO robots (deploymentId, status) VALUES (?, 'RUNNING')", deployment_id
            )

    def statuses(self) -> dict[str, str]:
        return dict(self.execute("SELECT deploymentId, status FROM robots"))

    def rename(self, table: str, to: str) -> None:
        self.execute(f"EXECUTE sp_rename '{table}', '{to}'")

    def destroy(self) -> None:
        self._on_server(f"ALTER DATABASE {self.name} SET SINGLE_USER WITH ROLLBACK IMMEDIATE")
        self._on_server(f"DROP DATABASE {self.name}")

    def _on_server(self, sql: str) -> None:
        with closing(pyodbc.connect(self._server, autocommit=True)) as connection:
            connection.execute(sql)


def _postgres_binaries() -> Path:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if debian:
        return debian[-1]
    found = shutil.which("initdb")
    if found is None:
        raise RuntimeError("These tests need a PostgreSQL server's programs: `make setup`.")
    return Path(found).parent


_PORTS: Final = range(20_000, 32_000)
"""No system gives one of these to an outgoing connection, between the look at it and its use."""


def free_port() -> int:
    """Find a port without a listener."""
    while True:
        # Not by `random`: pytest-randomly gives all workers the same seed.
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
