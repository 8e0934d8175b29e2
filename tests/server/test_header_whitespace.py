"""Blanks and tabs round a header's value are not part of it (RFC 9110, 5.5)."""

import itertools
from typing import Final

import pytest

from tests.support.callbacks import body
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import KEY, Service

BLANKS: Final = [b"", b" ", b"\t", b" \t  \t"]


def test_they_do_not_cost_a_callback_its_key(service: Service) -> None:
    with Wire(service) as wire:
        for before, behind in itertools.product(BLANKS, BLANKS):
            key = b"X-API-KEY:%b%b%b\r\n" % (before, KEY.encode(), behind)
            wire.send(request(content=body(), headers=key))
            assert wire.status() == 200


@pytest.mark.parametrize("other", [b"\xa0", b"\x85", b"\xe2\x80\x83"])
def test_other_white_space_is_part_of_the_key(other: bytes, service: Service) -> None:
    with Wire(service) as wire:
        for key in (KEY.encode() + other, other + KEY.encode()):
            wire.send(request(content=body(), headers=b"X-API-KEY: %b\r\n" % key))
            assert wire.status() == 401


def test_a_key_of_blanks_is_no_key(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(content=body(), headers=b"X-API-KEY: \t \r\n"))
        assert wire.status() == 401


def test_they_hide_no_request_id_charset_or_expectation(service: Service) -> None:
    content = '{"deploymentId": "d-1", "status": "FALLÓ"}'.encode("latin-1")
    headers = KEY_HEADER + b"X-Request-ID: id-1 \t\r\nExpect: 100-continue \r\n"
    headers += b"Content-Type: application/json; charset=ISO-8859-1\t\r\n"
    with Wire(service) as wire:
        wire.send(request(length=len(content), headers=headers))
        assert wire.status() == 100
        wire.send(content)
        status, answered, _ = wire.answer()
        assert (status, answered["x-request-id"]) == (200, "id-1")
    assert service.wait_for_event("callback")["status"] == "FALLÓ"
