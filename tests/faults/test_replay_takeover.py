"""An instance falls silent in a transaction: others go on, and nothing is reversed."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Final

import pyodbc
import pytest

from tests.support.cluster import DATABASE, LOOPBACK, Cluster
from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase, PostgresServer
from tests.support.instances import Instance
from tests.support.networks import Network, can_make_networks

pytestmark = pytest.mark.faults

SILENT_SECONDS: Final = 30

LATE_SECONDS: Final = 5
"""How long an instance that goes on may still do harm; on a slow machine less of it is seen."""

StartInstance = Callable[..., Instance]

PARTITIONED: Final = pytest.param(
    "partitioned",
    marks=pytest.mark.skipif(
        not can_make_networks(), reason="a network namespace needs Linux, root and `ip`"
    ),
)
either_way = pytest.mark.parametrize("network", ["stopped", PARTITIONED], indirect=True)


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[Network | None]:
    """A network of its own for the instance that is partitioned; none for one that is stopped."""
    if getattr(request, "param", "stopped") == "stopped":
        yield None
        return
    with Network() as network:
        yield network


@pytest.fixture
def cluster(network: Network | None) -> Iterator[Cluster]:
    cluster = Cluster(network.addresses if network else LOOPBACK)
    yield cluster
    cluster.destroy()


@pytest.fixture
def postgres_database(network: Network | None) -> Iterator[PostgresDatabase]:
    server = PostgresServer(host=network.addresses[-1] if network else "127.0.0.1")
    database = server.create_database()
    database.add_robots(["d-1"])
    yield database
    server.destroy()


@contextmanager
def silence(instance: Instance, network: Network | None) -> Iterator[None]:
    """Stop it, or cut it off."""
    if network:
        network.cut()
    else:
        instance.service.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if network:
            network.mend()
        else:
            instance.service.send_signal(signal.SIGCONT)


def wait_until_it_waits(instance: Instance, connection: pyodbc.Connection) -> None:
    """Wait until a transaction of the instance waits for a lock."""

    def waits() -> bool:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND application_name = ?",
            instance.directory.name,
        )
        return bool(found.fetchval())

    eventually(waits)


@either_way
def test_another_replays_while_it_is_silent(
    network: Network | None,
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: StartInstance,
    record_property: Callable[[str, object], None],
) -> None:
    silent, other = start_instance(network=network), start_instance()
    with closing(pyodbc.connect(postgres_database.connection_string)) as holder:
        holder.execute("UPDATE robots SET status = status")
        assert silent.send("d-1", "OLD") == "queued"
        wait_until_it_waits(silent, holder)
        begun = time.monotonic()
        with silence(silent, network):
            holder.rollback()  # the UPDATE succeeds, and all that is left is the COMMIT
            assert other.send("d-1", "NEW") == "queued"
            eventually(lambda: postgres_database.statuses()["d-1"] == "NEW")
            seconds = time.monotonic() - begun
            record_property("seconds to takeover", seconds)
            time.sleep(max(0.0, SILENT_SECONDS - seconds))
    eventually(lambda: not cluster.entries())
    time.sleep(LATE_SECONDS)
    assert postgres_database.statuses()["d-1"] == "NEW"
    assert silent.send("d-1", "LAST") in {"queued", "updated"}
    eventually(lambda: postgres_database.statuses()["d-1"] == "LAST")


@pytest.mark.parametrize("network", [PARTITIONED], indirect=True)
def test_what_it_took_meanwhile_is_ordered_by_the_time_of_reception(
    network: Network,
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: StartInstance,
) -> None:
    times = {"SQL_SAM_FINISHED_COLUMN": "finished"}
    silent, other = start_instance(network=network, **times), start_instance(**times)
    with silence(silent, network):
        assert silent.send("d-1", "OLD") == "queued"
        assert silent.spooled() == {"d-1": ("queued", "OLD")}
        assert other.send("d-1", "NEW") == "updated"
    eventually(lambda: not (silent.spooled() or cluster.entries()))
    assert postgres_database.statuses()["d-1"] == "NEW"


@either_way
@pytest.mark.parametrize("where", ["database", "inbox"])
def test_the_rows_of_its_transaction_are_free_again(
    where: str,
    network: Network | None,
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: StartInstance,
) -> None:
    patient = {"CALLBACK_INBOX_TIMEOUT": "20"}  # it waits for a lock for a quarter of that
    silent, other = start_instance(network=network, **patient), start_instance(**patient)
    if where == "inbox":
        postgres_database.rename("robots", "away")
        assert silent.send("d-1", "FIRST") == "queued"
        holder = cluster.primary.connect(DATABASE)
        holder.autocommit = False
        holder.execute("UPDATE sam_callback_inbox SET line = line")
    else:
        holder = pyodbc.connect(postgres_database.connection_string)
        holder.execute("UPDATE robots SET status = status")
    with closing(holder), ThreadPoolExecutor() as senders:
        sending = senders.submit(silent.send, "d-1", "OLD")
        wait_until_it_waits(silent, holder)
        with silence(silent, network):
            holder.rollback()
            assert other.send("d-1", "NEW") in {"queued", "updated"}
            if where == "inbox":
                eventually(lambda: cluster.entries() == {"d-1": ("queued", "NEW")})
            else:
                eventually(lambda: postgres_database.statuses()["d-1"] == "NEW")
        assert sending.result() in {"queued", "updated"}
