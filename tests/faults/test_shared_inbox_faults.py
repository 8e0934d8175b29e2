"""The shared inbox: instances and nodes die, and every deployment has its newest status.

On a real PostgreSQL cluster: a primary and two standbys, one of which has each COMMIT.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyodbc
import pytest

from tests.support.callbacks import body
from tests.support.cluster import Cluster, Node
from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase
from tests.support.load import Load, Sent, losses, spooled
from tests.support.service import KEY, Service

pytestmark = pytest.mark.faults

DEPLOYMENTS = [f"d-{number}" for number in range(1, 3_201)]
LATE_SECONDS = 10
"""How long an instance that goes on may still do harm; on a slow machine less of it is seen."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.destroy()


class Instance:
    """One of several instances, with a folder of its own."""

    def __init__(
        self, directory: Path, cluster: Cluster, database: PostgresDatabase, **settings: str
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._environment = {
            "CALLBACK_API_KEY": KEY,
            "SQL_SAM_CONNECTION_STRING": database.connection_string,
            "CALLBACK_INBOX_CONNECTION_STRING": cluster.connection_string,
            "CALLBACK_DB_TIMEOUT": "5",
            **settings,
        }
        self.start()

    def start(self) -> None:
        """Start it, anew or again."""
        self.directory.mkdir(exist_ok=True)
        self.service = Service(self.directory, self._environment, fresh=True)
        self.service.wait_for_event("inbox_available")

    def send(self, deployment_id: str, status: str) -> str:
        """Send a callback; return its outcome."""
        answer = self.service.post(body(deployment_id, status))
        assert answer.status_code == 200, answer.text
        outcome: str = answer.json()["outcome"]
        return outcome

    def spooled(self) -> dict[str, tuple[str, str]]:
        """What its spool holds."""
        return spooled(self.directory / "var/callback-spool.db")

    def wait_until_inbox_is_back(self) -> None:
        """Wait until the inbox answers again, after it did not."""

        def is_back() -> bool:
            events = [line["event"] for line in self.service.lines]
            events.reverse()
            return events.index("inbox_available") < events.index("inbox_unavailable")

        eventually(is_back)

    def lose(self) -> None:
        """Kill it, and delete its folder."""
        self.service.kill()
        shutil.rmtree(self.directory)


@pytest.fixture
def start_instance(
    tmp_path: Path, cluster: Cluster, postgres_database: PostgresDatabase
) -> Iterator[Callable[..., Instance]]:
    started: list[Instance] = []

    def start(**settings: str) -> Instance:
        directory = tmp_path / f"instance-{len(started)}"
        instance = Instance(directory, cluster, postgres_database, **settings)
        started.append(instance)
        return instance

    yield start
    for instance in started:
        assert instance.service.stop() == 0


def test_an_instance_and_a_standby_are_lost_in_an_outage(
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: Callable[..., Instance],
    tmp_path: Path,
) -> None:
    postgres_database.add_robots(DEPLOYMENTS[1:])
    first, second = start_instance(), start_instance()
    postgres_database.rename("robots", "away")
    with load_on(first, second, connections=32) as loads:
        for load in loads:
            load.wait_for(3_000)
        first.lose()
        cluster.standbys[0].kill()
        loads[1].wait_for(3_000)
    answered, sent = all_of(loads)
    assert len({each.deployment_id for each in answered}) >= 3_000
    postgres_database.rename("away", "robots")
    eventually(lambda: not cluster.entries())
    assert losses(answered, sent, postgres_database.statuses(), tmp_path / "none") == []


def all_of(loads: list[Load]) -> tuple[list[Sent], list[Sent]]:
    """Return what was answered, and all that was sent; nothing was refused."""
    sent = [each for load in loads for each in load.all]
    assert not [each for load in loads for each in load.refused]
    return [each for each in sent if each.outcome], sent


@contextmanager
def load_on(
    *instances: Instance, connections: int = 16, pause: float = 0.0
) -> Iterator[list[Load]]:
    """Callbacks of all deployments, to all instances at once."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Load(each.service.url, DEPLOYMENTS, connections=connections, pause=pause)
            )
            for each in instances
        ]


@pytest.mark.parametrize("database_is_up", [True, False], ids=["healthy", "outage"])
def test_the_primary_dies_under_load_and_a_standby_takes_over(
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: Callable[..., Instance],
    tmp_path: Path,
    *,
    database_is_up: bool,
) -> None:
    postgres_database.add_robots(DEPLOYMENTS[1:])
    first, second = start_instance(), start_instance()
    if not database_is_up:
        postgres_database.rename("robots", "away")
    with load_on(first, second) as loads:
        for load in loads:
            load.wait_for(1_000)
        cluster.primary.kill()
        for load in loads:
            load.wait_for(1_000)
        cluster.fail_over()
        for instance in (first, second):
            instance.wait_until_inbox_is_back()
        for load in loads:
            load.wait_for(500)
    answered, sent = all_of(loads)
    if not database_is_up:
        postgres_database.rename("away", "robots")
    eventually(lambda: not (first.spooled() or second.spooled() or cluster.entries()))
    assert losses(answered, sent, postgres_database.statuses(), tmp_path / "none") == []


def test_the_primary_dies_while_nothing_comes(
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: Callable[..., Instance],
) -> None:
    first, second = start_instance(), start_instance()
    postgres_database.rename("robots", "away")
    assert first.send("d-1", "OLD") == "queued"
    cluster.primary.kill()
    assert second.send("d-1", "NEW") == "queued"  # in its spool
    assert second.spooled() == {"d-1": ("queued", "NEW")}
    cluster.fail_over()
    eventually(lambda: not second.spooled())
    assert cluster.entries() == {"d-1": ("queued", "NEW")}
    postgres_database.rename("away", "robots")
    eventually(lambda: not cluster.entries())
    assert postgres_database.statuses()["d-1"] == "NEW"


def test_the_replaying_instance_is_stopped_in_its_transaction(
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: Callable[..., Instance],
) -> None:
    first = start_instance()
    postgres_database.add_robots(["d-2"])
    postgres_database.rename("robots", "away")
    assert first.send("d-1", "OLD") == "queued"
    # It waits for the row of d-2 in the middle of its transaction.
    postgres_database.rename("away", "robots")
    holder = pyodbc.connect(postgres_database.connection_string, autocommit=False)
    holder.execute("UPDATE robots SET status = status WHERE \"deploymentId\" IN ('d-1', 'd-2')")

    def waits() -> bool:
        return bool(
            postgres_database.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
        )

    eventually(waits)
    first.service.send_signal(signal.SIGSTOP)
    second = start_instance()
    try:
        holder.rollback()
        holder.close()
        assert second.send("d-1", "NEW") in {"queued", "updated"}
        eventually(lambda: postgres_database.statuses()["d-1"] == "NEW")
    finally:
        first.service.send_signal(signal.SIGCONT)
    eventually(lambda: not cluster.entries())
    time.sleep(LATE_SECONDS)
    assert postgres_database.statuses()["d-1"] == "NEW"
    assert first.send("d-1", "LAST") in {"queued", "updated"}
    eventually(lambda: postgres_database.statuses()["d-1"] == "LAST")


def test_clocks_a_minute_apart_do_not_change_the_order(
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: Callable[..., Instance],
) -> None:
    [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    behind = {
        "LD_PRELOAD": str(library),
        "FAKETIME": "-60s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    instances = [start_instance(), start_instance(**behind)]
    for is_up in (True, False):
        if not is_up:
            postgres_database.rename("robots", "away")
        for number in range(20):
            outcome = instances[number % 2].send("d-1", f"S{is_up}{number}")
            assert outcome == ("updated" if is_up else "queued")
            if is_up:
                assert postgres_database.statuses()["d-1"] == f"STrue{number}"
    assert cluster.entries() == {"d-1": ("queued", "SFalse19")}
    postgres_database.rename("away", "robots")
    eventually(lambda: not cluster.entries())
    assert postgres_database.statuses()["d-1"] == "SFalse19"


def test_twenty_kills_of_random_instances_and_nodes(
    cluster: Cluster,
    postgres_database: PostgresDatabase,
    start_instance: Callable[..., Instance],
    tmp_path: Path,
) -> None:
    postgres_database.add_robots(DEPLOYMENTS[1:])
    instances = [start_instance(), start_instance()]
    answered: list[Sent] = []
    sent: list[Sent] = []
    for number in range(20):
        if number % 4 == 1:
            postgres_database.rename("robots", "away")
        with load_on(*instances, pause=0.01) as loads:
            for load in loads:
                load.wait_for(1)
            time.sleep(random.uniform(0.0, 0.6))  # noqa: S311 - the random moment itself
            victims: list[Instance | Node] = [*instances, *cluster.standbys, cluster.primary]
            victim = random.choice(victims)  # noqa: S311
            if isinstance(victim, Instance):
                victim.service.kill()
                victim.start()
            elif victim is cluster.primary:
                victim.kill()
                time.sleep(random.uniform(0.0, 2.0))  # noqa: S311
                victim.restart_after_kill()
            else:
                victim.kill()
                victim.restart_after_kill()
            cluster.wait_for_standbys(2)
        more_answered, more_sent = all_of(loads)
        answered += more_answered
        sent += more_sent
        if number % 4 == 3:
            postgres_database.rename("away", "robots")
    eventually(lambda: not (instances[0].spooled() or instances[1].spooled() or cluster.entries()))
    assert losses(answered, sent, postgres_database.statuses(), tmp_path / "none") == []
