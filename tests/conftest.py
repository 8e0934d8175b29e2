"""The fixtures that tests share."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from sam.callback.settings import Settings
from tests.support import printed
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import (
    SAM_TEST_SQLSERVER,
    Database,
    PostgresDatabase,
    PostgresServer,
    SqliteDatabase,
    SqlServerDatabase,
)
from tests.support.service import KEY, PATIENT_SETTINGS, Service
from tests.support.tds import TdsServer, settings_for_sql_server, tds_server

# Ignored where a script runs the tests in the background, or below nohup; what they start would
# inherit that. A handler is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# No clock decides a test: hypothesis' limit is 200 ms for an example, httpx' 5 s for an answer.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("patient"), max_examples=20_000
)
hypothesis.settings.load_profile("patient")
for _limit in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _limit, LIMIT_SECONDS)  # noqa: SLF001 - no public way

_NEED_A_SERVER = {
    "database",
    "service",
    "sql_server",
    "sql_server_database",
    "sqlite_database",
    "start_service",
    "postgres_server",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _NEED_A_SERVER & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two a core, as tests of a service mostly wait; each may start a PostgreSQL server."""
    return min(2 * (os.cpu_count() or 1), 16)


@pytest.fixture
def sqlite_database(tmp_path: Path) -> SqliteDatabase:
    """A SQLite file with one robot, `d-1`, that runs."""
    database = SqliteDatabase(tmp_path / "sam.db")
    database.add_robots(["d-1"])
    return database


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process."""
    server = PostgresServer()
    yield server
    server.destroy()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> PostgresDatabase:
    """A database on the PostgreSQL server with one robot, `d-1`, that runs."""
    database = postgres_server.create_database()
    database.add_robots(["d-1"])
    return database


@pytest.fixture
def sql_server_database() -> Iterator[SqlServerDatabase]:
    """A database on the SQL Server of SAM_TEST_SQLSERVER with one robot, `d-1`, that runs."""
    database = SqlServerDatabase(os.environ[SAM_TEST_SQLSERVER])
    try:
        database.add_robots(["d-1"])
        yield database
    finally:
        database.destroy()


_DATABASES = ["sqlite_database", "postgres_database"]
if os.environ.get(SAM_TEST_SQLSERVER):
    _DATABASES.append("sql_server_database")


@pytest.fixture(params=_DATABASES, ids=lambda name: name.removesuffix("_database"))
def database(request: pytest.FixtureRequest) -> Database:
    """Each kind of database that can be run here, with one robot, `d-1`, that runs."""
    database: Database = request.getfixturevalue(request.param)
    return database


@pytest.fixture
def sql_server() -> Iterator[TdsServer]:
    """A stand-in for a SQL Server, which hears a driver."""
    with tds_server() as server:
        yield server


@pytest.fixture
def to_sql_server(sql_server: TdsServer) -> dict[str, Any]:
    """Settings for it, by Microsoft's driver."""
    return settings_for_sql_server(sql_server.port)


@pytest.fixture
def settings_for() -> Callable[..., Settings]:
    """Settings for a database, as a test in this process needs them."""

    def make(database: Database, **overrides: object) -> Settings:
        values: dict[str, object] = {
            "callback_api_key": KEY,
            "sql_sam_connection_string": database.connection_string,
            **PATIENT_SETTINGS,
            **overrides,
        }
        return Settings(**values)

    return make


@pytest.fixture
def start_service(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Service]]:
    """Starts services, which end cleanly with the test; see the mark `fresh`."""
    services: list[Service] = []
    fresh = request.node.get_closest_marker("fresh") is not None

    def start(*arguments: str, **environment: str) -> Service:
        needed = {"CALLBACK_API_KEY": KEY, **environment}
        service = Service(tmp_path, needed, arguments, fresh=fresh)
        services.append(service)
        return service

    yield start
    for service in services:
        assert service.stop() == 0


@pytest.fixture
def service(start_service: Callable[..., Service], sqlite_database: SqliteDatabase) -> Service:
    """The service on a SQLite database."""
    return start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - xdist's
    printed.searched.update(getattr(node, "workeroutput", {}).get("searched", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["searched"] = dict(printed.searched)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if printed.searched:
        terminalreporter.write_line(
            "Searched for the key and the database's password: what {processes:,} processes "
            "printed, {characters:,} characters.".format(**printed.searched)
        )
