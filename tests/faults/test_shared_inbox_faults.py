"""The shared inbox: instances and nodes die, and every deployment has its newest status.

On a real PostgreSQL cluster: a primary and two standbys, one of which has each COMMIT.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Node
from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase
from tests.support.instances import Instance
from tests.support.load import Load, Sent, losses

pytestmark = pytest.mark.faults

DEPLOYMENTS = [f"d-{number}" for number in range(1, 3_201)]


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
    """An instance that dies may have written what it has not told the inbox: hence the column."""
    postgres_database.add_robots(DEPLOYMENTS[1:])
    instances = [start_instance(SQL_SAM_FINISHED_COLUMN="finished") for _ in range(2)]
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
