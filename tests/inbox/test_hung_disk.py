"""A hung disk: new entries are refused at once, and nothing of them is kept.

And what only waits for its turn is not the disk's fault.
"""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

from sam.callback.inbox.sqlite import spool as spool_module
from sam.callback.inbox.sqlite.disk_thread import DiskHangsError, DiskThread
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.spool import Spool, SpoolUnavailableError
from sam.callback.inbox.store import Entry, Kind
from sam.callback.threads import DaemonThreadPool
from tests.support.conditions import LIMIT_SECONDS
from tests.support.inboxes import OpenSpool, entry


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events that the spool logs."""
    events: list[str] = []

    def log(event: str, **_: object) -> None:
        events.append(event)

    monkeypatch.setattr(spool_module, "_log", SimpleNamespace(critical=log, info=log))
    return events


@pytest.fixture
async def spool(open_spool: OpenSpool, events: list[str]) -> AsyncIterator[Spool]:
    async with open_spool() as spool:
        assert events == ["spool_open"]
        yield spool


class Disk:
    """Calls that wait until they may go on, as in an fsync that does not return."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.is_reached = threading.Event()
        self.writes: list[int] = []

    async def reached(self) -> None:
        await asyncio.to_thread(self.is_reached.wait, 60)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Writes wait for it."""
    disk = Disk()
    put = SpoolFile.put

    def slow_put(file: SpoolFile, entries: list[Entry], last_number: int) -> list[bool]:
        disk.writes.append(len(entries))
        disk.is_reached.set()
        disk.goes_on.wait(60)
        return put(file, entries, last_number)

    monkeypatch.setattr(SpoolFile, "put", slow_put)
    yield disk
    disk.goes_on.set()


@contextmanager
def is_at_once() -> Iterator[None]:
    """Within half of what is waited for."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < LIMIT_SECONDS / 2, "it waited"


async def test_waiting_entries_are_refused_with_the_hung_ones_and_not_kept(
    spool: Spool, disk: Disk, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "IO_SECONDS", 0.2)
    payloads = [bytes([number]) * 100_000 for number in range(50)]
    before = [sys.getrefcount(payload) for payload in payloads]

    async def put(number: int) -> None:
        with pytest.raises(SpoolUnavailableError, match="did not answer"):
            await spool.put([entry(number, payload=payloads[number])])

    await asyncio.gather(*(put(number) for number in range(50)))
    # The first is in the thread's hands.
    assert [sys.getrefcount(payload) for payload in payloads][1:] == before[1:]
    assert disk.writes == [1]
    assert events == ["spool_open", "spool_unavailable"]


async def test_a_call_that_waits_is_refused_with_the_one_that_hangs_and_not_kept() -> None:
    thread = DiskThread("test")
    goes_on = threading.Event()
    argument = object()
    before = sys.getrefcount(argument)

    async def call() -> None:
        with pytest.raises(DiskHangsError):
            await thread.run(partial(id, argument), 60)

    async def hang() -> None:
        with pytest.raises(DiskHangsError):
            await thread.run(goes_on.wait, 0.1)

    await asyncio.gather(hang(), call(), call())  # two that wait
    await call()  # and one that comes later
    assert sys.getrefcount(argument) == before
    goes_on.set()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await thread.run(partial(id, argument), 60) == id(argument)
            except DiskHangsError:
                await asyncio.sleep(0.01)
            else:
                break
    thread.shutdown()


async def test_while_it_hangs_every_entry_is_refused_at_once(
    spool: Spool, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "IO_SECONDS", 0.1)
    with pytest.raises(SpoolUnavailableError):
        await spool.put([entry(1)])
    monkeypatch.setattr(spool_module, "IO_SECONDS", LIMIT_SECONDS)
    with is_at_once():
        for number in range(1_000):
            with pytest.raises(SpoolUnavailableError):
                await spool.put([entry(number)])
        with pytest.raises(SpoolUnavailableError):
            await spool.recheck()
        with pytest.raises(SpoolUnavailableError):
            await spool.with_entries(["d-1"])
    assert disk.writes == [1]
    assert not spool.is_writable
    assert spool.may_have_entry("d-1")


async def test_when_it_is_back_it_is_used_again(
    spool: Spool, disk: Disk, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "IO_SECONDS", 0.1)
    with pytest.raises(SpoolUnavailableError):
        await spool.put([entry(1)])
    monkeypatch.setattr(spool_module, "IO_SECONDS", LIMIT_SECONDS)
    disk.goes_on.set()
    async with asyncio.timeout(60):
        while not spool.is_writable:
            try:
                await spool.recheck()
            except SpoolUnavailableError:
                await asyncio.sleep(0.01)
    assert events == ["spool_open", "spool_unavailable", "spool_available"]
    assert spool.counts()["queued"] == 1  # it was written in the end; that is known
    assert await spool.put([entry(2)]) == [True]


async def test_waiting_for_the_thread_is_not_the_disks_fault(
    spool: Spool, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "IO_SECONDS", 2.0)
    page = SpoolFile.page

    def slow_page(file: SpoolFile, kinds: list[Kind], *, after: int, limit: int) -> list[Entry]:
        time.sleep(0.25)
        return page(file, kinds, after=after, limit=limit)

    monkeypatch.setattr(SpoolFile, "page", slow_page)
    started = time.monotonic()
    await asyncio.gather(*(spool.page([Kind.QUEUED], after=0, limit=1) for _ in range(10)))
    assert time.monotonic() - started > spool_module.IO_SECONDS
    assert spool.is_writable
    assert events == ["spool_open"]


async def test_a_look_up_that_waits_too_long_gives_up_and_does_not_blame_the_disk(
    spool: Spool, disk: Disk, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IO_SECONDS", "LOOK_UP_PAUSE_SECONDS"):
        monkeypatch.setattr(spool_module, name, LIMIT_SECONDS)
    put = asyncio.create_task(spool.put([entry(1)]))
    await disk.reached()
    with pytest.raises(SpoolUnavailableError, match=r"more than 0\.5 s"):
        await spool.with_entries(["d-1"])
    monkeypatch.setattr(spool_module, "LOOK_UP_SECONDS", LIMIT_SECONDS)
    with is_at_once(), pytest.raises(SpoolUnavailableError):
        await spool.with_entries(["d-1"])
    assert spool.is_writable
    disk.goes_on.set()
    assert await put == [True]
    assert events == ["spool_open"]


def test_a_call_that_was_cancelled_in_line_lets_go_of_its_arguments() -> None:
    threads = DaemonThreadPool(1, "test")
    goes_on = threading.Event()
    blocking = threads.submit(goes_on.wait, 60)
    argument = object()
    before = sys.getrefcount(argument)
    waiting = threads.submit(id, argument)
    assert sys.getrefcount(argument) > before
    assert waiting.cancel()
    assert sys.getrefcount(argument) == before
    goes_on.set()
    assert blocking.result(60)
    assert threads.submit(id, argument).result(60) == id(argument)
    threads.shutdown()
