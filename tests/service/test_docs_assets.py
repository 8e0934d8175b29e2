"""The assets of /docs are served from memory: compressed once, with no file descriptor for each."""

import gzip
import resource
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import psutil
import pytest

from sam.callback.service.docs import ASSETS
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.raw import request
from tests.support.service import Service

DOWNLOADS = 100


@pytest.mark.parametrize("path", ASSETS)
def test_compressed_for_those_that_take_it(path: str, service: Service) -> None:
    plain = service.get(path, **{"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert len(plain.content) == int(plain.headers["Content-Length"])
    compressed = service.get(path, **{"Accept-Encoding": "br, gzip"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert int(compressed.headers["Content-Length"]) == len(gzip.compress(plain.content, mtime=0))
    for answer in (plain, compressed):
        assert answer.content == plain.content
        assert answer.headers["Content-Type"] == ASSETS[path]
        assert answer.headers["Vary"] == "Accept-Encoding"
    head = httpx.head(service.url + path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.posix
def test_unread_downloads_cost_no_callback_and_no_traceback(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    service.wait_for_event("database_up")
    descriptors = psutil.Process(service.pid).num_fds() + DOWNLOADS + DOWNLOADS // 2
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
    # Several on each connection: the system itself keeps some megabytes of what is not read.
    download = request(b"/docs/assets/swagger-ui-bundle.js", method=b"GET", headers=b"") * 6
    with ExitStack() as stack:
        for _ in range(DOWNLOADS):
            unread = stack.enter_context(socket.socket())
            unread.settimeout(LIMIT_SECONDS)
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the rest stays there
            unread.connect(("127.0.0.1", service.port))
            unread.sendall(download)
            assert unread.recv(12) == b"HTTP/1.1 200"
        assert service.post(b'{"deploymentId": "d-1", "status": "DONE"}').status_code == 200
    assert service.stop() == 0
    events = Counter(line["event"] for line in service.lines)
    assert not [line for line in service.lines if "exception" in line]
    assert max(events["request"], events["connection_cut"], events["refused"]) <= 10, events
