"""A healthy database with a slow COMMIT gets its callbacks: they do not go into the spool.

On real databases: PostgreSQL with a trigger that sleeps at the COMMIT, SQLite with a slow fsync.
What share of them at which rate is measured by ``python -m tests.benchmarks.slow_commits``.
"""

import json
from collections.abc import Callable

import pytest

from tests.support.databases import Database
from tests.support.service import KEY, Service, run_to_its_end
from tests.support.slow_commits import slow_commits

pytestmark = pytest.mark.faults

COUNT = 200
COMMIT_SECONDS = 5.0
TIME_LIMIT = 60
"""Seconds. There is time for twelve COMMITs on one connection; four are needed, if the first batch,
which has one callback, is not taken for what all batches with one can do."""


def test_callbacks_that_come_at_once_are_updated(
    database: Database, start_service: Callable[..., Service]
) -> None:
    robots = [f"r-{number}" for number in range(COUNT)]
    database.add_robots(robots)
    service = start_service(
        SQL_SAM_CONNECTION_STRING=database.connection_string,
        CALLBACK_DB_TIMEOUT=str(TIME_LIMIT),
        SQL_SAM_POOL_MAX="1",
    )
    service.wait_for_event("database_up")
    (service.directory / "robots.txt").write_text("\n".join(robots))
    with slow_commits(database, service.pid, COMMIT_SECONDS):
        run = run_to_its_end(
            service.directory,
            {"CALLBACK_API_KEY": KEY},
            *("simulate", "--json", "--url", service.url, "--timeout", "2 min"),
            *("--deployments", "robots.txt", "--connections", str(COUNT)),
        )
    assert json.loads(run.stdout)["outcomes"] == {"updated": COUNT}
    assert "database_down" not in {line["event"] for line in service.lines}
