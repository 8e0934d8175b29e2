"""Rule 8: one process owns the spool, by a lock that it holds without a gap for life."""

import asyncio
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from sam.callback.inbox.sqlite import file as spool_file
from sam.callback.inbox.sqlite import spool as spool_module
from sam.callback.inbox.sqlite.spool import SpoolUnavailableError
from tests.support import inboxes
from tests.support.inboxes import OpenSpool, entry


def is_owned(path: Path) -> bool:
    """Whether another descriptor's lock, as another process', would be refused."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _own(path: Path, ready: Event) -> None:
    async def own() -> None:
        async with inboxes.open_spool(path):
            ready.set()
            await asyncio.sleep(60)

    asyncio.run(own())


@contextmanager
def another_owner(path: Path) -> Iterator[Callable[[], None]]:
    """A process that owns the spool; what it yields ends it."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=_own, args=(path, ready))
    owner.start()

    def end() -> None:
        owner.kill()
        owner.join()

    try:
        assert ready.wait(30)
        yield end
    finally:
        end()
        owner.close()


async def test_one_process_owns_it_until_it_dies(open_spool: OpenSpool, path: Path) -> None:
    with another_owner(path) as end:
        async with open_spool() as spool:
            with pytest.raises(SpoolUnavailableError, match="Another process"):
                await spool.put([entry(1)])
            assert (spool.is_writable, spool.may_have_entry("d-1")) == (
                False,
                True,
            )  # that is not known
            end()
            assert await spool.put([entry(1)]) == [True]
            assert (spool.is_writable, spool.may_have_entry("d-1")) == (True, True)
    assert not is_owned(path)


async def test_it_is_owned_while_the_file_is_opened_anew(
    open_spool: OpenSpool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process tries to take it all the time; it gets it at the end, not in between."""
    is_over = threading.Event()
    was_free = 0

    def keep_trying() -> None:
        nonlocal was_free
        while not is_over.is_set():
            was_free += not is_owned(path)

    def fail(_file: spool_file.SpoolFile) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async with open_spool() as spool:
        thread = threading.Thread(target=keep_trying)
        thread.start()
        try:
            for _ in range(100):
                with monkeypatch.context() as patched:
                    patched.setattr(spool_file.SpoolFile, "try_room", fail)
                    with pytest.raises(SpoolUnavailableError):
                        await spool.recheck()
                await spool.recheck()
        finally:
            is_over.set()
            thread.join()
    assert was_free == 0
    assert not is_owned(path)


async def test_a_busy_spool_is_not_opened_anew(
    open_spool: OpenSpool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_file, "_BUSY_TIMEOUT_MS", 50)
    async with open_spool() as spool:
        file = spool._file  # noqa: SLF001 - whether it is another one
        await spool.put([entry(1)])
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SpoolUnavailableError, match="locked"):
                await spool.put([entry(2)])
            assert await spool.with_entries(["d-1", "d-2"]) == {"d-1"}  # it can be read
            assert is_owned(path)
        assert await spool.put([entry(3)]) == [True]
        assert spool._file is file  # noqa: SLF001


@pytest.mark.posix
async def test_a_deleted_lock_file_does_not_make_two_owners(
    open_spool: OpenSpool, path: Path
) -> None:
    async with open_spool() as spool:
        Path(f"{path}.lock").unlink()
        await spool.put([entry(1)])
        assert is_owned(path)

        Path(f"{path}.lock").unlink()
        with another_owner(path) as end:  # it was quicker
            with pytest.raises(SpoolUnavailableError, match="Another process"):
                await spool.put([entry(2)])
            end()
            assert await spool.put([entry(3)]) == [True]
        assert is_owned(path)


@pytest.mark.posix
async def test_an_old_place_is_owned_until_the_new_one_is(
    open_spool: OpenSpool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []

    class Log:
        def critical(self, event: str, **_: object) -> None:
            moved.append(event)

        def info(self, *_: object, **__: object) -> None: ...

    monkeypatch.setattr(spool_module, "_log", Log())
    old = path.parent.with_name("old") / path.name
    async with open_spool() as spool:
        await spool.put([entry(1)])
        path.parent.rename(old.parent)
        assert is_owned(old)
        with another_owner(path) as end:
            with pytest.raises(SpoolUnavailableError, match="Another process"):
                await spool.put([entry(2)])
            assert is_owned(old)
            end()
            assert await spool.put([entry(2)]) == [True]
        assert is_owned(path)
        assert not is_owned(old)
        assert moved.count("spool_moved") == 1
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT key FROM entries").fetchall() == [("d-1",)]
