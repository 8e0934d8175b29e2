"""A slow or hung disk: waiting for a turn is not its fault, and takes no memory."""

import asyncio
import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import psutil
import pytest

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.store import Kind
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service

pytestmark = pytest.mark.faults

MIB = 2**20
NOT_UNDERSTOOD = json.dumps({"deployment": "d-1", "state": "DONE", "out": "x" * 100_000}).encode()


@contextmanager
def every_fsync_takes(seconds: float, service: Service) -> Iterator[None]:
    """Each fsync of the service begins so much later."""
    strace = shutil.which("strace")
    assert strace, "this test needs strace: `make setup`"
    calls = "fsync,fdatasync"
    inject = f"inject={calls}:delay_enter={int(seconds * 1_000_000)}"
    tracer = subprocess.Popen(
        [
            strace,
            "-f",
            "-o",
            "/dev/null",
            "-p",
            str(service.pid),
            "-e",
            f"trace={calls}",
            "-e",
            inject,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # what it holds up goes on
        tracer.communicate(timeout=LIMIT_SECONDS)


def send(service: Service, content: bytes, *, number: int, connections: int) -> Counter[int]:
    """Send a body so often; return how many answers of each HTTP status there were."""
    statuses: Counter[int] = Counter()

    async def keep_sending(client: httpx.AsyncClient, left: Iterator[int]) -> None:
        for _ in left:
            answer = await client.post("/callback", content=content)
            statuses[answer.status_code] += 1

    async def run() -> None:
        left = iter(range(number))
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        async with httpx.AsyncClient(
            base_url=service.url, headers={"X-API-KEY": KEY}, timeout=LIMIT_SECONDS, limits=limits
        ) as client:
            await asyncio.gather(*(keep_sending(client, left) for _ in range(connections)))

    asyncio.run(run())
    return statuses


def invalid_entries(service: Service) -> int:
    with closing(SpoolFile(service.directory / "var/callback-spool.db", MIB)) as file:
        return file.totals()[Kind.INVALID].entries


def events(service: Service) -> list[str]:
    return [line["event"] for line in service.lines if line["event"].startswith("spool_")]


def test_memory_stays_while_the_disk_hangs_and_the_spool_is_used_again_afterwards(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    process = psutil.Process(service.pid)
    send(service, NOT_UNDERSTOOD, number=100, connections=16)
    kept, before = invalid_entries(service), process.memory_info().rss
    assert kept == 100
    with every_fsync_takes(3_600, service):
        statuses = send(service, NOT_UNDERSTOOD, number=2_000, connections=16)
        assert statuses.keys() <= {422, 503}
        assert process.memory_info().rss - before < 20 * MIB
        assert httpx.get(service.url + "/ready").json()["status"] == "degraded"
        assert events(service) == ["spool_open", "spool_unavailable"]
    service.wait_for_event("spool_available")
    assert send(service, NOT_UNDERSTOOD, number=10, connections=1) == {422: 10}
    assert invalid_entries(service) > kept + 10  # some were written in the end
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    assert service.post(body("d-1", "KEPT")).json()["outcome"] == "queued"
    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    eventually(lambda: sqlite_database.statuses() == {"d-1": "KEPT"})


def test_a_slow_disk_is_not_blamed_for_what_waits_for_its_turn(service: Service) -> None:
    """Together they wait for longer than any call to the disk may take."""
    with every_fsync_takes(0.05, service):
        statuses = send(service, b'{"deployment": "d-1"}', number=300, connections=300)
    assert statuses == {422: 300}
    assert events(service) == ["spool_open"]
    assert invalid_entries(service) == 300
