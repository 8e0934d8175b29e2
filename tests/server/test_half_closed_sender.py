"""A sender that closes its half of the connection, shutdown(SHUT_WR), gets its answers."""

import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service


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


def test_so_does_one_whose_body_is_broken(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(b"POST /callback HTTP/1.1\r\nTransfer-Encoding: chunked\r\n%b" % KEY_HEADER)
        wire.send(b"\r\n?\r\n")
        wire.half_close()
        assert wire.status() == 400
        assert wire.rest() == b""


def test_one_that_has_not_sent_all_of_it_has_hung_up(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(content=body()[:5], length=100))
        wire.half_close()
        assert wire.rest() == b""
    assert service.wait_for_event("disconnected")["reason"] == "sender_hung_up"
