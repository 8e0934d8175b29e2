"""Rules 5, 7 and 12: no entry of the spool holds up the others, and the old ones no callback."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sam.callback.inbox import replayer as replayer_module
from sam.callback.inbox.duty_cycle import DutyCycle
from sam.callback.inbox.replayer import RETRY_SHARE
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.spool import SpoolUnavailableError
from sam.callback.inbox.store import Entry, Kind
from sam.callback.model import Callback
from sam.callback.storage.errors import DatabaseUnavailableError
from sam.callback.storage.results import BatchResult, UpdateOutcome, UpdateResult
from sam.callback.storage.robots import RobotRepository
from tests.support.databases import SqliteDatabase
from tests.support.inboxes import MIB, OpenInbox, entry, replay_all
from tests.support.load import spooled


def fill(path: Path, entries: list[Entry]) -> None:
    with closing(SpoolFile(path, 64 * MIB)) as file:
        assert all(file.put(entries, entries[-1].number))


async def test_an_exception_in_one_entry_ends_nothing_and_holds_up_no_other(
    open_inbox: OpenInbox,
    path: Path,
    sqlite_database: SqliteDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(path, [entry(number) for number in range(1, 6)])
    sqlite_database.add_robots([f"d-{number}" for number in range(2, 6)])
    apply = RobotRepository.apply
    mistakes: list[str] = []

    async def apply_or_fail(
        repository: RobotRepository,
        callbacks: Sequence[Callback],
        **options: Any,  # noqa: ANN401 - as they are
    ) -> BatchResult:
        if any(callback.deployment_id == "d-3" for callback in callbacks):
            raise LookupError("a defect")
        return await apply(repository, callbacks, **options)

    monkeypatch.setattr(RobotRepository, "apply", apply_or_fail)
    monkeypatch.setattr(replayer_module, "POLL_SECONDS", 0.01)
    log = SimpleNamespace(info=lambda *_, **__: None, exception=mistakes.append)
    monkeypatch.setattr(replayer_module, "_log", log)
    async with open_inbox() as inbox:
        await replay_all(inbox)
        assert mistakes == ["replay_failed"]
        assert spooled(path) == {"d-3": ("queued", "DONE")}
        monkeypatch.undo()
        async with asyncio.timeout(60):
            while spooled(path):
                await inbox.replayer.step()
    assert set(sqlite_database.statuses().values()) == {"DONE"}


async def test_an_entry_that_brings_the_database_down_is_not_tried_first_each_time(
    open_inbox: OpenInbox,
    path: Path,
    sqlite_database: SqliteDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(path, [entry(number) for number in range(1, 31)])
    sqlite_database.add_robots([f"d-{number}" for number in range(2, 31)])
    apply = RobotRepository.apply

    async def apply_or_time_out(
        repository: RobotRepository,
        callbacks: Sequence[Callback],
        **options: Any,  # noqa: ANN401 - as they are
    ) -> BatchResult:
        if any(callback.deployment_id == "d-1" for callback in callbacks):
            unknown = UpdateResult(UpdateOutcome.UNKNOWN, "It did not answer.")
            error = DatabaseUnavailableError("It did not answer.")
            return BatchResult([unknown] * len(callbacks), error)
        return await apply(repository, callbacks, **options)

    monkeypatch.setattr(RobotRepository, "apply", apply_or_time_out)
    async with open_inbox() as inbox:
        async with asyncio.timeout(60):
            while len(spooled(path)) > 10:  # the ten that it is tried with
                await inbox.replayer.step()
                await asyncio.sleep(0)
        assert "d-1" in spooled(path)


async def test_a_full_spool_is_applied_when_the_database_is_back(
    open_inbox: OpenInbox, path: Path, sqlite_database: SqliteDatabase
) -> None:
    async with open_inbox(callback_spool_max_bytes=MIB) as inbox:
        numbers = itertools.count(1)
        with contextlib.suppress(SpoolUnavailableError):
            while number := next(numbers):
                entry = Entry(number, Kind.QUEUED, f"d-{number}", "DONE", bytes(4_000))
                await inbox.spool.put([entry])
        sqlite_database.add_robots([f"d-{each}" for each in range(2, number)])
        writable = [inbox.spool.is_writable]
        await replay_all(inbox)
        assert spooled(path) == {}
        assert [*writable, inbox.spool.is_writable] == [False, True]
    assert set(sqlite_database.statuses().values()) == {"DONE"}


@pytest.mark.parametrize("seconds", [0.001, 0.1, 2.0])
def test_retries_take_a_small_share_of_the_time(seconds: float) -> None:
    now = worked = 0.0
    retries = DutyCycle(RETRY_SHARE, lambda: now)
    while now < 1_000 * seconds:
        if rest := retries.seconds_to_rest:
            now += rest
        else:
            now += seconds
            worked += seconds
            retries.worked(seconds, load=1.0)
    assert worked / now == pytest.approx(RETRY_SHARE, rel=0.05)


def test_a_few_that_wait_for_their_rows_are_tried_in_their_time_by_a_slow_database_too() -> None:
    retries = DutyCycle(RETRY_SHARE)
    retries.worked(seconds=2.0, load=0.01)
    assert retries.seconds_to_rest == 0


async def test_after_a_full_batch_retries_rest(open_inbox: OpenInbox, path: Path) -> None:
    fill(path, [Entry(n, Kind.UNMATCHED, f"u-{n}", "", attempts=8) for n in range(1, 500)])
    async with open_inbox(callback_unmatched_ttl=10**10) as inbox:
        inbox.replayer._retries = DutyCycle(1e-6)  # noqa: SLF001 - so that the rest is not over
        assert await inbox.replayer.step()
        assert not await inbox.replayer.step()
        tried = [entry.number for entry in (await inbox.spool.due(1_000)).entries]
        assert 0 < len(tried) < 499


async def test_while_retries_rest_new_entries_are_tried(
    open_inbox: OpenInbox, path: Path, sqlite_database: SqliteDatabase
) -> None:
    waiting = [Entry(number, Kind.UNMATCHED, f"u-{number}", "", attempts=8) for number in (1, 2)]
    fill(path, [*waiting, *(entry(number) for number in range(3, 500))])
    sqlite_database.add_robots([f"d-{number}" for number in range(3, 500)])
    async with open_inbox(callback_unmatched_ttl=10**10) as inbox:
        inbox.replayer._retries.worked(seconds=3_600, load=1.0)  # noqa: SLF001 - an hour's rest
        await replay_all(inbox)
        assert spooled(path).keys() == {"u-1", "u-2"}
        [one, other] = await inbox.spool.page([Kind.UNMATCHED], after=0, limit=10)
        assert (one.attempts, other.attempts) == (8, 8)


async def test_an_entry_whose_deployment_is_in_a_batch_waits_for_its_end(
    open_inbox: OpenInbox, path: Path, sqlite_database: SqliteDatabase
) -> None:
    fill(path, [entry(1), entry(2)])
    sqlite_database.add_robots(["d-2"])
    async with open_inbox() as inbox:
        inbox._in_flight.in_batch.add("d-1")  # noqa: SLF001 - as while a batch is under way
        await replay_all(inbox)
        assert spooled(path).keys() == {"d-1"}
        inbox._in_flight.in_batch.clear()  # noqa: SLF001
        await replay_all(inbox)
    assert set(sqlite_database.statuses().values()) == {"DONE"}
