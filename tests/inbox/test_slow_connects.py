"""A slow connection attempt outlives its callback, and serves a later one.

The server is a real PostgreSQL behind a proxy that admits connections when it is told to.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from sam.callback.settings import Settings
from sam.callback.storage import pool
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import (
    ConnectionLostError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    NoConnectionError,
)
from tests.support import repositories
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, becomes_true, eventually
from tests.support.databases import PostgresDatabase
from tests.support.proxy import Proxy, proxy_to
from tests.support.repositories import backend_pid
from tests.support.service import Service

Failures = list[DatabaseUnavailableError]
OpenConnector = Callable[..., AbstractAsyncContextManager[DatabaseConnector]]


@pytest.fixture
def proxy(postgres_database: PostgresDatabase) -> Iterator[Proxy]:
    with proxy_to(postgres_database.server.port) as proxy:
        yield proxy


@pytest.fixture
def address(postgres_database: PostgresDatabase, proxy: Proxy) -> str:
    return postgres_database.server.connection_string(postgres_database.name, port=proxy.port)


@pytest.fixture
def failures() -> Failures:
    """The failed connection attempts that the connector has reported."""
    return []


@pytest.fixture
def open_connector(
    postgres_database: PostgresDatabase,
    address: str,
    failures: Failures,
    settings_for: Callable[..., Settings],
) -> OpenConnector:
    def open_it(**overrides: object) -> AbstractAsyncContextManager[DatabaseConnector]:
        values = {"sql_sam_login_timeout": LIMIT_SECONDS, **overrides}
        settings = settings_for(postgres_database, sql_sam_connection_string=address, **values)
        return repositories.open_connector(settings, lambda error, _: failures.append(error))

    return open_it


async def test_it_goes_on_being_made_and_serves_the_next(
    open_connector: OpenConnector, proxy: Proxy, failures: Failures
) -> None:
    proxy.admit(0)
    async with open_connector(sql_sam_pool_max=1) as connector:
        for _ in range(3):
            with pytest.raises(NoConnectionError, match="still being made"):
                await connector.run(backend_pid, timeout=0.1)
        proxy.admit(1)
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        assert proxy.connections == 1
    assert failures == []


async def test_the_pool_is_filled_one_at_a_time_ahead_of_need(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    async with open_connector(sql_sam_pool_max=3):
        for number in (1, 2, 3):
            proxy.admit(number - 1)
            await becomes_true(lambda: proxy.connections >= number)  # noqa: B023 - waited for here
            assert proxy.connections == number
            proxy.admit(number)


async def test_a_connection_that_is_there_serves_all_while_another_is_made(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    proxy.admit(1)
    async with open_connector(sql_sam_pool_max=2) as connector:
        first = await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        await becomes_true(lambda: proxy.connections == 2)
        calls = (connector.run(backend_pid, timeout=LIMIT_SECONDS) for _ in range(20))
        assert set(await asyncio.gather(*calls)) == {first}


async def test_a_waiting_call_takes_the_first_connection_that_comes_back(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    proxy.admit(1)
    may_go_on = threading.Event()

    def slow(connection: DatabaseConnection) -> int:
        may_go_on.wait(LIMIT_SECONDS)
        return backend_pid(connection)

    async with open_connector(sql_sam_pool_max=2) as connector:
        await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        await becomes_true(lambda: proxy.connections == 2)
        one = asyncio.create_task(connector.run(slow, timeout=LIMIT_SECONDS))
        await becomes_true(lambda: connector.stats().in_use == 2)  # at work, and being made
        other = asyncio.create_task(connector.run(backend_pid, timeout=LIMIT_SECONDS))
        await becomes_true(lambda: connector.stats().waiting == 1)
        may_go_on.set()
        assert await one == await other


async def test_a_failed_attempt_is_raised_in_the_waiting_call(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    proxy.admit(0)
    async with open_connector() as connector:
        call = asyncio.create_task(connector.run(backend_pid, timeout=LIMIT_SECONDS))
        await becomes_true(lambda: proxy.connections == 1 and connector.stats().waiting == 1)
        proxy.refuse()
        with pytest.raises(ConnectionLostError):
            await call


async def test_a_failed_attempt_without_a_waiting_call_is_reported(
    open_connector: OpenConnector, proxy: Proxy, failures: Failures
) -> None:
    proxy.admit(0)
    async with open_connector() as connector:
        with pytest.raises(NoConnectionError, match="still being made"):
            await connector.run(backend_pid, timeout=0.1)
        proxy.refuse()
        await becomes_true(lambda: failures != [])
        assert isinstance(failures[0], ConnectionLostError)
        proxy.accept()
        proxy.admit(100)
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS)


async def test_a_server_that_says_nothing_is_told_when_the_time_to_log_in_is_up(
    open_connector: OpenConnector, proxy: Proxy, failures: Failures
) -> None:
    proxy.admit(0)
    async with open_connector(sql_sam_login_timeout=1):
        await becomes_true(lambda: failures != [])
    assert isinstance(failures[0], ConnectionLostError | DatabaseTimeoutError)


async def test_all_busy_is_not_still_connecting(open_connector: OpenConnector) -> None:
    may_go_on = threading.Event()
    async with open_connector(sql_sam_pool_max=1) as connector:
        await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        busy = asyncio.create_task(
            connector.run(lambda _: may_go_on.wait(LIMIT_SECONDS), timeout=LIMIT_SECONDS)
        )
        await becomes_true(lambda: connector.stats().in_use == 1)
        with pytest.raises(NoConnectionError, match="busy for too long"):
            await connector.run(backend_pid, timeout=0.1)
        may_go_on.set()
        await busy


async def test_a_connection_that_was_given_up_comes_back(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    """Its thread has rolled back, and it is as good as before."""
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(connection: DatabaseConnection) -> None:
        begun.set()
        may_go_on.wait(LIMIT_SECONDS)
        connection.commit()

    proxy.admit(1)
    async with open_connector(sql_sam_pool_max=1) as connector:
        first = await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        given_up = asyncio.create_task(connector.run(slow, timeout=LIMIT_SECONDS))
        await asyncio.to_thread(begun.wait, LIMIT_SECONDS)
        given_up.cancel()
        call = asyncio.create_task(connector.run(backend_pid, timeout=LIMIT_SECONDS))
        await becomes_true(lambda: proxy.connections == 2)  # it is not needed
        may_go_on.set()
        assert await call == first


async def test_idle_connections_are_renewed_before_a_firewall_forgets_them(
    open_connector: OpenConnector, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(pool, "TICK_SECONDS", 0.01)
    async with open_connector(sql_sam_pool_max=1) as connector:
        first = await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        await becomes_true(lambda: proxy.connections >= 3)
        proxy.admit(proxy.connections)  # while another is made, the one that is there is used
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS) != first


def test_slow_connects_are_no_outage(
    proxy: Proxy,
    address: str,
    postgres_database: PostgresDatabase,
    start_service: Callable[..., Service],
) -> None:
    proxy.admit(0)
    service = start_service(
        SQL_SAM_CONNECTION_STRING=address, SQL_SAM_LOGIN_TIMEOUT="60", CALLBACK_DB_TIMEOUT="0.2"
    )
    answer = service.post(body("d-1", "FIRST"))
    assert answer.json()["outcome"] == "queued"
    line = service.wait_for_event("callback")
    assert "still being made" in line["reason"]
    proxy.admit(4)
    eventually(lambda: postgres_database.statuses() == {"d-1": "FIRST"})
    eventually(lambda: proxy.connections == 4)  # and the pool is full
    assert service.stop() == 0
    assert [line["event"] for line in service.lines if line["level"] == "critical"] == []


def test_a_connection_too_many_is_no_outage(
    postgres_database: PostgresDatabase, start_service: Callable[..., Service]
) -> None:
    user = f"limited_{postgres_database.name}"
    postgres_database.execute(f"CREATE ROLE {user} LOGIN CONNECTION LIMIT 1")
    postgres_database.execute(f"GRANT SELECT, UPDATE ON robots TO {user}")
    service = start_service(
        SQL_SAM_CONNECTION_STRING=postgres_database.server.connection_string(
            postgres_database.name, user=user
        )
    )
    line = service.wait_for_event("pool_not_filled")
    assert (line["level"], line["connections"]) == ("warning", 1)
    assert "too many connections" in line["reason"]
    for number in range(20):
        assert service.post(body("d-1", f"S{number}")).json()["outcome"] == "updated"
    assert service.stop() == 0
    events = [line["event"] for line in service.lines]
    assert events.count("pool_not_filled") == 1
    assert "database_down" not in events
