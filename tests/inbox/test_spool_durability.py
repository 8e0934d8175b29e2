"""Rule 8: stored entries survive, and a failure to store is reported at once."""

import signal
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sam.callback.check_result import Level
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sqlite import spool as spool_module
from sam.callback.inbox.sqlite.check import check_spool
from sam.callback.inbox.sqlite.file import SpoolFile, share_bytes
from sam.callback.inbox.sqlite.file_system import kind_of
from sam.callback.inbox.sqlite.spool import Spool, SpoolUnavailableError
from sam.callback.inbox.store import DEAD, Entry, Kind
from sam.callback.settings import SpoolSettings
from tests.support.inboxes import MIB, OpenSpool, entry


async def queued(spool: Spool) -> list[Entry]:
    return await spool.page([Kind.QUEUED], after=0, limit=1000)


async def test_stored_entries_are_there_after_a_restart(open_spool: OpenSpool) -> None:
    entries = [entry(1, payload=b"\x00\xff"), entry(2), entry(3, kind=Kind.UNMATCHED)]
    async with open_spool() as spool:
        assert await spool.put(entries) == [True, True, True]
    async with open_spool() as spool:
        assert await queued(spool) == entries[:2]
        assert await spool.page([Kind.UNMATCHED], after=0, limit=10) == entries[2:]
        assert spool.counts() == {"queued": 2, "unmatched": 1, "dead_letter": 0, "invalid": 0}


async def test_only_a_higher_number_replaces(open_spool: OpenSpool) -> None:
    async with open_spool() as spool:
        for number in (5, 9, 7):
            assert await spool.put([entry(number, "d-1")]) == [True]
        assert [e.number for e in await queued(spool)] == [9]
        assert await spool.with_entries(["d-1", "d-2"]) == {"d-1"}


async def test_an_applied_entry_is_deleted_by_its_number(open_spool: OpenSpool) -> None:
    async with open_spool() as spool:
        await spool.put([entry(5, "d-1")])
        await spool.put([entry(9, "d-1")])  # replaced it while 5 was being applied
        await spool.settle([entry(5, "d-1")])
        assert [e.number for e in await queued(spool)] == [9]
        await spool.settle([entry(9, "d-1")])
        assert spool.counts()["queued"] == 0


async def test_counts_and_sizes_follow_every_change(open_spool: OpenSpool) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1), entry(2), entry(3)])
        await spool.put([entry(4, "d-2", Kind.UNMATCHED)])
        await spool.settle([entry(1)], [(entry(3), Kind.DEAD_LETTER, "refused")])
        assert spool.counts() == {"queued": 0, "unmatched": 1, "dead_letter": 1, "invalid": 0}
        await spool.settle([entry(3), entry(4, "d-2")])
        assert {total.bytes for total in spool.totals.values()} == {0}


async def test_the_last_number_is_remembered_though_its_entry_is_gone(
    open_spool: OpenSpool, path: Path
) -> None:
    future = 2**62
    async with open_spool() as spool:
        spool._sequence.continue_after(future)  # noqa: SLF001 - a clock that was ahead
        await spool.put([entry(future)])
        await spool.settle([entry(future)])
    sequence = Sequence()
    spool = Spool(path, 16 * MIB, sequence)
    await spool.open()
    await spool.close()
    assert sequence.next() == future + 1


@pytest.mark.posix
async def test_one_that_others_could_read_is_its_owners_when_it_is_opened(
    open_spool: OpenSpool, path: Path
) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1)])
        files = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
        for file in files:
            file.chmod(0o666)
        with closing(SpoolFile(path, MIB)) as beside:
            assert beside.is_private
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.posix
async def test_check_warns_of_one_of_another_user_that_others_can_read(
    open_spool: OpenSpool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1)])
    path.chmod(0o666)

    def refuse(*_: object) -> None:
        raise PermissionError  # as for a file of another user; the tests may be root's

    monkeypatch.setattr(Path, "chmod", refuse)
    spool_line = check_spool(SpoolSettings(_env_file=None, callback_spool_path=path))[0]
    assert spool_line.level is Level.WARNING
    assert "chmod 600" in spool_line.action


