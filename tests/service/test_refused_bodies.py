"""A body that is not understood, too large or too slow is refused; the database is not touched."""

import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sam.callback.service.schemas import CallbackPayload
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import KEY, Service


def kept(service: Service) -> list[tuple[str, bytes]]:
    """Why each invalid body was kept, and what of it."""
    with closing(sqlite3.connect(service.directory / "var/callback-spool.db")) as connection:
        return connection.execute(
            "SELECT reason, payload FROM entries WHERE kind = 'invalid'"
        ).fetchall()


NOT_UNDERSTOOD = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"d-1"',
    b"deploymentId=d-1&status=RUN_COMPLETED",
    b'{"deploymentId": "d-1"}',
    b'{"status": "RUN_COMPLETED"}',
    b'{"deploymentId": "", "status": "RUN_COMPLETED"}',
    b'{"deploymentId": "  ", "status": "RUN_COMPLETED"}',
    b'{"deploymentId": "d-1", "status": ""}',
    b'{"deploymentId": "d-1", "status": null}',
    b'{"deploymentId": 1, "status": "RUN_COMPLETED"}',
    b'{"deploymentId": "d-1", "status": NaN}',
    b'{"deploymentId": "d-\\u0000", "status": "RUN_COMPLETED"}',
    b'{"deploymentId": "d-1", "status": "A\\nB"}',
    b'{"deploymentId": "d-1\\ud800", "status": "RUN_COMPLETED"}',
    b'{"deploymentId": "d-1", "status": "\xff"}',
    b'{"deploymentId": "d-1", "status": "RUN_COMPLETED"',
    b'{"deploymentId": "d-1", "status": "RUN_COMPLETED"}}',
    b'{"deploymentId": "d-1", "status": "RUN_COMPLETED", "botOutput": {x}}',
    b'[{"deploymentId": "d-1", "status": "RUN_COMPLETED"}]',
    json.dumps({"deploymentId": "d-1", "status": "RUN\ud83d"}, ensure_ascii=False).encode(
        "utf-16", "surrogatepass"
    ),
    body("d" * 129),
    body("d-1", "s" * 65),
    b'{"deploymentId": "d-1", "status": "RUN", "botOutput": ' + b"[" * 100_000 + b"}",
]


def test_an_invalid_body_is_422_in_fastapis_shape(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    for content in NOT_UNDERSTOOD:
        response = service.post(content)
        assert response.status_code == 422, content[:80]
        for mistake in response.json()["detail"]:
            assert mistake["loc"][0] == "body"
            assert mistake.keys() == {"loc", "msg", "type"}
    assert sqlite_database.statuses() == {"d-1": "RUNNING"}


def test_it_is_logged_once_with_the_error(service: Service) -> None:
    service.post(b'{"deploymentId": "d-1", "botOutput": {"secret": "of the bot"}}')

    line = service.wait_for_event("refused")

    assert line["level"] == "warning"
    assert line["reason"] == "invalid_body"
    assert line["mistakes"] == ["status: Field required"]
    assert not any("of the bot" in text for text in service.output)


def test_a_body_over_the_limit_is_413(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_MAX_BODY_BYTES="2000"
    )
    at_the_limit = body("d-1").ljust(2000)

    def in_chunks(content: bytes) -> httpx.Response:
        with service.client() as client:
            return client.post("/callback", content=iter([content[:1000], content[1000:]]))

    for response in (service.post(at_the_limit + b" "), in_chunks(at_the_limit + b" ")):
        assert response.status_code == 413
        assert response.json() == {"detail": "The body is larger than 2000 bytes."}
        # Else the next callback could meet a connection that is being cut for the rest of this one.
        assert response.headers["Connection"] == "close"
    assert service.wait_for_event("refused")["reason"] == "body_too_large"
    assert sqlite_database.statuses() == {"d-1": "RUNNING"}

    assert service.post(at_the_limit).status_code == 200
    assert in_chunks(at_the_limit).status_code == 200


NAMED = b'{"status": "RUN_FAILED", "deploymentId": "d-1", "botOutput": "'
LARGE = NAMED + b"x" * 100_000 + b'"}'


@pytest.mark.parametrize("framing", [b"", b"Expect: 100-continue\r\n", b"chunked"])
def test_a_413_names_the_deployment_and_keeps_the_head(
    framing: bytes, start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODY_BYTES="80 KB",
    )
    with Wire(service) as wire:
        if framing == b"chunked":
            headers = KEY_HEADER + b"Transfer-Encoding: chunked\r\n"
            wire.send(b"POST /callback HTTP/1.1\r\nHost: x\r\n%b\r\n" % headers)
            wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE))
        else:
            wire.send(request(length=len(LARGE), headers=KEY_HEADER + framing))
            if framing:
                assert wire.status() == 100
            wire.send(LARGE)
        assert wire.status() == 413
    line = service.wait_for_event("refused")
    assert (line["deployment_id"], line["status"]) == ("d-1", "RUN_FAILED")
    assert kept(service) == [
        ("The body is larger than 80000 bytes. This is how it begins.", LARGE[: 2**16])
    ]
    assert sqlite_database.statuses() == {"d-1": "RUNNING"}


