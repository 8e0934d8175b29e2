"""Limits with TLS: the handshake is timed, counted and evicted like headers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire, request
from tests.support.service import Service
from tests.support.tls import Certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """The certificate of the service."""
    return Certificate(tmp_path)


@pytest.fixture
def start(
    start_service: Callable[..., Service],
    sqlite_database: SqliteDatabase,
    certificate: Certificate,
) -> Callable[..., Service]:
    """Starts the service with TLS."""

    def start(**environment: str) -> Service:
        return start_service(
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
            **certificate.environment,
            **environment,
        )

    return start


def test_a_callback_is_taken(
    start: Callable[..., Service], certificate: Certificate, sqlite_database: SqliteDatabase
) -> None:
    with Wire(start(), tls=certificate.client_context()) as wire:
        for status in ("FIRST", "SECOND"):
            wire.send(request(content=body("d-1", status)))
            assert wire.status() == 200
            assert sqlite_database.statuses() == {"d-1": status}


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02"])
def test_a_handshake_that_does_not_end_is_cut_off(
    begun: bytes, start: Callable[..., Service]
) -> None:
    service = start(CALLBACK_HEADER_TIMEOUT="0.5")
    with Wire(service) as wire:
        wire.send(begun)
        assert wire.rest() == b""
    line = service.wait_for_event("connection_cut")
    assert (line["level"], line["reason"]) == ("warning", "handshake_too_slow")


def test_an_unfinished_handshake_is_evicted_at_the_limit(
    start: Callable[..., Service], certificate: Certificate
) -> None:
    service = start(CALLBACK_MAX_CONNECTIONS="2", CALLBACK_HEADER_TIMEOUT="10")
    with Wire(service) as oldest, Wire(service) as other:
        with Wire(service, tls=certificate.client_context()) as wire:
            wire.send(request(content=body()))
            assert wire.status() == 200
        assert not oldest.is_open()
        assert other.is_open()
    assert service.wait_for_event("connection_cut")["reason"] == "too_many_connections"


def test_bytes_that_are_no_handshake_are_cut_off_and_logged(start: Callable[..., Service]) -> None:
    service = start()
    with Wire(service) as wire:
        wire.send(request(content=body()))
        wire.rest()
    line = service.wait_for_event("connection_cut")
    assert (line["level"], line["reason"]) == ("warning", "handshake_failed")
    assert line["client"] == "127.0.0.1"


def test_headers_that_come_too_slowly_are_408(
    start: Callable[..., Service], certificate: Certificate
) -> None:
    service = start(CALLBACK_HEADER_TIMEOUT="4")  # in which a handshake ends
    with Wire(service, tls=certificate.client_context()) as wire:
        wire.send(b"POST /callback HTTP/1.1\r\n")
        assert wire.status() == 408
        assert wire.rest() == b""


def test_a_handshake_under_way_does_not_hold_up_the_end(start: Callable[..., Service]) -> None:
    service = start()
    with Wire(service):
        assert service.stop() == 0
