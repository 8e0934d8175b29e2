"""A bot that fails at once calls back before its row exists: `unmatched`, and applied later."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.store import Entry, Kind
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import Database, SqliteDatabase
from tests.support.load import spooled
from tests.support.prometheus import scrape
from tests.support.service import Service


def test_the_row_is_updated_after_its_insertion(
    start_service: Callable[..., Service], database: Database
) -> None:
    service = start_service(SQL_SAM_CONNECTION_STRING=database.connection_string)
    answer = service.post(body("early", "RUN_FAILED")).json()
    assert answer["outcome"] == "unmatched"

    def tries() -> float:
        return scrape(service).value("replay_attempts_total", result="unmatched")

    eventually(lambda: tries() >= 1)
    database.add_robots(["early"])
    eventually(lambda: database.statuses()["early"] == "RUN_FAILED")
    eventually(lambda: spooled(service.directory / "var/callback-spool.db") == {})
    assert service.wait_for_event("replayed")["deployment_id"] == "early"


def test_it_waits_through_a_restart_too(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    environment = {"SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string}
    service = start_service(**environment)
    assert service.post(body("early", "RUN_FAILED")).json()["outcome"] == "unmatched"
    assert service.stop() == 0
    sqlite_database.add_robots(["early"])
    start_service(**environment)
    eventually(lambda: sqlite_database.statuses()["early"] == "RUN_FAILED")


def test_after_its_time_it_is_a_dead_letter(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_UNMATCHED_TTL="1 s"
    )
    service.post(body("never", "RUN_FAILED"))
    line = service.wait_for_event("dead_letter")
    assert (line["level"], line["deployment_id"]) == ("error", "never")
    assert line["reason"] == "No row had this deployment. It came more than 1 s ago."
    assert spooled(service.directory / "var/callback-spool.db") == {
        "never": ("dead_letter", "RUN_FAILED")
    }


def test_it_expires_only_after_a_fresh_answer(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    with closing(SpoolFile(tmp_path / "var/callback-spool.db", 2**24)) as file:
        file.put([Entry(1, Kind.UNMATCHED, "late", "RUN_FAILED")], 1)  # of 1970
    sqlite_database.add_robots(["late"])
    start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_UNMATCHED_TTL="1 s"
    )
    eventually(lambda: sqlite_database.statuses()["late"] == "RUN_FAILED")


def test_an_entry_that_waited_for_the_database_is_not_given_up_at_its_first_try(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    """It is older than CALLBACK_UNMATCHED_TTL, and has not been tried for all that time."""
    path = tmp_path / "var/callback-spool.db"
    with closing(SpoolFile(path, 2**24)) as file:
        file.put([Entry(1, Kind.QUEUED, "old", "RUN_FAILED")], 1)  # of 1970
    start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    eventually(lambda: spooled(path) == {"old": ("unmatched", "RUN_FAILED")})
    sqlite_database.add_robots(["old"])
    eventually(lambda: sqlite_database.statuses()["old"] == "RUN_FAILED")
