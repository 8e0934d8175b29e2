"""Started with closed standard streams, as below a Windows wrapper without a console, it serves."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import spooled
from tests.support.service import KEY, clean_environment

CLOSED = {
    "input": "<&-",
    "output": ">&-",
    "errors": "2>&-",
    "all": "<&- >&- 2>&-",
}
PRINT_IN_C = """
import ctypes, threading
libc = ctypes.CDLL(None)
from sam.callback.inbox.sqlite.spool import Spool
opened = Spool.open
async def open_and_print(self):
    await opened(self)
    for descriptor in (1, 2):
        libc.write(descriptor, b"what a library prints" * 500, 10_000)
Spool.open = open_and_print
"""

pytestmark = pytest.mark.posix


@contextmanager
def started(
    closed: str, directory: Path, **environment: str
) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m sam.callback {closed}', sys.executable],
        cwd=directory,
        env=clean_environment(
            CALLBACK_API_KEY=KEY, CALLBACK_HOST="127.0.0.1", CALLBACK_PORT="0", **environment
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # unless it has ended


@contextmanager
def serving(closed: str, directory: Path, **environment: str) -> Iterator[httpx.Client]:
    """The service, which may not be able to say where it listens; it ends with status 0."""
    with started(closed, directory, **environment) as process:
        ports: list[int] = []

        def listens() -> bool:
            assert process.poll() is None, "it has ended"
            ports.extend(
                each.laddr.port
                for each in psutil.Process(process.pid).net_connections("tcp4")
                if each.status == psutil.CONN_LISTEN
            )
            return bool(ports)

        eventually(listens)
        headers = {"X-API-KEY": KEY}
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", headers=headers) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_SECONDS) == 0


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
def test_it_serves_and_ends_cleanly(
    closed: str, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    connection_string = sqlite_database.connection_string
    with serving(closed, tmp_path, SQL_SAM_CONNECTION_STRING=connection_string) as client:
        answer = client.post("/callback", content=body("d-1", "DONE"))
        assert answer.json()["outcome"] == "updated"
    assert sqlite_database.statuses() == {"d-1": "DONE"}


def test_output_of_a_library_does_not_get_into_the_spool(
    sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    """Without a standard stream, the first file that is opened would be given its descriptor."""
    tmp_path.joinpath("sitecustomize.py").write_text(PRINT_IN_C, encoding="utf-8")
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    with serving(
        CLOSED["all"],
        tmp_path,
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        PYTHONPATH=str(tmp_path),
    ) as client:
        answer = client.post("/callback", content=body("d-1", "DONE"))
        assert answer.json()["outcome"] == "queued"
    assert set(spooled(tmp_path / "var/callback-spool.db")) == {"d-1"}


def test_a_refused_start_ends_cleanly(tmp_path: Path) -> None:
    with started(CLOSED["all"], tmp_path) as process:
        assert process.wait(LIMIT_SECONDS) == 2
    assert list(tmp_path.iterdir()) == []
