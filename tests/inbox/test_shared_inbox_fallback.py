"""The spool stands in for a shared inbox that does not answer, and is emptied into it first."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

import pyodbc

from sam.callback.inbox.sql.schema import DEFAULT_TABLE, script
from sam.callback.storage.odbc.dialects import POSTGRESQL
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase, free_port
from tests.support.load import spooled
from tests.support.service import Service

StartService = Callable[..., Service]

LATE_SECONDS: Final = 1
"""When an older entry would have been replayed; on a slow machine less of it is seen."""


def test_when_neither_takes_it_the_answer_is_503(
    start_service: StartService, postgres_database: PostgresDatabase
) -> None:
    server = postgres_database.server
    service = start_service(
        SQL_SAM_CONNECTION_STRING=postgres_database.connection_string,
        CALLBACK_INBOX_CONNECTION_STRING=server.connection_string("inbox", port=free_port()),
    )
    service.wait_for_event("inbox_unavailable")
    postgres_database.rename("robots", "away")
    assert service.post(body("d-1", "FIRST")).json()["outcome"] == "queued"
    spool = service.directory / "var/callback-spool.db"
    spool.rename(spool.with_name("away.db"))
    spool.mkdir()

    answer = service.post(body("d-1", "SECOND"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    ready = service.ready()
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")

    spool.rmdir()
    assert service.post(body("d-1", "THIRD")).json()["outcome"] == "queued"
    postgres_database.rename("away", "robots")
    eventually(lambda: postgres_database.statuses() == {"d-1": "THIRD"})


def test_what_is_in_the_spool_at_the_start_moves_before_anything_is_replayed(
    start_service: StartService, postgres_database: PostgresDatabase
) -> None:
    postgres_database.execute(script("postgresql", DEFAULT_TABLE, POSTGRESQL.quote))
    sam = {"SQL_SAM_CONNECTION_STRING": postgres_database.connection_string}
    shared = {
        **sam,
        "CALLBACK_INBOX_CONNECTION_STRING": postgres_database.connection_string,
        "CALLBACK_INBOX_TIMEOUT": "60",
    }
    postgres_database.rename("robots", "away")
    service = start_service(**shared)
    service.wait_for_event("inbox_available")
    assert service.post(body("d-1", "OLDEST")).json()["outcome"] == "queued"
    assert service.stop() == 0
    service = start_service(**sam)
    assert service.post(body("d-1", "NEW")).json()["outcome"] == "queued"
    assert service.stop() == 0
    assert spooled(service.directory / "var/callback-spool.db") == {"d-1": ("queued", "NEW")}
    postgres_database.rename("away", "robots")

    with closing(pyodbc.connect(postgres_database.connection_string)) as holder:
        holder.execute(f"UPDATE {DEFAULT_TABLE} SET line = line")  # so nothing can be moved
        service = start_service(**shared)
        service.wait_for_event("database_up")
        time.sleep(LATE_SECONDS)
        assert postgres_database.statuses() == {"d-1": "RUNNING"}
        holder.rollback()
    service.wait_for_event("replayed")
    assert postgres_database.statuses() == {"d-1": "NEW"}
    assert spooled(service.directory / "var/callback-spool.db") == {}
    service.wait_for_event("spool_moved_to_inbox")
