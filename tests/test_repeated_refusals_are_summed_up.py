"""Whoever has no key cannot flood the log: the first lines are written, the rest are counted."""

from collections.abc import Callable

import httpx

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire
from tests.support.service import Service


def test_of_refusals_for_want_of_a_key_ten_are_written_and_the_rest_counted(
    service: Service,
) -> None:
    with httpx.Client(base_url=service.url) as client:
        for _ in range(50):
            assert client.post("/callback", content=body()).status_code == 401
        assert client.get("/", headers={"X-API-KEY": "wrong"}).status_code == 401
    assert service.stop() == 0

    refused = [line["reason"] for line in service.lines if line["event"] == "refused"]
    assert refused == ["no_key"] * 10 + ["wrong_key"]
    [summary] = [line for line in service.lines if line["event"] == "repeated"]
    assert (summary["level"], summary["of"], summary["reason"]) == ("warning", "refused", "no_key")
    assert summary["not_written"] == 40
    assert "request_id" not in summary


def test_so_are_those_of_broken_requests(service: Service) -> None:
    for _ in range(30):
        with Wire(service) as wire:
            wire.send(b"\x00\r\n\r\n")
            assert wire.status() == 400
    assert service.stop() == 0

    refused = [line["reason"] for line in service.lines if line["event"] == "refused_early"]
    assert refused == ["bad_request"] * 10
    [summary] = [line for line in service.lines if line["event"] == "repeated"]
    assert summary["not_written"] == 20
    # Nor does uvicorn write lines of its own about them.
    assert {line["level"] for line in service.lines if "uvicorn" in line["logger"]} == {"info"}


def test_so_are_visits_to_the_public_pages(service: Service) -> None:
    with httpx.Client(base_url=service.url) as client:
        for _ in range(25):
            assert client.get("/docs").status_code == 200
            assert client.get("/openapi.json").status_code == 200
    assert service.stop() == 0

    assert [line["event"] for line in service.lines].count("request") == 10
    [summary] = [line for line in service.lines if line["event"] == "repeated"]
    assert (summary["of"], summary["reason"]) == ("request", "no_key")
    assert summary["not_written"] == 40


def test_what_a_sender_with_the_key_did_wrong_is_written_each_time(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    with service.client() as client:
        for _ in range(20):
            assert client.post("/callback", content=b"{").status_code == 422
    assert service.stop() == 0
    assert [line["event"] for line in service.lines].count("refused") == 20