@pytest.mark.posix
async def test_only_the_owner_can_read_it(open_spool: OpenSpool, path: Path) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1)])
        files = sorted(path.parent.iterdir())
        assert {file.name for file in files} >= {"spool.db", "spool.db-wal", "spool.db.lock"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_every_commit_is_synced(path: Path) -> None:
    file = SpoolFile(path, MIB)
    full = 2
    assert file._connection.execute("PRAGMA synchronous").fetchone() == (full,)  # noqa: SLF001
    assert file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)  # noqa: SLF001
    file.close()


async def test_a_full_spool_says_so_and_keeps_its_entries(open_spool: OpenSpool) -> None:
    async with open_spool(max_bytes=MIB) as spool:
        stored = 0

        async def fill() -> None:
            nonlocal stored
            while True:
                await spool.put([entry(stored + 1, payload=bytes(4_000))])
                stored += 1

        with pytest.raises(SpoolUnavailableError, match="full"):
            await fill()
        assert 150 < stored < 262
        assert not spool.is_writable
        assert [e.number for e in await queued(spool)] == list(range(1, stored + 1))

        with pytest.raises(SpoolUnavailableError, match="full"):
            await spool.recheck()
        assert await spool.with_entries(["d-1", "d-unknown"]) == {"d-1"}  # it can be read
        await spool.settle([*map(entry, range(1, 11))])
        await spool.recheck()
        assert await spool.put([entry(500, payload=bytes(4_000))]) == [True]


async def test_an_entry_without_room_does_not_keep_the_others_out(
    open_spool: OpenSpool,
) -> None:
    async with open_spool(max_bytes=MIB) as spool:
        large = entry(2, payload=bytes(2 * MIB))
        assert await spool.put([entry(1), large, entry(3)]) == [True, False, True]
        assert spool.is_writable
        with pytest.raises(SpoolUnavailableError, match="full"):
            await spool.put([large, large])
        assert [e.number for e in await queued(spool)] == [1, 3]
    async with open_spool() as spool:
        assert [e.number for e in await queued(spool)] == [1, 3]


async def test_dead_letters_have_a_share_and_leave_the_rest_to_the_living(
    open_spool: OpenSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    log = SimpleNamespace(
        critical=lambda event, **_: told.append(event), info=lambda *_, **__: None
    )
    monkeypatch.setattr(spool_module, "_log", log)
    async with open_spool(max_bytes=MIB) as spool:
        refused = 0
        for number in range(1, 100):
            kind = Kind.DEAD_LETTER if number % 2 else Kind.INVALID
            [stored] = await spool.put([entry(number, kind=kind, payload=bytes(20_000))])
            refused += not stored
        dead = sum(spool.totals[kind].bytes for kind in (Kind.DEAD_LETTER, Kind.INVALID))
        assert refused
        assert told == ["dead_letters_full"] * refused
        assert dead <= share_bytes(DEAD, MIB)
        for number in range(100, 110):
            assert await spool.put([entry(number, payload=bytes(50_000))]) == [True]


async def test_unmatched_callbacks_have_a_share_and_leave_the_rest_to_queued_ones(
    open_spool: OpenSpool,
) -> None:
    async with open_spool(max_bytes=MIB) as spool:
        stored = [
            (await spool.put([entry(number, kind=Kind.UNMATCHED, payload=bytes(20_000))]))[0]
            for number in range(1, 40)
        ]
        assert stored == sorted(stored, reverse=True)  # the first ones are, the last ones not
        assert {True, False} == set(stored)
        assert spool.totals[Kind.UNMATCHED].bytes <= share_bytes((Kind.UNMATCHED,), MIB)
        for number in range(100, 105):
            assert await spool.put([entry(number, payload=bytes(50_000))]) == [True]
        [last] = await spool.settle([], [(entry(104), Kind.UNMATCHED, "no row")])
        assert last.number == 104


async def test_moved_dead_letters_keep_to_the_share(open_spool: OpenSpool) -> None:
    async with open_spool(max_bytes=MIB) as spool:
        sizes = {1: 200_000, 2: 100_000, 3: 40_000}
        await spool.put([entry(number, payload=bytes(size)) for number, size in sizes.items()])
        moved = [(entry(number), Kind.DEAD_LETTER, "refused") for number in sizes]
        [refused] = await spool.settle([], moved)
        assert refused.number == 2  # the others fit into a quarter of 1 MiB
        assert spool.totals[Kind.DEAD_LETTER].bytes <= share_bytes(DEAD, MIB)


@pytest.mark.parametrize("damage", [b"nonsense" * 1000, b""])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    damage: bytes, open_spool: OpenSpool, path: Path
) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1)])
    path.write_bytes(damage or path.read_bytes()[:5000] + bytes(50_000))
    async with open_spool() as spool:
        if not spool.is_writable:  # the call that found the damage fails, the next one works
            assert await spool.put([entry(2)]) == [True]
        else:
            with pytest.raises(SpoolUnavailableError, match="malformed"):
                await spool.put([entry(number) for number in range(2, 500)])
            assert await spool.put([entry(2)]) == [True]
    [aside] = (
        file
        for file in path.parent.glob("spool.db.corrupt-*")
        if not file.name.endswith(("wal", "shm"))
    )
    assert aside.stat().st_size > 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (1,)