def test_a_413_does_not_wait_for_the_rest(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(length=2**30) + LARGE)
        assert wire.status() == 413
    assert service.wait_for_event("refused")["deployment_id"] == "d-1"
    assert kept(service)[0][1] == LARGE[: 2**16]


def _is_of(request_id: str, line: dict[str, Any]) -> bool:
    return line.get("request_id") == request_id


def test_a_413_names_only_readable_fields(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_MAX_BODY_BYTES="2000"
    )
    for content, said in [
        (b"x" * 3000, {}),
        (
            b'{"status": "A\\nB", "deploymentId": "d-1", "a": "' + b"x" * 2000,
            {"deployment_id": "d-1"},
        ),
    ]:
        response = service.post(content)
        assert response.status_code == 413
        line = service.wait_for_line(partial(_is_of, response.headers["X-Request-ID"]))
        assert {name: line[name] for name in ("deployment_id", "status") if name in line} == said


def test_it_is_a_413_though_the_body_does_not_come(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODY_BYTES="2000",
        CALLBACK_BODY_TIMEOUT="0.5",
    )
    with Wire(service) as wire:
        wire.send(request(length=3000))
        assert wire.status() == 413
        assert wire.rest() == b""
    assert kept(service) == []


def test_a_422_names_the_deployment_where_it_is_readable(service: Service) -> None:
    assert service.post(b'{"deploymentId": " d-1 ", "status": "", "x": 1').status_code == 422
    line = service.wait_for_event("refused")
    assert line["deployment_id"] == "d-1"
    assert "status" not in line


def test_a_body_that_comes_too_slowly_is_408(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_BODY_TIMEOUT="0.5"
    )
    head = f"POST /callback HTTP/1.1\r\nHost: x\r\nX-API-KEY: {KEY}\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(head.encode() + b'{"deploymentId"')
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        connection.makefile("rb").read()  # returns once the service has closed
    assert service.wait_for_event("refused")["reason"] == "body_too_slow"
    assert sqlite_database.statuses() == {"d-1": "RUNNING"}


def test_a_sender_that_hangs_up_half_way_is_not_a_crash(service: Service) -> None:
    head = f"POST /callback HTTP/1.1\r\nHost: x\r\nX-API-KEY: {KEY}\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(head.encode() + body()[:20])
    line = service.wait_for_event("disconnected")
    assert (line["level"], line["reason"]) == ("warning", "sender_hung_up")
    assert service.post(body()).status_code == 200
    assert "crash" not in {line["event"] for line in service.lines}


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=64).filter(
    str.strip
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(
    deployment_id=TEXT,
    status=TEXT,
    others=st.dictionaries(
        st.text().filter(lambda name: name not in {"deploymentId", "status"}), JSON
    ),
)
def test_other_members_of_a_body_are_ignored(
    deployment_id: str, status: str, others: dict[str, Any]
) -> None:
    content = json.dumps({**others, "deploymentId": deployment_id, "status": status})

    payload = CallbackPayload.model_validate_json(content)

    assert payload.deploymentId == deployment_id.strip()
    assert payload.status == status.strip()


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_do_worse_than_be_refused(content: bytes) -> None:
    try:
        payload = CallbackPayload.model_validate_json(content)
    except ValidationError:
        return
    assert 1 <= len(payload.deploymentId) <= 128
    assert 1 <= len(payload.status) <= 64
