"""While the disk hangs or the spool cannot be read, callbacks go on into a healthy database.

And what the spool then turns out to hold never overwrites what went past it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from sam.callback.inbox import replayer as replayer_module
from sam.callback.inbox.admission import NotDurableError
from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.readiness import Readiness
from sam.callback.inbox.sqlite import spool as spool_module
from sam.callback.metrics import Metrics
from tests.support.conditions import LIMIT_SECONDS, becomes_true
from tests.support.databases import SqliteDatabase
from tests.support.disk import hung_disk, slow_disk
from tests.support.inboxes import OpenInbox, replay_all
from tests.support.load import spooled


@contextmanager
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk is given up soon; before and after, it has as much time as it needs."""
    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "IO_SECONDS", 0.2)
        yield


async def outcome(inbox: Inbox, status: str, deployment_id: str = "d-1") -> str:
    return (await inbox.record(deployment_id, status, b"{}")).outcome


async def test_a_hung_disk_delays_callbacks_by_its_look_up_once_a_second(
    open_inbox: OpenInbox, sqlite_database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause is made longer than this test may take, so there is one look-up."""
    monkeypatch.setattr(spool_module, "LOOK_UP_PAUSE_SECONDS", 2.0 * LIMIT_SECONDS)
    async with open_inbox() as inbox:
        assert await outcome(inbox, "EARLY", "D-1") == "unmatched"  # which may be d-1's
        async with hung_disk(inbox.spool):
            calls = Mock(wraps=inbox.spool._thread.run)  # noqa: SLF001 - where the disk is
            monkeypatch.setattr(inbox.spool._thread, "run", calls)  # noqa: SLF001
            for number in range(5):
                assert await outcome(inbox, f"S{number}") == "updated"
        assert calls.call_count == 1
    assert sqlite_database.statuses() == {"d-1": "S4"}


async def test_a_put_that_timed_out_and_was_stored_after_all_reverses_nothing(
    open_inbox: OpenInbox, sqlite_database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "LOOK_UP_PAUSE_SECONDS", 0)
    async with open_inbox() as inbox:
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        with slow_disk(inbox.spool), impatience(monkeypatch), pytest.raises(NotDurableError):
            await outcome(inbox, "OLD")
        sqlite_database.execute("ALTER TABLE away RENAME TO robots")
        inbox.breaker.committed()
        assert await outcome(inbox, "NEW") in {"updated", "queued"}
        await becomes_true(lambda: "d-1" in spooled(inbox.spool.path))  # OLD, or NEW after it
        await replay_all(inbox)
        assert spooled(inbox.spool.path) == {}
    assert sqlite_database.statuses() == {"d-1": "NEW"}


async def test_an_unseen_entry_does_not_overwrite_a_status_written_past_the_spool(
    open_inbox: OpenInbox,
    sqlite_database: SqliteDatabase,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Mock()
    monkeypatch.setattr(replayer_module, "_log", log)
    async with open_inbox() as inbox:
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        assert await outcome(inbox, "OLD") == "queued"
        sqlite_database.execute("ALTER TABLE away RENAME TO robots")
        inbox.breaker.committed()
        async with hung_disk(inbox.spool):
            assert await outcome(inbox, "NEW") == "updated"
        await replay_all(inbox)
        assert inbox.spool.counts()["queued"] == 0
    log.warning.assert_called_once_with("superseded", deployment_id="d-1", status="OLD")
    name, labels = "sam_callback_replay_attempts_total", {"result": "superseded"}
    assert metrics.registry.get_sample_value(name, labels) == 1
    assert sqlite_database.statuses() == {"d-1": "NEW"}


async def test_an_entry_is_not_dropped_for_a_callback_that_failed(
    open_inbox: OpenInbox, sqlite_database: SqliteDatabase
) -> None:
    async with open_inbox() as inbox:
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        assert await outcome(inbox, "OLD") == "queued"
        inbox.breaker.committed()  # as if it were up: the next one is tried, and fails
        async with hung_disk(inbox.spool, limit=0.2):
            with pytest.raises(NotDurableError):
                await outcome(inbox, "NEW")
        sqlite_database.execute("ALTER TABLE away RENAME TO robots")
        await asyncio.sleep(inbox.breaker.seconds_to_probe)
        await replay_all(inbox)
    assert sqlite_database.statuses()["d-1"] in {"OLD", "NEW"}


async def test_a_spool_that_is_gone_does_not_keep_the_database_down(
    open_inbox: OpenInbox, sqlite_database: SqliteDatabase, path: Path
) -> None:
    async with open_inbox(replay=True) as inbox:
        path.parent.rename(path.parent.with_name("away"))
        path.parent.write_text("not a directory")
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        with pytest.raises(NotDurableError):
            await outcome(inbox, "LOST")
        assert inbox.readiness() is Readiness.UNAVAILABLE
        sqlite_database.execute("ALTER TABLE away RENAME TO robots")
        await becomes_true(lambda: inbox.breaker.takes_callbacks)
        assert await outcome(inbox, "KEPT") == "updated"
        assert inbox.readiness() is Readiness.DEGRADED

        path.parent.unlink()
        await becomes_true(lambda: inbox.spool.is_writable)
        assert inbox.readiness() is Readiness.OK


async def test_a_spool_that_is_back_is_noticed_while_the_database_is_down(
    open_inbox: OpenInbox, sqlite_database: SqliteDatabase, path: Path
) -> None:
    async with open_inbox(replay=True) as inbox:
        sqlite_database.execute("DROP TABLE robots")
        path.parent.rename(path.parent.with_name("away"))
        path.parent.write_text("not a directory")
        with pytest.raises(NotDurableError):
            await outcome(inbox, "LOST")
        assert inbox.readiness() is Readiness.UNAVAILABLE
        path.parent.unlink()
        await becomes_true(lambda: inbox.readiness() is Readiness.DEGRADED)


async def test_unmatched_entries_are_not_forgotten_when_the_spool_fails_meanwhile(
    open_inbox: OpenInbox, sqlite_database: SqliteDatabase
) -> None:
    async with open_inbox(replay=True) as inbox:
        assert await outcome(inbox, "EARLY", "d-2") == "unmatched"
        async with hung_disk(inbox.spool, limit=0.2):
            await becomes_true(lambda: not inbox.spool.is_writable)  # the replayer has run into it
        sqlite_database.add_robots(["d-2"])
        await becomes_true(lambda: sqlite_database.statuses()["d-2"] == "EARLY")
