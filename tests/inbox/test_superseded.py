"""A callback is `superseded`, and not written, if its row has the status of a later one."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.load import spooled
from tests.support.prometheus import scrape
from tests.support.service import Service

StartService = Callable[..., Service]
FUTURE = "2126-01-01 00:00:00.000000"


def rename(database: Database, table: str, to: str) -> None:
    if isinstance(database, SqliteDatabase):
        database.execute(f"ALTER TABLE {table} RENAME TO {to}")
    else:
        assert isinstance(database, PostgresDatabase)
        database.rename(table, to)


@pytest.fixture
def service_with_times(start_service: StartService, database: Database) -> Service:
    """A service on a table that has a column for the time of reception."""
    return start_service(
        SQL_SAM_CONNECTION_STRING=database.connection_string,
        SQL_SAM_FINISHED_COLUMN="finished",
    )


def test_a_row_with_a_later_time_is_not_updated_and_not_said_to_be(
    service_with_times: Service, database: Database
) -> None:
    service = service_with_times
    assert service.post(body("d-1", "FIRST")).json()["outcome"] == "updated"
    database.execute(f"UPDATE robots SET finished = '{FUTURE}'")
    assert service.post(body("d-1", "SECOND")).json()["outcome"] == "superseded"
    assert database.statuses() == {"d-1": "FIRST"}

    line = service.wait_for_line(lambda line: line.get("status") == "SECOND")
    assert (line["event"], line["level"], line["outcome"]) == ("callback", "warning", "superseded")
    assert "finished column" in line["reason"]
    seen = scrape(service)
    assert seen.value("callbacks_total", outcome="superseded") == 1
    assert seen.value("callbacks_total", outcome="updated") == 1
    assert seen.value("no_row_matches") == 0


def test_an_entry_of_the_spool_is_superseded_too(
    service_with_times: Service, database: Database
) -> None:
    service = service_with_times
    service.wait_for_event("database_up")
    rename(database, "robots", "away")
    assert service.post(body("d-1", "QUEUED")).json()["outcome"] == "queued"
    database.execute(f"UPDATE away SET finished = '{FUTURE}'")
    rename(database, "away", "robots")

    line = service.wait_for_event("superseded")
    assert (line["level"], line["deployment_id"], line["status"]) == ("warning", "d-1", "QUEUED")
    spool = service.directory / "var/callback-spool.db"
    eventually(lambda: spooled(spool) == {})
    assert database.statuses() == {"d-1": "RUNNING"}
    assert scrape(service).value("replay_attempts_total", result="superseded") == 1
    assert scrape(service).value("replay_attempts_total", result="applied") == 0


@contextmanager
def write_lock(database: SqliteDatabase) -> Iterator[None]:
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def test_of_callbacks_that_go_together_the_others_are_superseded(
    start_service: StartService, tmp_path: Path
) -> None:
    database = SqliteDatabase(tmp_path / "sam.db")
    database.add_robots(["d-1"])
    service = start_service(SQL_SAM_CONNECTION_STRING=database.connection_string)
    service.wait_for_event("database_up")

    def send(status: str) -> str:
        return str(service.post(body("d-1", status)).json()["outcome"])

    statuses = ["BEFORE", "LAST", "OLD", "LAST"]
    with ThreadPoolExecutor(len(statuses)) as senders:
        with write_lock(database):
            answers = []
            for number, status in enumerate(statuses, 1):
                answers.append(senders.submit(send, status))
                eventually(
                    lambda: scrape(service).value("callbacks_in_flight") == number  # noqa: B023 - it is waited for here
                )
        outcomes = [answer.result(60) for answer in answers]
    assert outcomes == ["updated", "updated", "superseded", "updated"]
    assert database.statuses() == {"d-1": "LAST"}
    line = service.wait_for_line(lambda line: line.get("status") == "OLD")
    assert (line["level"], line["outcome"]) == ("warning", "superseded")
    assert "came with it" in line["reason"]
