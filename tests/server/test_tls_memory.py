"""The memory of connections with TLS is bounded, whatever they send without the key."""

import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire, request
from tests.support.service import Service
from tests.support.tls import Certificate

pytestmark = pytest.mark.posix

CONNECTIONS: Final = 300
KIBIBYTE: Final = 2**10


def test_a_body_without_the_key_is_neither_decrypted_nor_held(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    certificate = Certificate(tmp_path)
    tls = certificate.client_context()
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, **certificate.environment
    )
    process = psutil.Process(service.pid)
    with ExitStack() as stack, ThreadPoolExecutor(8) as senders:
        first = stack.enter_context(Wire(service, tls=tls))
        first.send(request(content=body()))
        assert first.status() == 200
        before = process.memory_info().rss
        wires = [stack.enter_context(Wire(service, tls=tls)) for _ in range(CONNECTIONS)]
        process.suspend()  # so that all comes at the same moment
        for wire in wires:
            _send_what_fits(wire, request(headers=b"", content=b"x" * 600_000))
        process.resume()
        assert [*senders.map(Wire.status, wires)] == [401] * CONNECTIONS
        assert process.memory_info().rss - before < CONNECTIONS * 128 * KIBIBYTE
        # And those of closed connections are given back.
        eventually(lambda: process.memory_info().rss - before < CONNECTIONS * 40 * KIBIBYTE, 60)


def _send_what_fits(wire: Wire, data: bytes) -> None:
    try:
        for start in range(0, len(data), 16 * KIBIBYTE):
            wire.send_until_full(data[start : start + 16 * KIBIBYTE])
    except ssl.SSLWantWriteError:
        pass
