"""Rule 6: down, callbacks go to disk at disk speed; a committed write brings the database back."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from sam.callback.inbox.circuit_breaker import (
    LOGIN_PROBE,
    PROBE,
    SUSPICIOUS_UNMATCHED,
    CircuitBreaker,
)
from sam.callback.storage.errors import DatabaseUnavailableError, LoginRefusedError
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import PostgresServer, SqliteDatabase
from tests.support.load import Load, losses, spooled
from tests.support.prometheus import scrape
from tests.support.proxy import proxy_to
from tests.support.raw import Wire, request
from tests.support.service import Service


def test_a_table_that_is_renamed_away_and_back(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    service.wait_for_event("database_up")
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    for status in ("FIRST", "SECOND"):
        answer = service.post(body("d-1", status))
        assert (answer.status_code, answer.json()["outcome"]) == (200, "queued")
    assert service.ready().json()["database"] == "down"

    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    eventually(lambda: sqlite_database.statuses() == {"d-1": "SECOND"})
    service.wait_for_line(lambda line: line["event"] == "replayed" and line["status"] == "SECOND")
    assert service.post(body("d-1", "THIRD")).json()["outcome"] == "updated"
    events = [line["event"] for line in service.lines]
    assert events.count("database_down") == 1
    assert events.count("database_up") == 2  # at the start, and now


def test_a_write_lock_held_by_another_process_refuses_nothing(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    # A read succeeds under the lock all the while: it proves nothing.
    deployments = [f"d-{number}" for number in range(1, 21)]
    sqlite_database.add_robots(deployments[1:])
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DB_TIMEOUT="0.5"
    )
    with Load(service.url, deployments, connections=8, pause=0.005) as load:
        load.wait_for(50)
        with closing(sqlite3.connect(sqlite_database.path, timeout=LIMIT_SECONDS)) as other:
            other.execute("BEGIN IMMEDIATE")
            load.wait_for(500)
            assert service.ready().json()["database"] == "down"
        load.wait_for(200)
    eventually(lambda: spooled(service.directory / "var/callback-spool.db") == {})
    assert not load.refused
    spool = service.directory / "var/callback-spool.db"
    assert losses(load.answered, load.all, sqlite_database.statuses(), spool) == []


def test_queued_callbacks_are_applied_after_a_restart(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    environment = {"SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string}
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    service = start_service(**environment)
    assert service.post(body("d-1", "KEPT")).json()["outcome"] == "queued"
    assert service.stop() == 0
    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    start_service(**environment)
    eventually(lambda: sqlite_database.statuses() == {"d-1": "KEPT"})


def test_silence_is_answered_at_disk_speed_once_it_is_known(
    start_service: Callable[..., Service], postgres_server: PostgresServer
) -> None:
    database = postgres_server.create_database()
    database.add_robots(["d-1"])
    with proxy_to(postgres_server.port) as proxy:
        service = start_service(
            SQL_SAM_CONNECTION_STRING=postgres_server.connection_string(
                database.name, port=proxy.port
            ),
            CALLBACK_DB_TIMEOUT="0.5",
        )
        service.wait_for_event("database_up")
        proxy.fall_silent()
        assert service.post(body("d-1", "FIRST")).json()["outcome"] == "queued"
        service.wait_for_event("database_down")
        for number in range(20):
            assert service.post(body("d-1", f"NEXT-{number}")).json()["outcome"] == "queued"
        proxy.speak()
        eventually(lambda: database.statuses() == {"d-1": "NEXT-19"})
    assert service.stop() == 0
    first, *rest = [line["reason"] for line in service.lines if line.get("outcome") == "queued"]
    assert first == "The database did not answer in time."
    assert rest == ["The database is down."] * 20  # they did not wait for it


def test_a_value_that_the_database_refuses_is_a_dead_letter(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.execute(
        "CREATE TRIGGER t BEFORE UPDATE ON robots WHEN NEW.status = 'BAD'"
        " BEGIN SELECT RAISE(ABORT, 'we never say BAD'); END"
    )
    answer = service.post(body("d-1", "BAD"))
    assert (answer.status_code, answer.json()["outcome"]) == (200, "dead_letter")
    assert spooled(service.directory / "var/callback-spool.db") == {"d-1": ("dead_letter", "BAD")}
    assert "we never say BAD" in service.wait_for_event("callback")["reason"]
    assert service.ready().json()["status"] == "ok"


def test_an_invalid_body_is_kept_as_it_came(service: Service) -> None:
    content = b'{"deployment": "d-1", "state": "DONE", "new": "\xff"}'
    assert service.post(content).status_code == 422
    with closing(sqlite3.connect(service.directory / "var/callback-spool.db")) as connection:
        assert connection.execute("SELECT kind, payload FROM entries").fetchall() == [
            ("invalid", content)
        ]


def test_when_nothing_can_take_it_the_answer_is_503(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    spool = service.directory / "var/callback-spool.db"
    spool.rename(spool.with_name("away.db"))
    spool.mkdir()
    assert service.post(body("d-1", "FIRST")).json()["outcome"] == "updated"
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")

    answer = service.post(body("d-1", "SECOND"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    line = service.wait_for_event("refused")
    assert (line["level"], line["reason"]) == ("error", "not_safe")
    assert (line["deployment_id"], line["status"]) == ("d-1", "SECOND")
    ready = service.ready()
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")

    spool.rmdir()
    assert service.post(body("d-1", "THIRD")).json()["outcome"] == "queued"
    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    eventually(lambda: sqlite_database.statuses() == {"d-1": "THIRD"})


def test_a_sender_that_hangs_up_after_its_body_does_not_undo_the_write(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    with closing(sqlite3.connect(sqlite_database.path, timeout=LIMIT_SECONDS)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Wire(service) as wire:
            wire.send(request(content=body("d-1", "LEFT")))
            eventually(lambda: scrape(service).value("callbacks_in_flight") == 1)
    eventually(lambda: sqlite_database.statuses() == {"d-1": "LEFT"})


def test_probes_back_off_further_for_a_refused_login(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [PROBE.delay(n) for n in (1, 2, 5, 6, 50)] == [0.1, 0.2, 1.6, 2.0, 2.0]
    assert [LOGIN_PROBE.delay(n) for n in (1, 2, 6, 7, 50)] == [1, 2, 32, 60, 60]

    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    breaker = CircuitBreaker()
    breaker.failed(DatabaseUnavailableError("gone"), time.monotonic())
    assert 0 < breaker.seconds_to_probe <= 0.1
    breaker.failed(LoginRefusedError("no"), time.monotonic(), is_probe=True)
    assert 0.5 < breaker.seconds_to_probe <= 1
    breaker.failed(LoginRefusedError("no"), time.monotonic(), is_probe=True)
    assert 1 < breaker.seconds_to_probe <= 2
    assert not breaker.takes_callbacks
    breaker.committed()
    assert breaker.takes_callbacks


def test_many_unmatched_and_not_one_match_is_degraded(service: Service) -> None:
    for number in range(SUSPICIOUS_UNMATCHED):
        service.post(body(f"d-unknown-{number}"))
    assert service.wait_for_event("no_row_matches")["level"] == "critical"
    ready = service.ready()
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")

    service.post(body("d-1"))
    assert service.ready().json()["status"] == "ok"
