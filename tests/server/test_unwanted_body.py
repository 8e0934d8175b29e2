"""An answer that makes the body unwanted ends the connection: no more is waited for, or held."""

from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service

MEBIBYTE = 2**20

UNWANTED = {
    401: request(headers=b"", length=1000),
    404: request(b"/elsewhere", length=1000),
    405: request(b"/health", length=1000),
    413: request(length=2**30) + b" " * MEBIBYTE,
}


@pytest.fixture
def service(start_service: Callable[..., Service], sqlite_database: SqliteDatabase) -> Service:
    """The service, with all the time in the world, and small bodies."""
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODY_BYTES="1 MiB",
    )


@pytest.mark.parametrize("status", UNWANTED)
def test_the_connection_ends_though_the_body_does_not_come(status: int, service: Service) -> None:
    with Wire(service) as wire:
        wire.send(UNWANTED[status])
        answered, headers, _ = wire.answer()
        assert (answered, headers["connection"]) == (status, "close")
        assert wire.rest() == b""


def test_one_that_was_not_asked_for_is_not_waited_for(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(headers=b"Expect: 100-continue\r\n", length=10))
        assert wire.status() == 401
        assert wire.rest() == b""


def test_one_that_is_here_does_not_cost_its_connection(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(headers=b"", content=b"0123456789"))
        assert wire.status() == 401
        wire.send(request(content=body()))
        assert wire.status() == 200


def test_one_without_an_end_is_neither_held_nor_read_for_long(service: Service) -> None:
    process = psutil.Process(service.pid)
    with Wire(service) as wire:
        before = process.memory_info().rss
        wire.send(request(headers=b"", length=2**40))
        assert wire.status() == 401
        while not wire.send_until_cut_off(b"x" * MEBIBYTE, 16):  # at most LINGER_SECONDS
            assert process.memory_info().rss - before < 16 * MEBIBYTE


def test_bytes_that_came_with_the_headers_are_not_held(service: Service) -> None:
    content = b"x" * 200_000  # less than one read may bring
    with ExitStack() as stack:
        before = psutil.Process(service.pid).memory_info().rss
        for _ in range(200):
            wire = stack.enter_context(Wire(service))
            wire.send(request(headers=b"", content=content))
            assert wire.status() == 401
        assert psutil.Process(service.pid).memory_info().rss - before < 16 * MEBIBYTE


@pytest.mark.parametrize(
    ("headers", "status"), [(b"", 401), (KEY_HEADER, 413), (b"Connection: close\r\n", 401)]
)
def test_its_sender_can_fetch_the_answer_though_all_of_it_comes(
    headers: bytes, status: int, service: Service
) -> None:
    for _ in range(5):
        with Wire(service) as wire:
            wire.send(request(content=b" " * (8 * MEBIBYTE), headers=headers))
            assert wire.status() == status
            assert wire.rest() == b""
