"""/ready: 200 while callbacks can be made durable, 503 while they cannot or while it drains."""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.prometheus import scrape
from tests.support.proxy import proxy_to
from tests.support.service import Service


def ready(service: Service) -> tuple[int, str]:
    response = service.ready()
    return response.status_code, response.json()["status"]


def test_it_tells_what_the_spool_holds(service: Service) -> None:
    service.wait_for_event("database_up")
    service.post(b"{")
    service.post(body("d-unknown"))
    answer = service.ready().json()
    assert answer["status"] == "ok"
    assert answer["database"] == "up"
    spool = answer["spool"]
    assert spool.pop("bytes") > 0
    assert spool == {
        "queued": 0,
        "unmatched": 1,
        "dead_letter": 0,
        "invalid": 1,
        "writable": True,
    }
    assert httpx.head(service.url + "/ready").status_code == 200


def test_without_the_key_it_tells_its_status_alone(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    service.wait_for_event("database_up")
    for headers in ({}, {"X-API-KEY": "wrong"}):
        answer = service.get("/ready", **headers)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    service.post(body())
    assert service.get("/ready").json() == {"status": "degraded"}
    assert service.stop() == 0
    assert "refused" not in {line["event"] for line in service.lines}


def test_one_of_database_and_spool_is_enough(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    service.wait_for_event("database_up")
    assert ready(service) == (200, "ok")
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    service.post(body())
    assert ready(service) == (200, "degraded")
    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    eventually(lambda: ready(service) == (200, "ok"))


def test_until_the_first_write_is_known_it_says_so(
    start_service: Callable[..., Service], postgres_database: PostgresDatabase
) -> None:
    with proxy_to(postgres_database.server.port) as proxy:
        proxy.admit(0)
        service = start_service(
            SQL_SAM_CONNECTION_STRING=postgres_database.server.connection_string(
                postgres_database.name, port=proxy.port
            ),
            SQL_SAM_LOGIN_TIMEOUT="60",
            CALLBACK_DB_TIMEOUT="0.2",
        )
        for _ in range(2):
            answer = service.ready()
            assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
            assert answer.json()["database"] == "unknown"
            assert scrape(service).value("database_up") == 0
            assert service.post(body("d-1", "EARLY")).json()["outcome"] == "queued"
        assert "database_down" not in {line["event"] for line in service.lines}
        proxy.admit(math.inf)
        eventually(lambda: ready(service) == (200, "ok"))
        assert service.ready().json()["database"] == "up"
        assert scrape(service).value("database_up") == 1
    assert [line["event"] for line in service.lines].count("database_up") == 1


def test_until_the_first_write_is_known_a_spool_that_cannot_be_written_is_no_place_for_callbacks(
    start_service: Callable[..., Service], postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    (tmp_path / "in-the-way").write_text("")
    with proxy_to(postgres_database.server.port) as proxy:
        proxy.admit(0)
        service = start_service(
            SQL_SAM_CONNECTION_STRING=postgres_database.server.connection_string(
                postgres_database.name, port=proxy.port
            ),
            SQL_SAM_LOGIN_TIMEOUT="60",
            CALLBACK_SPOOL_PATH=str(tmp_path / "in-the-way" / "spool.db"),
        )
        assert ready(service) == (503, "unavailable")
        proxy.admit(math.inf)
        eventually(lambda: ready(service) == (200, "degraded"))


def test_while_draining_it_sends_traffic_elsewhere_and_callbacks_are_still_taken(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DRAIN_SECONDS="600"
    )
    service.wait_for_event("database_up")
    service.send_signal(signal.SIGTERM)
    eventually(lambda: ready(service) == (503, "draining"))
    assert service.post(body("d-1", "LATE")).json()["outcome"] == "updated"
    assert scrape(service).value("refusals_total") == 0
    assert service.stop() == 0  # a second signal ends the wait
    assert "refused" not in {line["event"] for line in service.lines}  # no callback was


def test_it_drains_for_as_long_as_it_was_told_to(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DRAIN_SECONDS="1"
    )
    told = time.monotonic()
    service.send_signal(signal.SIGTERM)
    service.wait_for_event("Shutting down")
    assert time.monotonic() - told >= 1


def test_while_draining_each_answer_ends_its_connection(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    """An idle one would be cut at the end, maybe with a callback on its way."""
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DRAIN_SECONDS="600"
    )
    with service.client() as client:  # whose connection was there before the signal
        assert "Connection" not in client.post("/callback", content=body()).headers
        service.send_signal(signal.SIGTERM)
        eventually(lambda: ready(service) == (503, "draining"))
        for _ in range(2):  # on a new connection the second time
            answer = client.post("/callback", content=body())
            assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        dates: set[str] = (
            set()
        )  # which uvicorn makes anew each second, and those of all answers with it
        while len(dates) < 3:
            headers = client.get("/ready").headers
            assert headers["Connection"] == "close"
            dates.add(headers["Date"])
    assert service.stop() == 0


def test_a_probe_in_the_wrong_way_is_told_the_right_ones(service: Service) -> None:
    with service.client() as client:
        for path in ("/health", "/ready"):
            response = client.post(path)
            assert response.status_code == 405
            assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}
