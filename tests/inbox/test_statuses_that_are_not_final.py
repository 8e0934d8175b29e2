"""No status is final to the service: the later callback is written, whatever the row says."""

from collections.abc import Callable

import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import Database
from tests.support.service import Service


@pytest.fixture
def service(start_service: Callable[..., Service], database: Database) -> Service:
    return start_service(SQL_SAM_CONNECTION_STRING=database.connection_string)


def sam_writes(database: Database, status: str, table: str = "robots") -> None:
    database.execute(f"UPDATE {table} SET status = ?", status)


def test_unknown_after_a_final_status_is_written(service: Service, database: Database) -> None:
    for status in ("RUN_COMPLETED", "UNKNOWN"):
        assert service.post(body("d-1", status)).json()["outcome"] == "updated"
        assert database.statuses() == {"d-1": status}


def test_a_final_status_after_unknown_is_written(service: Service, database: Database) -> None:
    for status in ("UNKNOWN", "RUN_FAILED"):
        assert service.post(body("d-1", status)).json()["outcome"] == "updated"
    assert database.statuses() == {"d-1": "RUN_FAILED"}


def test_an_earlier_status_of_sam_is_overwritten(service: Service, database: Database) -> None:
    sam_writes(database, "COMPLETED_INFERRED")
    service.post(body("d-1", "RUN_FAILED"))
    assert database.statuses() == {"d-1": "RUN_FAILED"}


def test_a_later_status_of_sam_stays(service: Service, database: Database) -> None:
    service.post(body("d-1", "UNKNOWN"))
    sam_writes(database, "COMPLETED")
    database.add_robots(["d-2"])
    service.post(body("d-2", "RUN_COMPLETED"))
    assert database.statuses() == {"d-1": "COMPLETED", "d-2": "RUN_COMPLETED"}


def test_a_queued_callback_overwrites_a_status_of_sam(service: Service, database: Database) -> None:
    database.execute("ALTER TABLE robots RENAME TO away")
    assert service.post(body("d-1", "RUN_FAILED")).json()["outcome"] == "queued"
    sam_writes(database, "COMPLETED_INFERRED", "away")
    database.execute("ALTER TABLE away RENAME TO robots")
    eventually(lambda: database.statuses() == {"d-1": "RUN_FAILED"})
