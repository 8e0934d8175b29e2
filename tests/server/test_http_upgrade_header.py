"""Upgrade headers are ignored, and the body is kept: Java's HTTP client asks for HTTP/2 so."""

import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service

# As java.net.http.HttpClient sends them by default.
H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA\r\n"
    b"Upgrade: h2c\r\n"
)
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize("wish", [H2C, WEBSOCKET])
def test_the_upgrade_is_ignored_and_the_callback_taken(
    wish: bytes, service: Service, sqlite_database: SqliteDatabase
) -> None:
    sent = request(content=body("d-1", "UPGRADED"), headers=wish + KEY_HEADER)
    for pieces in (1, 2, 400):
        size = -(-len(sent) // pieces)
        with Wire(service) as wire:
            for start in range(0, len(sent), size):
                wire.send(sent[start : start + size])
            assert wire.status() == 200, pieces
            assert sqlite_database.statuses() == {"d-1": "UPGRADED"}
            wire.send(request(content=body("d-1", "NEXT")))
            assert wire.status() == 200
        assert sqlite_database.statuses() == {"d-1": "NEXT"}


def test_it_is_no_way_past_the_key(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(request(content=body(), headers=H2C) + request(content=body()))
        assert [wire.status(), wire.status()] == [401, 200]


def test_a_tunnel_is_refused(service: Service) -> None:
    with Wire(service) as wire:
        wire.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.status() == 400
