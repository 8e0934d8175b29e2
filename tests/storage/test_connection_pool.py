"""Dead, hung or abandoned connections cost one call each, never the pool."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import aioodbc
import pyodbc
import pytest

from sam.callback.settings import Settings
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import (
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    NoConnectionError,
)
from tests.support import repositories
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.proxy import Proxy, proxy_to
from tests.support.repositories import backend_pid

UPDATE = 'UPDATE robots SET status = ? WHERE "deploymentId" = ?'
OpenConnector = Callable[..., AbstractAsyncContextManager[DatabaseConnector]]


@pytest.fixture
def proxy(postgres_database: PostgresDatabase) -> Iterator[Proxy]:
    with proxy_to(postgres_database.server.port) as proxy:
        yield proxy


@pytest.fixture
def open_connector(
    postgres_database: PostgresDatabase, proxy: Proxy, settings_for: Callable[..., Settings]
) -> OpenConnector:
    def open_it(**overrides: object) -> AbstractAsyncContextManager[DatabaseConnector]:
        through_proxy = postgres_database.server.connection_string(
            postgres_database.name, port=proxy.port
        )
        settings = settings_for(
            postgres_database, sql_sam_connection_string=through_proxy, **overrides
        )
        return repositories.open_connector(settings)

    return open_it


def set_status(status: str) -> Callable[[DatabaseConnection], int]:
    def work(connection: DatabaseConnection) -> int:
        count: int = connection.cursor.execute(UPDATE, status, "d-1").rowcount
        connection.commit()
        return count

    return work


async def test_a_connection_keeps_the_very_texts_of_its_statements(
    open_connector: OpenConnector,
) -> None:
    """Another object would be prepared anew by pyodbc, be it equal."""
    async with open_connector(sql_sam_pool_max=1) as connector:
        first, second = [
            await connector.run(
                lambda connection: connection.statements.update.text, timeout=LIMIT_SECONDS
            )
            for _ in range(2)
        ]
    assert first is second


async def test_no_more_connections_than_the_pool_may_have(open_connector: OpenConnector) -> None:
    async with open_connector(sql_sam_pool_max=2) as connector:
        backends = await asyncio.gather(
            *(connector.run(backend_pid, timeout=LIMIT_SECONDS) for _ in range(30))
        )
    assert 1 <= len(set(backends)) <= 2


async def test_connections_that_died_while_idle_cost_no_call(
    open_connector: OpenConnector, postgres_database: PostgresDatabase
) -> None:
    async with open_connector() as connector:
        before = set(
            await asyncio.gather(
                *(connector.run(backend_pid, timeout=LIMIT_SECONDS) for _ in range(20))
            )
        )
        for pid in before:
            postgres_database.execute("SELECT pg_terminate_backend(?)", pid)
        assert await connector.run(set_status("AFTER"), timeout=LIMIT_SECONDS) == 1
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS) not in before
    assert postgres_database.statuses() == {"d-1": "AFTER"}


async def test_a_server_that_comes_back_is_used_again(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    async with open_connector() as connector:
        await connector.run(set_status("BEFORE"), timeout=LIMIT_SECONDS)
        proxy.refuse()
        for _ in range(10):
            with pytest.raises(DatabaseUnavailableError):
                await connector.run(set_status("DURING"), timeout=LIMIT_SECONDS)
        proxy.accept()
        assert await connector.run(set_status("AFTER"), timeout=LIMIT_SECONDS) == 1


async def test_silence_costs_its_time_limit_and_no_more(
    open_connector: OpenConnector, proxy: Proxy, postgres_database: PostgresDatabase
) -> None:
    async with open_connector(sql_sam_pool_max=2) as connector:
        await connector.run(set_status("BEFORE"), timeout=LIMIT_SECONDS)
        proxy.fall_silent()
        for _ in range(3):
            with pytest.raises(DatabaseTimeoutError):
                await connector.run(set_status("DURING"), timeout=0.2)
        proxy.speak()
        assert await connector.run(set_status("AFTER"), timeout=LIMIT_SECONDS) == 1
    assert postgres_database.statuses() == {"d-1": "AFTER"}


async def test_a_thread_that_comes_back_late_commits_nothing(
    open_connector: OpenConnector, postgres_database: PostgresDatabase
) -> None:
    begun, may_go_on, came_back = threading.Event(), threading.Event(), threading.Event()
    late: list[str] = []

    def slow(connection: DatabaseConnection) -> None:
        connection.cursor.execute("SELECT 1")
        begun.set()
        may_go_on.wait(LIMIT_SECONDS)
        try:
            connection.cursor.execute(UPDATE, "LATE", "d-1")
            connection.commit()
        except Exception as error:
            late.append(type(error).__name__)
            raise
        finally:
            came_back.set()

    async with open_connector() as connector:
        while not begun.is_set():  # else it was connecting that took too long
            with pytest.raises(DatabaseTimeoutError):
                await connector.run(slow, timeout=0.1)
        assert await connector.run(set_status("NEWER"), timeout=LIMIT_SECONDS) == 1
        may_go_on.set()
        await asyncio.to_thread(came_back.wait, LIMIT_SECONDS)
        # The row's lock is free again: the late thread has rolled back.
        assert await connector.run(set_status("NEWEST"), timeout=LIMIT_SECONDS) == 1
    assert set(late) == {"AbandonedError"}
    assert postgres_database.statuses() == {"d-1": "NEWEST"}


async def test_the_connection_of_a_cancelled_call_is_not_handed_on(
    open_connector: OpenConnector,
) -> None:
    started, may_go_on = threading.Event(), threading.Event()
    busy_with: list[int] = []

    def slow(connection: DatabaseConnection) -> None:
        busy_with.append(backend_pid(connection))
        started.set()
        may_go_on.wait(LIMIT_SECONDS)

    async with open_connector(sql_sam_pool_max=1) as connector:
        call = asyncio.create_task(connector.run(slow, timeout=LIMIT_SECONDS))
        await asyncio.to_thread(started.wait, LIMIT_SECONDS)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS) not in busy_with
        may_go_on.set()


async def test_an_open_transaction_is_not_committed_by_the_next_user(
    open_connector: OpenConnector, postgres_database: PostgresDatabase
) -> None:
    def forget_to_commit(connection: DatabaseConnection) -> None:
        connection.cursor.execute(UPDATE, "FORGOTTEN", "d-1")

    def fail(connection: DatabaseConnection) -> None:
        connection.cursor.execute(UPDATE, "FAILED", "d-1")
        raise LookupError

    async with open_connector(sql_sam_pool_max=1) as connector:
        await connector.run(forget_to_commit, timeout=LIMIT_SECONDS)
        await connector.run(lambda connection: connection.commit(), timeout=LIMIT_SECONDS)
        assert postgres_database.statuses() == {"d-1": "RUNNING"}
        with pytest.raises(LookupError):
            await connector.run(fail, timeout=LIMIT_SECONDS)
        await connector.run(lambda connection: connection.commit(), timeout=LIMIT_SECONDS)
    assert postgres_database.statuses() == {"d-1": "RUNNING"}


async def test_when_all_are_busy_the_wait_is_bounded(open_connector: OpenConnector) -> None:
    may_go_on = threading.Event()
    async with open_connector(sql_sam_pool_max=1) as connector:
        await connector.run(backend_pid, timeout=LIMIT_SECONDS)
        busy = asyncio.create_task(
            connector.run(lambda _connection: may_go_on.wait(LIMIT_SECONDS), timeout=LIMIT_SECONDS)
        )
        await asyncio.sleep(0)
        with pytest.raises(NoConnectionError, match="busy for too long"):
            await connector.run(backend_pid, timeout=0.1)
        may_go_on.set()
        await busy
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS)


async def test_threads_that_are_stuck_are_bounded_and_do_not_hold_the_close(
    open_connector: OpenConnector, proxy: Proxy
) -> None:
    before = threading.active_count()
    async with open_connector(sql_sam_pool_max=2) as connector:
        proxy.fall_silent()
        for _ in range(10):
            with pytest.raises(DatabaseTimeoutError):
                await connector.run(backend_pid, timeout=0.05)
        assert threading.active_count() - before <= 4
    assert proxy.is_silent  # none of them has come back


async def test_closing_twice_or_before_opening_is_no_mistake(
    sqlite_database: SqliteDatabase, settings_for: Callable[..., Settings]
) -> None:
    connector = DatabaseConnector(ConnectionSettings.of_sam(settings_for(sqlite_database)))
    await connector.close()
    await connector.open()
    await connector.close()
    await connector.close()
    with pytest.raises(DatabaseUnavailableError, match="not open"):
        await connector.run(lambda connection: connection.commit(), timeout=1)


async def test_aioodbc_keeps_its_connection_where_the_connector_takes_it_out(
    sqlite_database: SqliteDatabase,
) -> None:
    dsn = sqlite_database.connection_string
    async with aioodbc.create_pool(dsn=dsn, minsize=0, maxsize=1) as pool:
        connection = await pool.acquire()
        raw = connection._conn  # noqa: SLF001 - what this test is about
        assert isinstance(raw, pyodbc.Connection)
        assert not connection.closed
        assert (pool.size, pool.maxsize) == (1, 1)
        connection._conn = None  # noqa: SLF001
        assert connection.closed
        await pool.release(connection)
        assert (pool.size, pool.freesize) == (0, 0)
        raw.execute("SELECT 1").close()  # it is still open
        raw.close()


def fail_for_good(_connection: DatabaseConnection) -> None:
    raise LookupError


def fail_as_the_database(connection: DatabaseConnection) -> None:
    connection.cursor.execute("SELECT nothing FROM nowhere")


def lose_the_connection(connection: DatabaseConnection) -> None:
    connection.cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize("end", [fail_for_good, fail_as_the_database, lose_the_connection])
async def test_a_cursor_is_closed_before_its_connection(
    end: Callable[[DatabaseConnection], None], open_connector: OpenConnector
) -> None:
    """Else it is freed by whatever collects garbage, on another thread, at any moment."""
    used: list[pyodbc.Cursor] = []

    def work(connection: DatabaseConnection) -> None:
        used.append(connection.cursor)
        end(connection)

    async with open_connector(sql_sam_pool_max=1) as connector:
        with pytest.raises((DatabaseUnavailableError, LookupError)):
            await connector.run(work, timeout=LIMIT_SECONDS)
        assert used
        assert all(map(_is_closed, used))
        assert await connector.run(backend_pid, timeout=LIMIT_SECONDS)


async def test_a_cursor_that_was_given_up_is_closed_on_its_own_thread(
    open_connector: OpenConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[pyodbc.Cursor, threading.Thread]] = []
    closed_on: list[threading.Thread] = []
    begun, may_go_on, closed = threading.Event(), threading.Event(), threading.Event()
    close = DatabaseConnection.close

    def notice(connection: DatabaseConnection) -> None:
        close(connection)
        closed_on.append(threading.current_thread())
        closed.set()

    def slow(connection: DatabaseConnection) -> None:
        used.append((connection.cursor, threading.current_thread()))
        begun.set()
        may_go_on.wait(LIMIT_SECONDS)
        raise LookupError

    monkeypatch.setattr(DatabaseConnection, "close", notice)
    async with open_connector(sql_sam_pool_max=1) as connector:
        call = asyncio.create_task(connector.run(slow, timeout=LIMIT_SECONDS))
        await asyncio.to_thread(begun.wait, LIMIT_SECONDS)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not closed_on  # its thread has it still
        may_go_on.set()
        await asyncio.to_thread(closed.wait, LIMIT_SECONDS)
    [(cursor, thread)] = used
    assert closed_on[0] is thread
    assert _is_closed(cursor)


async def test_closing_closes_cursors_first(open_connector: OpenConnector) -> None:
    used: list[pyodbc.Cursor] = []
    async with open_connector(sql_sam_pool_max=1) as connector:
        await connector.run(
            lambda connection: used.append(connection.cursor), timeout=LIMIT_SECONDS
        )
    assert _is_closed(used[0])


def _is_closed(cursor: pyodbc.Cursor) -> bool:
    """Whether the cursor itself is closed, not only its connection."""
    try:
        cursor.execute("SELECT 1")
    except pyodbc.ProgrammingError as error:
        return "closed cursor" in str(error)
    return False
