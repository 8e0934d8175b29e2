"""Time limits and size limits of a connection: slow, greedy and endless senders are cut off."""

from collections.abc import Callable

import psutil
import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service

MEBIBYTE = 2**20


@pytest.fixture
def service(start_service: Callable[..., Service], sqlite_database: SqliteDatabase) -> Service:
    """The service with small limits, and all the time in the world."""
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_HEADER_BYTES="4 KiB",
        CALLBACK_MAX_HEADERS="20",
        CALLBACK_MAX_BODY_BYTES="1 MiB",
    )


@pytest.fixture
def impatient(start_service: Callable[..., Service], sqlite_database: SqliteDatabase) -> Service:
    """The service with little patience."""
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_HEADER_TIMEOUT="1",
        CALLBACK_BODY_TIMEOUT="1",
    )


@pytest.mark.parametrize("begun", [b"G", b"GET /health HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: y"])
def test_headers_that_come_too_slowly_are_408(begun: bytes, impatient: Service) -> None:
    with Wire(impatient) as wire:
        wire.send(begun)
        status, headers, content = wire.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert content == b'{"detail":"The headers took more than 1 seconds."}'
        assert wire.rest() == b""
    line = impatient.wait_for_event("refused_early")
    assert (line["level"], line["reason"]) == ("warning", "headers_too_slow")
    assert (line["http_status"], line["client"], line["has_key"]) == (408, "127.0.0.1", False)


def test_a_byte_now_and_then_does_not_prolong_it(impatient: Service) -> None:
    with Wire(impatient) as wire:
        wire.send(b"GET /health HTTP/1.1\r\nX: ")
        while wire.hears_nothing(0.05):
            wire.send(b"x")
        assert wire.status() == 408


def test_slow_headers_of_a_later_request_are_408_with_the_key_too(impatient: Service) -> None:
    with Wire(impatient) as wire:
        wire.send(request(content=body()) + b"POST /callback HT")
        assert wire.status() == 200
        assert wire.status() == 408


def test_a_silent_connection_is_closed_without_an_answer(impatient: Service) -> None:
    with Wire(impatient) as wire:
        assert wire.rest() == b""
    line = impatient.wait_for_event("connection_cut")
    assert (line["level"], line["reason"]) == ("warning", "nothing_sent")


def test_only_an_authenticated_connection_may_be_idle_for_longer(impatient: Service) -> None:
    with Wire(impatient) as with_key, Wire(impatient) as without_key:
        with_key.send(request(content=body()))
        assert with_key.status() == 200
        without_key.send(request(b"/health", method=b"GET", headers=b""))
        assert without_key.status() == 200
        assert without_key.rest() == b""
        with_key.send(request(content=body()))
        assert with_key.status() == 200


def test_an_authenticated_connection_is_closed_after_the_keep_alive_timeout(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_KEEP_ALIVE_TIMEOUT="0.2",
    )
    with Wire(service) as wire:
        wire.send(request(content=body()) + b"\r\n")  # what follows is no request yet
        assert wire.status() == 200
        assert wire.rest() == b""


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        (b"GET /%b HTTP/1.1\r\n\r\n" % (b"u" * 3000), 414, "url_too_long"),
        (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 5000), 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n%b\r\n" % (b"X: y\r\n" * 21), 431, "too_many_headers"),
    ],
)
def test_a_url_or_headers_over_the_limit_are_refused(
    head: bytes, status: int, reason: str, service: Service
) -> None:
    with Wire(service) as wire:
        wire.send(head)
        assert wire.status() == status
        assert wire.rest() == b""
    assert service.wait_for_event("refused_early")["reason"] == reason


def test_a_url_or_headers_at_the_limit_are_taken(service: Service) -> None:
    for head in (
        b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"u" * 2047),
        b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * 4094),
        b"GET / HTTP/1.1\r\n%b\r\n" % (b"X: y\r\n" * 20),
    ):
        with Wire(service) as wire:
            wire.send(head)
            assert wire.status() == 401


@pytest.mark.parametrize(
    ("begun", "more", "status"),
    [
        (b"GET /", b"u" * 1000, 414),
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 1000, 431),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 100, 431),
        # Behind a whole request, where its beginning is harder to find.
        (request(b"/health", method=b"GET") + b"GET / HTTP/1.1\r\nX: ", b"x" * 1000, 431),
    ],
)
def test_endless_ones_are_not_held(
    begun: bytes, more: bytes, status: int, service: Service
) -> None:
    with Wire(service) as wire:
        before = psutil.Process(service.pid).memory_info().rss
        wire.send(begun)
        if b"/health" in begun:
            assert wire.status() == 200
        wire.send_until_cut_off(more, 64)
        assert wire.status() == status
        while not wire.send_until_cut_off(b"x" * MEBIBYTE, 16):  # at most LINGER_SECONDS
            pass
        assert psutil.Process(service.pid).memory_info().rss - before < 16 * MEBIBYTE


def test_a_client_that_does_not_read_its_answer_is_cut_off(impatient: Service) -> None:
    with Wire(impatient) as wire:
        wire.send(request(b"/docs/assets/swagger-ui-bundle.js", method=b"GET", headers=b"") * 10)
        line = impatient.wait_for_event("connection_cut")
        assert line["reason"] == "answer_not_fetched"
    assert impatient.stop() == 0
    assert "crash" not in [line["event"] for line in impatient.lines]


def test_of_many_requests_at_once_the_first_are_answered(service: Service) -> None:
    with Wire(service) as wire:
        before = psutil.Process(service.pid).memory_info().rss
        wire.send(request(b"/health", method=b"GET", headers=b"") * 1000)
        answers = wire.rest()
        assert answers.count(b"HTTP/1.1 200 OK") == 17
        assert answers.count(b"connection: close") == 1
        assert answers.endswith(b'{"status":"ok"}')
    assert psutil.Process(service.pid).memory_info().rss - before < 16 * MEBIBYTE
    assert service.wait_for_event("refused_early")["reason"] == "too_many_pipelined"


@pytest.mark.parametrize(
    ("then", "statuses"),
    [
        (b"\x00\r\n\r\n", [200]),
        (b"GET /%b" % (b"u" * 3000), [200]),
        (
            b"POST /callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\nzz\r\n"
            % KEY_HEADER,
            [200, 400],
        ),
    ],
)
def test_a_broken_request_does_not_cost_the_one_before_its_answer(
    then: bytes, statuses: list[int], service: Service, sqlite_database: SqliteDatabase
) -> None:
    with Wire(service) as wire:
        wire.send(request(content=body("d-1", "FIRST")) + then)
        assert [wire.status() for _ in statuses] == statuses
        assert wire.rest() == b""
    assert sqlite_database.statuses() == {"d-1": "FIRST"}
    assert "crash" not in {line["event"] for line in service.lines}


def test_a_body_that_is_broken_is_400(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(
            b"POST /callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\nzz\r\n"
            % KEY_HEADER
        )
        assert wire.status() == 400
        assert wire.rest() == b""
    line = service.wait_for_event("refused")
    assert (line["reason"], line["http_status"]) == ("bad_request", 400)


def test_no_answer_names_the_server(service: Service) -> None:
    for sent in (b"\x00\r\n\r\n", request(content=body()), request(headers=b"")):
        with Wire(service) as wire:
            wire.send(sent)
            _, headers, content = wire.answer()
            assert "server" not in headers
            assert not any(name in content.lower() for name in (b"uvicorn", b"python", b"fastapi"))
