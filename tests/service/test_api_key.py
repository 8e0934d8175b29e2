"""Without a valid X-API-KEY the answer is 401, before routing and before the body is read."""

import socket
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from sam.callback.service.api_key import ApiKeyMiddleware
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service

NOT_THE_KEY = {
    "none": [],
    "wrong": [(b"X-API-KEY", b"wrong")],
    "empty": [(b"X-API-KEY", b"")],
    "too long by one": [(b"X-API-KEY", KEY.encode() + b"x")],
    "too short by one": [(b"X-API-KEY", KEY[:-1].encode())],
    "in another case": [(b"X-API-KEY", KEY.upper().encode())],
    "not ASCII": [(b"X-API-KEY", "clé-ñ".encode())],
    "in another header": [(b"Authorization", b"ApiKey " + KEY.encode())],
    "twice": [(b"X-API-KEY", KEY.encode()), (b"X-API-KEY", KEY.encode())],
    "right and wrong": [(b"X-API-KEY", KEY.encode()), (b"X-API-KEY", b"wrong")],
    "two in one header": [(b"X-API-KEY", f"{KEY}, {KEY}".encode())],
}
REQUESTS = [
    ("POST", "/callback"),
    ("GET", "/callback"),
    ("PUT", "/callback"),
    ("OPTIONS", "/callback"),
    ("HEAD", "/callback"),
    ("POST", "/health"),
    ("OPTIONS", "/health"),
    ("GET", "/metrics"),
    ("GET", "/no/such/path"),
    ("GET", "/health/"),
    ("GET", "//health"),
    ("GET", "/HEALTH"),
    ("GET", "/health%2f..%2fcallback"),
    ("GET", "/docs/../callback"),
    ("GET", "/docs/assets/redoc.standalone.js"),
    ("PROPFIND", "/callback"),
]


def test_it_is_401_for_any_path_and_method(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    with httpx.Client(base_url=service.url) as client:
        for headers in NOT_THE_KEY.values():
            for method, path in REQUESTS:
                response = client.request(method, path, headers=headers, content=body())
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["WWW-Authenticate"] == "ApiKey"
    assert sqlite_database.statuses() == {"d-1": "RUNNING"}


def test_a_known_and_an_unknown_path_get_the_same_answer(service: Service) -> None:
    def answer(path: str) -> tuple[bytes, list[str]]:
        response = httpx.post(service.url + path, content=body())
        # It goes on with the connection only where the body was here in time.
        return response.content, sorted(set(response.headers) - {"connection"})

    assert answer("/callback") == answer("/no/such/path")


def test_the_body_is_not_waited_for(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"POST /callback HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_health_is_public_and_needs_no_database(start_service: Callable[..., Service]) -> None:
    service = start_service(SQL_SAM_CONNECTION_STRING="DRIVER=SQLite3;Database=/nowhere/sam.db;")
    response = service.get("/health")
    assert (response.status_code, response.content) == (200, b'{"status":"ok"}')
    assert httpx.head(service.url + "/health").status_code == 200


def test_the_previous_key_is_accepted_too(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_API_KEY_PREVIOUS="the-old-key",
    )
    for key, expected in ((KEY, 200), ("the-old-key", 200), ("another", 401)):
        response = httpx.post(service.url + "/callback", content=body(), headers={"X-API-KEY": key})
        assert response.status_code == expected


def test_a_refusal_is_logged_once_with_the_reason(service: Service) -> None:
    httpx.post(service.url + "/callback", content=body(), headers={"X-API-KEY": "guess-work"})

    line = service.wait_for_event("refused")

    assert line["level"] == "warning"
    assert line["reason"] == "wrong_key"
    assert (line["http_status"], line["method"], line["path"]) == (401, "POST", "/callback")
    assert line["client"] == "127.0.0.1"
    assert not any("guess-work" in text for text in service.output)


VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


async def _status(key: str, headers: list[tuple[bytes, bytes]]) -> int:
    """The status that a middleware with this key answers; 200 stands for letting it in."""
    statuses: list[int] = []

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        statuses.append(200)

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/callback", "headers": headers}
    await ApiKeyMiddleware(app, keys={"current": SecretStr(key)})(scope, receive, send)
    [status] = statuses
    return status


@given(key=st.text(VISIBLE, min_size=1, max_size=100))
async def test_every_key_is_accepted(key: str) -> None:
    assert await _status(key, [(b"x-api-key", key.encode())]) == 200


@given(key=st.text(VISIBLE, min_size=1, max_size=20), guess=st.binary(max_size=20))
async def test_no_other_bytes_are_accepted(key: str, guess: bytes) -> None:
    expected = 200 if guess == key.encode() else 401
    assert await _status(key, [(b"x-api-key", guess)]) == expected


def test_a_middleware_without_a_key_cannot_be_made() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    with pytest.raises(ValueError, match="key"):
        ApiKeyMiddleware(app, keys={})
