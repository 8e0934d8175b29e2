"""Without a key the log cannot be flooded: the first lines are written, the rest are counted."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire
from tests.support.service import Service, log_something


def test_ten_refusals_without_a_key_are_written_and_the_rest_counted(
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


def test_refusals_of_broken_requests_are_throttled(service: Service) -> None:
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


def test_visits_to_the_public_pages_are_throttled(service: Service) -> None:
    with httpx.Client(base_url=service.url) as client:
        for _ in range(25):
            assert client.get("/docs").status_code == 200
            assert client.get("/openapi.json").status_code == 200
    assert service.stop() == 0

    assert [line["event"] for line in service.lines].count("request") == 10
    [summary] = [line for line in service.lines if line["event"] == "repeated"]
    assert (summary["of"], summary["reason"]) == ("request", "no_key")
    assert summary["not_written"] == 40


def test_logged_probes_are_throttled(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_LOG_LEVEL="DEBUG"
    )
    with httpx.Client(base_url=service.url) as client:
        for _ in range(15):
            assert client.get("/health").status_code == 200
            assert client.get("/ready").status_code == 200
    assert service.stop() == 0
    assert [line["event"] for line in service.lines].count("request") == 10
    [summary] = [line for line in service.lines if line["event"] == "repeated"]
    assert (summary["of"], summary["not_written"]) == ("request", 20)


def test_probes_that_are_not_logged_are_not_summed_up(service: Service) -> None:
    with httpx.Client(base_url=service.url) as client:
        for _ in range(15):
            assert client.get("/health").status_code == 200
    assert service.stop() == 0
    assert not {"request", "repeated"} & {line["event"] for line in service.lines}


def test_tracebacks_are_throttled(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    tmp_path.joinpath("sitecustomize.py").write_text(
        "from fastapi import Request\n"
        "from sam.callback.service import docs\n"
        "async def crash(request: Request): raise RuntimeError('boom')\n"
        "docs.docs = crash\n",
        encoding="utf-8",
    )
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, PYTHONPATH=str(tmp_path)
    )
    with httpx.Client(base_url=service.url) as client:
        for _ in range(25):
            assert client.get("/docs").status_code == 500
    assert service.stop() == 0
    events = [line["event"] for line in service.lines]
    assert (events.count("crash"), events.count("refused")) == (10, 10)
    summaries = [line for line in service.lines if line["event"] == "repeated"]
    assert {(each["of"], each["reason"], each["not_written"]) for each in summaries} == {
        ("crash", "RuntimeError", 15),
        ("refused", "crash", 15),
    }


def test_lines_of_libraries_are_throttled() -> None:
    run = log_something(
        "for each in range(25):\n"
        "    logging.getLogger('uvicorn.error').error('No. %d', each)\n"
        "    logging.getLogger('uvicorn.error').info('fine')\n"
        "for each in range(12):\n"
        "    class Doomed:\n"
        "        def __del__(self): raise ValueError\n"
        "    Doomed()\n"
    )
    assert run.stderr == ""
    events = Counter(json.loads(text)["event"] for text in run.stdout.splitlines())
    written = sum(count for event, count in events.items() if event.startswith("No. "))
    assert (written, events["fine"], events["unraisable"], events["repeated"]) == (10, 25, 10, 2)


def test_errors_of_an_authenticated_sender_are_written_each_time(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    with service.client() as client:
        for _ in range(20):
            assert client.post("/callback", content=b"{").status_code == 422
    assert service.stop() == 0
    assert [line["event"] for line in service.lines].count("refused") == 20
