"""/metrics counts every callback and every refusal once, and shows the database and the spool."""

import asyncio
import shutil
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from sam.callback.metrics import Metrics, RefusalReason
from sam.callback.service.main import create_app
from sam.callback.settings import Settings
from tests.support import raw
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, becomes_true, eventually
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.disk import hung_disk
from tests.support.prometheus import parse, read, scrape
from tests.support.service import KEY, Service

METHODS = ["DELETE", "PROPFIND", "OPTIONS", "PATCH", "MKCOL", "TRACE"]
HEAD = f"POST /callback HTTP/1.1\r\nHost: x\r\nX-API-KEY: {KEY}\r\nContent-Length: 100\r\n\r\n"


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """The app in this process, for what cannot be brought about from outside."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://test", headers={"X-API-KEY": KEY}
        ) as client,
    ):
        yield app, client


def test_it_needs_the_key(service: Service) -> None:
    assert service.get("/metrics").status_code == 401
    assert service.get("/metrics", **{"X-API-KEY": "no"}).status_code == 401


def test_it_speaks_both_formats(service: Service) -> None:
    with service.client() as client:
        plain = client.get("/metrics")
        openmetrics = client.get(
            "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
        )
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4; charset=utf-8")
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_each_outcome_is_counted(service: Service, sqlite_database: SqliteDatabase) -> None:
    service.wait_for_event("database_up")
    sqlite_database.execute(
        "CREATE TRIGGER t BEFORE UPDATE ON robots WHEN NEW.status = 'BAD'"
        " BEGIN SELECT RAISE(ABORT, 'we never say BAD'); END"
    )
    sqlite_database.add_robots(["d-2"])
    service.post(body("d-1"))
    service.post(body("d-unknown"))
    service.post(body("d-2", "BAD"))
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    service.post(body("d-1", "LATER"))

    seen = scrape(service)
    for outcome in ("updated", "unmatched", "dead_letter", "queued"):
        assert seen.value("callbacks_total", outcome=outcome) == 1, outcome
    for kind in ("unmatched", "dead_letter", "queued"):
        assert seen.value("spool_entries", kind=kind) == 1, kind
        assert seen.value("spool_oldest_entry_age_seconds", kind=kind) > 0, kind
        assert seen.value("spool_bytes", kind=kind) > 100, kind
    assert seen.value("spool_entries", kind="invalid") == 0
    assert seen.value("spool_oldest_entry_age_seconds", kind="invalid") == 0
    assert seen.value("database_up") == 0
    assert seen.value("spool_writable") == 1
    assert seen.value("request_duration_seconds_count", route="/callback", code="2xx") == 4
    # The first three: each in a batch of its own, the refused one rolled back.
    assert seen.value("commit_duration_seconds_count", source="callback") == 2
    assert seen.value("batch_size_sum", source="callback") == 2
    assert seen.value("spool_write_duration_seconds_count") == 3

    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    eventually(lambda: scrape(service).value("database_up") == 1)


def test_each_refusal_is_counted(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODY_BYTES="1024",
        CALLBACK_BODY_TIMEOUT="3",
    )
    service.wait_for_event("database_up")
    spool = service.directory / "var/callback-spool.db"

    def not_safe() -> None:
        spool.rename(spool.with_name("away.db"))
        spool.mkdir()
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        assert service.post(body()).status_code == 503

    def too_slow() -> None:
        with socket.create_connection(
            ("127.0.0.1", service.port), timeout=LIMIT_SECONDS
        ) as connection:
            connection.sendall(HEAD.encode())
            connection.makefile("rb").read()

    def hang_up() -> None:
        with socket.create_connection(
            ("127.0.0.1", service.port), timeout=LIMIT_SECONDS
        ) as connection:
            connection.sendall(HEAD.encode() + b'{"deploymentId"')
        service.wait_for_event("disconnected")

    with service.client() as client, httpx.Client(base_url=service.url) as without_key:
        two = [("X-API-KEY", KEY), ("X-API-KEY", KEY)]
        refusals: dict[str, Callable[[], object]] = {
            "no_key": lambda: without_key.post("/callback"),
            "several_keys": lambda: without_key.post("/callback", headers=two),
            "wrong_key": lambda: without_key.post("/callback", headers={"X-API-KEY": "no"}),
            "unknown_path": lambda: client.get("/nothing/here"),
            "wrong_method": lambda: client.put("/callback"),
            "body_too_large": lambda: client.post("/callback", content=b"x" * 1025),
            "body_too_slow": too_slow,
            "invalid_body": lambda: client.post("/callback", content=b"{"),
            "sender_hung_up": hang_up,
            "not_safe": not_safe,
        }
        for reason, refuse in refusals.items():
            before = scrape(service)
            refuse()
            after = scrape(service)
            assert after.value("refusals_total", reason=reason) == 1, reason
            # and nothing else
            assert after.value("refusals_total") == before.value("refusals_total") + 1, reason
    seen = scrape(service)
    assert seen.value("request_duration_seconds_count", route="/callback", code="5xx") == 1
    assert seen.value("request_duration_seconds_count", route="other", code="4xx") == 1
    assert seen.value("spool_writable") == 0
    # What was not understood, and the beginning of what was too large.
    assert seen.value("spool_entries", kind="invalid") == 2
    spool.rmdir()
    # `overloaded` and `crash`: below. `shutdown` is for the log: nobody scrapes any more.
    assert {*refusals, *EARLY, "overloaded", "crash", "shutdown", "unknown"} == set(RefusalReason)


EARLY = {
    "bad_request": b"what is this?\r\n\r\n",
    "url_too_long": raw.request(b"/" * 600),
    "headers_too_large": raw.request(headers=b"X: " + b"x" * 1100 + b"\r\n"),
    "too_many_headers": raw.request(headers=b"X: x\r\n" * 21),
    "too_many_pipelined": raw.request(b"/health", method=b"GET") * 40,
    "headers_too_slow": b"POST /callback HTTP/1.1\r\n",
}
"""Requests that are refused before the app hears of them, or of their end, by why."""


def test_each_refusal_of_a_connection_is_counted(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_HEADER_BYTES="1 KiB",
        CALLBACK_MAX_HEADERS="20",
        CALLBACK_HEADER_TIMEOUT="3",
    )

    def is_counted(reason: str) -> bool:
        return scrape(service).value("refusals_total", reason=reason) == 1

    for reason, sent in EARLY.items():
        with raw.Wire(service) as wire:
            wire.send(sent)
            eventually(partial(is_counted, reason))
    assert scrape(service).value("refusals_total") == len(EARLY)

    with raw.Wire(service):
        eventually(
            lambda: scrape(service).value("connections_cut_total", reason="nothing_sent") == 1
        )
    seen = scrape(service)
    assert seen.value("connections_cut_total") == 1
    assert seen.value("connections") == 1  # the scrape's own
    assert seen.value("connections_max") == 1000


async def test_overload_and_crashes_are_counted(
    sqlite_database: SqliteDatabase,
    settings_for: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_for(sqlite_database, callback_spool_path=tmp_path / "spool.db")

    async def fail(*_arguments: object) -> None:
        raise ValueError("a defect")

    async with opened(settings) as (app, client):
        monkeypatch.setattr(app.state.inbox.admission, "max_count", 0)
        assert (await client.post("/callback", content=body())).status_code == 503
        monkeypatch.setattr(app.state.inbox, "record", fail)
        assert (await client.post("/callback", content=body())).status_code == 500
        seen = read(await client.get("/metrics"))
    assert seen.value("refusals_total", reason="overloaded") == 1
    assert seen.value("refusals_total", reason="crash") == 1
    assert seen.value("callbacks_in_flight_max") == 0


def test_the_replay_is_counted(
    start_service: Callable[..., Service], postgres_database: PostgresDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=postgres_database.connection_string,
        CALLBACK_DB_TIMEOUT="4",  # of which a quarter is for another's lock
        CALLBACK_UNMATCHED_TTL="4 s",
    )
    service.wait_for_event("database_up")
    with closing(postgres_database.server.connect(postgres_database.name)) as other:
        other.autocommit = False
        other.execute("SELECT * FROM robots WHERE \"deploymentId\" = 'd-1' FOR UPDATE")
        assert service.post(body("d-1")).json()["outcome"] == "queued"
        eventually(lambda: scrape(service).value("replay_attempts_total", result="failed") >= 1)
    eventually(lambda: scrape(service).value("replay_attempts_total", result="applied") == 1)
    assert service.post(body("d-unknown")).json()["outcome"] == "unmatched"
    eventually(lambda: scrape(service).value("replay_attempts_total", result="dead_letter") == 1)
    seen = scrape(service)
    assert seen.value("replay_attempts_total", result="unmatched") >= 1
    assert seen.value("replay_attempts_total", result="unanswered") == 0
    assert seen.value("commit_duration_seconds_count", source="replay") >= 2
    assert seen.value("spool_entries", kind="dead_letter") == 1
    assert seen.value("spool_entries", kind="queued") == 0


def test_callbacks_without_one_match_show(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    service.wait_for_event("database_up")
    for number in range(20):
        assert scrape(service).value("no_row_matches") == 0
        service.post(body(f"d-unknown-{number}"))
    assert scrape(service).value("no_row_matches") == 1
    sqlite_database.add_robots(["d-unknown-7"])
    eventually(lambda: scrape(service).value("no_row_matches") == 0)


async def test_the_pool_and_what_is_in_flight_show(
    sqlite_database: SqliteDatabase, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    """SQLite has one connection: one batch is at work, another waits while the first is locked."""
    settings = settings_for(sqlite_database, callback_spool_path=tmp_path / "spool.db")
    async with opened(settings) as (app, client):
        await client.post("/callback", content=body())
        with closing(sqlite3.connect(sqlite_database.path, timeout=LIMIT_SECONDS)) as other:
            other.execute("BEGIN IMMEDIATE")
            at_work = asyncio.create_task(client.post("/callback", content=body()))
            repository = app.state.inbox.database._repository  # noqa: SLF001 - which asks for no slot
            waiting = asyncio.create_task(repository.probe(timeout=LIMIT_SECONDS))
            await becomes_true(lambda: app.state.inbox.pool.waiting == 1)
            seen = read(await client.get("/metrics"))
            other.rollback()
        await waiting
        assert (await at_work).json()["outcome"] == "updated"
        after = read(await client.get("/metrics"))
    assert seen.value("pool_connections_in_use") == 1
    assert seen.value("pool_connections_max") == 1
    assert seen.value("callbacks_in_flight") == 1
    for name in ("pool_connections_in_use", "pool_requests_waiting", "callbacks_in_flight"):
        assert after.value(name) == 0, name


async def test_a_hung_disk_does_not_hang_a_scrape(
    sqlite_database: SqliteDatabase,
    settings_for: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    settings = settings_for(sqlite_database, callback_spool_path=tmp_path / "spool.db")
    async with opened(settings) as (app, client):
        await client.post("/callback", content=body("d-unknown"))
        async with hung_disk(app.state.inbox.spool), asyncio.timeout(LIMIT_SECONDS):
            first = read(await client.get("/metrics"))
            await asyncio.sleep(0.1)
            second = read(await client.get("/metrics"))
    assert first.value("spool_entries", kind="unmatched") == 1
    ages = [s.value("spool_oldest_entry_age_seconds", kind="unmatched") for s in (first, second)]
    assert ages[0] + 0.1 <= ages[1]
    assert first.value("spool_disk_free_bytes") > 0
    assert first.value("spool_disk_free_bytes") < first.value("spool_disk_size_bytes")


async def test_a_disk_that_cannot_be_looked_at_costs_no_callback(
    sqlite_database: SqliteDatabase,
    settings_for: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_path: Path) -> None:
        raise PermissionError

    settings = settings_for(sqlite_database, callback_spool_path=tmp_path / "spool.db")
    async with opened(settings) as (_, client):
        monkeypatch.setattr(shutil, "disk_usage", fail)
        answer = await client.post("/callback", content=body("d-unknown"))
        seen = read(await client.get("/metrics"))
    assert (answer.status_code, answer.json()["outcome"]) == (200, "unmatched")
    assert not [name for name in seen.names if "_disk_" in name]


def test_an_unauthenticated_sender_adds_no_series(service: Service) -> None:
    service.post(body())
    scrape(service)
    before = scrape(service)
    with httpx.Client(base_url=service.url, timeout=LIMIT_SECONDS) as client:
        for number, method in enumerate(METHODS):
            headers = {
                "Host": f"host-{number}",
                "User-Agent": f"agent-{number}",
                "X-Request-ID": f"request-{number}",
                "X-Forwarded-For": f"10.0.0.{number}",
                "Accept": f"application/openmetrics-text;version={number};escaping=x{number}",
            }
            for key in ({}, {"X-API-KEY": f"key-{number}"}, {"X-API-KEY": KEY}):
                client.request(method, f"/path/{number}?{number}", headers=headers | key)
                client.get(f"/metrics?{number}", headers=headers | key)
            content = body(f"deployment-{number}", f"STATUS-{number}")
            client.post("/callback", content=content, headers={"X-API-KEY": KEY})
    after = scrape(service)
    for label, values in after.labels.items():
        new = values - before.labels[label]
        assert new <= ({"other", "4xx"} if label in {"route", "code"} else set()), label
    routes = after.labels["route"] | {"/callback", "/health", "/ready", "/metrics", "other"}
    assert len(routes) == 5
    known = "sam_callback_request_duration_seconds"
    assert {s for s in after.series - before.series if not s[0].startswith(known)} == set()


def test_two_apps_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.refusals[RefusalReason.UNKNOWN].inc()
    one.answered("/callback", 200, 0.1)
    seen, others = (parse(metrics.exposition("")[0].decode()) for metrics in (one, other))
    assert seen.value("refusals_total", reason="unknown") == 1
    assert seen.value("refusals_total") == 1
    assert seen.value("request_duration_seconds_count", route="other", code="2xx") == 1
    assert others.value("refusals_total") == 0


def test_the_age_is_that_of_the_oldest_and_goes_with_it(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    def age() -> float:
        return scrape(service).value("spool_oldest_entry_age_seconds", kind="unmatched")

    service.wait_for_event("database_up")
    posted = time.monotonic()
    service.post(body("first"))
    eventually(lambda: age() > 1)
    service.post(body("second"))
    assert 1 < age() < time.monotonic() - posted + 1
    sqlite_database.add_robots(["first"])
    eventually(lambda: scrape(service).value("spool_entries", kind="unmatched") == 1)
    assert age() < time.monotonic() - posted
    sqlite_database.add_robots(["second"])
    eventually(lambda: age() == 0)
