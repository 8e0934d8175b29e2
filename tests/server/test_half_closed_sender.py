"""A sender that closes its half of the connection, shutdown(SHUT_WR), gets its answers."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service
from tests.support.tls import Certificate

T = TypeVar("T")


@pytest.mark.parametrize("callbacks", [1, 3])
def test_it_gets_its_answers(
    callbacks: int, service: Service, sqlite_database: SqliteDatabase
) -> None:
    for _ in range(10):
        with Wire(service) as wire:
            for number in range(callbacks):
                wire.send(request(content=body("d-1", f"S{number}")))
            wire.half_close()
            assert [wire.status() for _ in range(callbacks)] == [200] * callbacks
            assert wire.rest() == b""
    assert sqlite_database.statuses() == {"d-1": f"S{callbacks - 1}"}


def test_a_broken_body_gets_its_answer(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(b"POST /callback HTTP/1.1\r\nTransfer-Encoding: chunked\r\n%b" % KEY_HEADER)
        wire.send(b"\r\n?\r\n")
        wire.half_close()
        assert wire.status() == 400
        assert wire.rest() == b""


def test_an_incomplete_body_is_a_hang_up(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(content=body()[:5], length=100))
        wire.half_close()
        assert wire.rest() == b""
    assert service.wait_for_event("disconnected")["reason"] == "sender_hung_up"


def test_a_sender_that_closes_its_half_of_tls_gets_its_answer(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    certificate = Certificate(tmp_path)
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, **certificate.environment
    )
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certificate.client_context().wrap_bio(received, to_send, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", service.port), LIMIT_SECONDS) as plain:

        def until_received(operation: Callable[[], T]) -> T:
            while True:
                try:
                    return operation()
                except ssl.SSLWantReadError:
                    plain.sendall(to_send.read())
                    received.write(plain.recv(65_536))

        until_received(tls.do_handshake)
        tls.write(request(content=body("d-1", "LAST")))
        with suppress(ssl.SSLWantReadError):  # it would wait for the other end
            tls.unwrap()
        assert until_received(lambda: tls.read(65_536)).startswith(b"HTTP/1.1 200 ")
    assert sqlite_database.statuses() == {"d-1": "LAST"}