async def test_a_file_that_was_taken_away_is_noticed(open_spool: OpenSpool, path: Path) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1)])
        path.rename(path.with_name("away.db"))
        assert await spool.put([entry(2)]) == [True]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT number FROM entries").fetchall() == [(2,)]


async def test_a_directory_that_cannot_be_written_is_no_crash(
    open_spool: OpenSpool, path: Path
) -> None:
    path.parent.write_text("a file where the directory should be")
    async with open_spool() as spool:
        for _ in range(2):
            with pytest.raises(SpoolUnavailableError):
                await spool.put([entry(1)])
        path.parent.unlink()
        assert await spool.put([entry(1)]) == [True]


@pytest.mark.posix
async def test_a_disk_that_takes_no_more_is_noticed_and_recovers(open_spool: OpenSpool) -> None:
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with open_spool() as spool:
        await spool.put([entry(1)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(SpoolUnavailableError):
                await spool.put([entry(2, payload=bytes(500_000))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert await spool.put([entry(3)]) == [True]
        assert [e.number for e in await queued(spool)] == [1, 3]


async def test_the_command_line_may_edit_rows_beside_the_owner(
    open_spool: OpenSpool, path: Path
) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1), entry(2)])
        beside = SpoolFile(path, 16 * MIB)
        beside.settle([entry(1)])
        beside.close()
        assert [e.number for e in await queued(spool)] == [2]
        assert spool.counts()["queued"] == 1


def test_a_link_does_not_hide_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    link = tmp_path / "var"
    link.symlink_to(memory)
    partitions = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(memory.resolve()), fstype="tmpfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: partitions)  # noqa: A006, ARG005
    assert kind_of(link / "callback-spool.db") == "tmpfs"


async def test_a_file_system_that_forgets_or_has_no_locks_is_warned_of(
    open_spool: OpenSpool, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    warnings: list[tuple[str, str]] = []

    class Log:
        def critical(self, event: str, **fields: str) -> None:
            warnings.append((event, fields["file_system"]))

        def info(self, event: str, **fields: object) -> None: ...

    monkeypatch.setattr(spool_module, "_log", Log())
    for file_system in ("ext4", "tmpfs", "nfs4"):
        partitions = [
            SimpleNamespace(mountpoint="/", fstype="ext4"),
            SimpleNamespace(mountpoint=str(path.parent), fstype=file_system),
        ]
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: partitions)  # noqa: A006, ARG005, B023
        async with open_spool():
            pass
    assert warnings == [("spool_in_memory", "tmpfs"), ("spool_on_network", "nfs4")]
