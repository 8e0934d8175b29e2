"""Network faults under load: nothing is refused, nothing is lost, the newest wins."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase, PostgresServer
from tests.support.load import Load, losses, spooled
from tests.support.proxy import Proxy, proxy_to
from tests.support.service import Service

pytestmark = pytest.mark.faults

DEPLOYMENTS = [f"d-{number}" for number in range(1, 31)]


@pytest.fixture
def database(postgres_server: PostgresServer) -> PostgresDatabase:
    database = postgres_server.create_database()
    database.add_robots(DEPLOYMENTS)
    return database


@pytest.fixture
def proxy(database: PostgresDatabase) -> Iterator[Proxy]:
    with proxy_to(database.server.port) as proxy:
        yield proxy


@pytest.fixture
def service(
    proxy: Proxy, database: PostgresDatabase, start_service: Callable[..., Service]
) -> Service:
    return start_service(
        SQL_SAM_CONNECTION_STRING=database.server.connection_string(database.name, port=proxy.port),
        CALLBACK_DB_TIMEOUT="1 s",
    )


def refused(proxy: Proxy, load: Load) -> None:
    proxy.refuse()
    load.wait_for(300)
    proxy.accept()


def silent_then_late(proxy: Proxy, load: Load) -> None:
    proxy.fall_silent()
    load.wait_for(300)
    proxy.speak()  # and what was held back arrives


def silent_then_lost(proxy: Proxy, load: Load) -> None:
    proxy.fall_silent()
    load.wait_for(300)
    proxy.cut()
    proxy.speak()


def silent_before_a_commit(proxy: Proxy, load: Load) -> None:
    proxy.fall_silent_on(b"COMMIT", after_it=False)
    eventually(lambda: proxy.is_silent)
    load.wait_for(300)
    proxy.speak()


def silent_during_a_commit(proxy: Proxy, load: Load) -> None:
    proxy.fall_silent_on(b"COMMIT", after_it=True)
    eventually(lambda: proxy.is_silent)
    load.wait_for(300)
    proxy.speak()


def commit_sent_and_connection_cut(proxy: Proxy, _load: Load) -> None:
    proxy.fall_silent_on(b"COMMIT", after_it=True)
    eventually(lambda: proxy.is_silent)
    proxy.cut()
    proxy.speak()


def silent_before_an_update(proxy: Proxy, load: Load) -> None:
    # By the deployment's id: the text of the statement, prepared, goes over once.
    proxy.fall_silent_on(b"d-", after_it=False)
    eventually(lambda: proxy.is_silent)
    load.wait_for(300)
    proxy.speak()


def cut_again_and_again(proxy: Proxy, load: Load) -> None:
    for _ in range(20):
        load.wait_for(20)
        proxy.cut()


@pytest.mark.parametrize(
    "fault",
    [
        refused,
        silent_then_late,
        silent_then_lost,
        silent_before_a_commit,
        silent_during_a_commit,
        commit_sent_and_connection_cut,
        silent_before_an_update,
        cut_again_and_again,
    ],
)
def test_nothing_is_refused_and_nothing_lost(
    fault: Callable[[Proxy, Load], None],
    proxy: Proxy,
    service: Service,
    database: PostgresDatabase,
) -> None:
    spool = service.directory / "var/callback-spool.db"
    with Load(service.url, DEPLOYMENTS, connections=16, pause=0.002) as load:
        for _ in range(3):
            load.wait_for(100)
            fault(proxy, load)
            load.wait_for(100)
    eventually(lambda: spooled(spool) == {})
    assert not load.refused
    assert losses(load.answered, load.all, database.statuses(), spool) == []


def test_silence_of_30_s(proxy: Proxy, service: Service, database: PostgresDatabase) -> None:
    spool = service.directory / "var/callback-spool.db"
    with Load(service.url, DEPLOYMENTS, connections=64, pause=0.2) as load:
        load.wait_for(200)
        proxy.fall_silent()
        silent_since = time.monotonic()
        eventually(lambda: time.monotonic() - silent_since > 30)
        load.wait_for(200)
        proxy.speak()
        load.wait_for(200)
    eventually(lambda: spooled(spool) == {})
    assert not load.refused
    assert losses(load.answered, load.all, database.statuses(), spool) == []
