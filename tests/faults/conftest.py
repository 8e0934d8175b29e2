"""A replicated database, and the instances that share an inbox in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.databases import PostgresDatabase
from tests.support.instances import Instance
from tests.support.networks import Network


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.destroy()


@pytest.fixture
def start_instance(
    tmp_path: Path, cluster: Cluster, postgres_database: PostgresDatabase
) -> Iterator[Callable[..., Instance]]:
    """Starts instances, which end cleanly with the test."""
    started: list[Instance] = []

    def start(
        inbox: str = cluster.connection_string, network: Network | None = None, **settings: str
    ) -> Instance:
        directory = tmp_path / f"instance-{len(started)}"
        sam = postgres_database.connection_string
        instance = Instance(directory, sam, inbox, network=network, **settings)
        started.append(instance)
        return instance

    yield start
    for instance in started:
        assert instance.service.stop() == 0
