"""SIGTERM, SIGHUP and Ctrl-C: requests in flight are answered, then the exit status is 0."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import PostgresServer, SqliteDatabase
from tests.support.service import KEY, Service, clean_environment

pytestmark = pytest.mark.fresh


SIGNALS: Final = ["SIGTERM", "SIGINT", "SIGHUP"]  # by name: not all are there on Windows


@pytest.mark.parametrize("name", SIGNALS)
def test_the_exit_status_is_0(name: str, service: Service) -> None:
    assert service.post(body()).status_code == 200
    assert service.stop(getattr(signal, name)) == 0


TOLD_WHILE_IT_STARTS: Final = """
import os, signal
from sam.callback import __main__
from sam.callback.service import main
main.create_app = lambda settings: os.kill(os.getpid(), signal.{})
__main__.main()
"""


@pytest.mark.parametrize("name", SIGNALS)
def test_the_exit_status_is_0_during_the_start(name: str, sqlite_database: SqliteDatabase) -> None:
    started = subprocess.run(
        [sys.executable, "-c", TOLD_WHILE_IT_STARTS.format(name)],
        env=clean_environment(
            CALLBACK_API_KEY=KEY, SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_exit_status_is_0_however_often_it_is_told(name: str, service: Service) -> None:
    has_ended = threading.Event()

    def keep_telling() -> None:
        while not has_ended.wait(0.001):
            service.send_signal(getattr(signal, name))

    telling = threading.Thread(target=keep_telling)
    telling.start()
    try:
        assert service.stop() == 0
    finally:
        has_ended.set()
        telling.join()


@contextmanager
def half_a_callback(service: Service) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection that has sent the beginning of a callback, and the rest of it."""
    content = body("d-1", "LAST")
    head = (
        f"POST /callback HTTP/1.1\r\nHost: x\r\nX-API-KEY: {KEY}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(head.encode() + content[:5])
        service.post(body())  # by now the first one is being handled too
        yield connection, content[5:]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_callback_whose_body_is_still_coming_is_answered(
    name: str, service: Service, sqlite_database: SqliteDatabase
) -> None:
    with half_a_callback(service) as (connection, rest):
        service.send_signal(getattr(signal, name))
        service.wait_for_event("Shutting down")
        connection.sendall(rest)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert service.stop() == 0
    assert sqlite_database.statuses() == {"d-1": "LAST"}


def test_a_callback_whose_body_does_not_come_is_answered_503(service: Service) -> None:
    with half_a_callback(service) as (connection, _):
        service.send_signal(signal.SIGTERM)
        assert connection.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert service.stop() == 0
    (line,) = (line for line in service.lines if line["event"] == "refused")
    assert line["reason"] == "shutdown"
    assert not [line for line in service.lines if "exception" in line]


def test_a_second_ctrl_c_does_not_become_a_third_when_the_drain_is_over(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    """A third would have uvicorn drop what is in flight."""
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DRAIN_SECONDS="2"
    )
    with half_a_callback(service) as (connection, rest):
        told = time.monotonic()
        service.send_signal(signal.SIGINT)
        eventually(lambda: service.ready().status_code == 503)
        service.send_signal(signal.SIGINT)
        service.wait_for_event("Shutting down")
        eventually(lambda: time.monotonic() > told + 2.5)  # when the drain would have been over
        connection.sendall(rest)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert service.stop() == 0


def test_a_database_that_has_gone_silent_does_not_hold_it(
    start_service: Callable[..., Service], postgres_server: PostgresServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        service = start_service(
            SQL_SAM_CONNECTION_STRING=postgres_server.connection_string(
                "postgres", port=silent.getsockname()[1]
            ),
            CALLBACK_DB_TIMEOUT="0.3",
        )
        assert service.post(body()).json()["outcome"] == "queued"
        assert service.stop() == 0


@contextmanager
def serving(
    sqlite_database: SqliteDatabase,
    *prefix: str,
    **options: Any,  # noqa: ANN401 - subprocess'
) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(
        [*prefix, sys.executable, "-m", "sam.callback"],
        env=clean_environment(
            CALLBACK_API_KEY=KEY,
            CALLBACK_HOST="127.0.0.1",
            CALLBACK_PORT="0",
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        ),
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # unless it has ended


@pytest.mark.posix
def test_a_terminal_that_hangs_up_ends_it(sqlite_database: SqliteDatabase, tmp_path: Path) -> None:
    """Though nothing that it says then can be written."""
    import fcntl  # noqa: PLC0415 - not on Windows
    import pty  # noqa: PLC0415
    import termios  # noqa: PLC0415

    ours, its = pty.openpty()
    with serving(
        sqlite_database,
        cwd=tmp_path,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(its)
        said = b""
        while b'"listening"' not in said:
            said += os.read(ours, 10_000)
        os.close(ours)
        assert process.wait(LIMIT_SECONDS) == 0


@pytest.mark.posix
def test_a_log_that_nothing_reads_any_more_costs_no_exit_status(
    sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    with serving(sqlite_database, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert any(b'"listening"' in line for line in process.stdout)
        process.stdout.close()
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 0


@pytest.mark.posix
def test_below_nohup_a_hangup_is_ignored(sqlite_database: SqliteDatabase, tmp_path: Path) -> None:
    with serving(
        sqlite_database,
        *("sh", "-c", 'trap "" HUP; exec "$@"', "-"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        port = next(
            fields["port"]
            for fields in map(json.loads, process.stdout)
            if fields["event"] == "listening"
        )
        process.send_signal(signal.SIGHUP)
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 0
