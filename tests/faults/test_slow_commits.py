"""A healthy database with a slow COMMIT gets its callbacks: they do not go into the spool.

On real databases: PostgreSQL with a trigger that sleeps at the COMMIT, SQLite with a slow fsync.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.service import KEY, Service, clean_environment
from tests.support.slow_commits import make_commits_slow, slow_fsync

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

RATE = 60
SECONDS = 12
ROBOTS = [f"r-{number}" for number in range(RATE * SECONDS)]
TIME_LIMIT = 4
"""Seconds, twice the default: on a busy machine a COMMIT of 1 s takes longer."""


@contextmanager
def slow_database(database: Database, service: Service, seconds: float) -> Iterator[None]:
    if isinstance(database, PostgresDatabase):
        make_commits_slow(database, seconds=seconds)
        yield
        return
    assert isinstance(database, SqliteDatabase)
    with slow_fsync(service.pid, Path(f"{database.path}-wal"), seconds):
        yield


def simulate(service: Service, *options: str) -> dict[str, Any]:
    """Send callbacks at a rate, each for a robot of its own; return the summary."""
    robots = service.directory / "robots.txt"
    robots.write_text("\n".join(ROBOTS))
    command = [sys.executable, "-m", "sam.callback", "simulate", "--url", service.url]
    done = subprocess.run(
        [*command, "--json", "--deployments", str(robots), "--connections", "500", *options],
        cwd=service.directory,
        env=clean_environment(CALLBACK_API_KEY=KEY, PYTHONPATH=str(Path(__file__).parents[2])),
        capture_output=True,
        text=True,
        check=True,
    )
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.6, 1.0])
def test_60_callbacks_a_second_are_updated(
    seconds: float, database: Database, start_service: Callable[..., Service]
) -> None:
    database.add_robots(ROBOTS)
    service = start_service(
        SQL_SAM_CONNECTION_STRING=database.connection_string, CALLBACK_DB_TIMEOUT=str(TIME_LIMIT)
    )
    service.wait_for_event("database_up")
    with slow_database(database, service, seconds):
        summary = simulate(service, "--rate", str(RATE), "--duration", str(SECONDS))
    outcomes = summary["outcomes"]
    assert sum(outcomes.values()) == len(ROBOTS)
    assert outcomes["updated"] >= 0.97 * len(ROBOTS), summary
    assert "database_down" not in {line["event"] for line in service.lines}
