"""A body that is not understood is kept, or answered 503: never 422 and lost.

They share fsyncs and bounds with callbacks: it takes only a renamed field at A360 for them to be
all that comes.
"""

import asyncio
import gc
import sqlite3
import sys
from contextlib import closing

import pytest

from sam.callback.inbox.admission import NotDurableError, OverloadedError
from sam.callback.inbox.circuit_breaker import CircuitState
from sam.callback.inbox.inbox import MAX_BYTES_IN_FLIGHT, Inbox
from sam.callback.inbox.sqlite import spool as spool_module
from sam.callback.inbox.store import Kind
from sam.callback.metrics import PREFIX, Metrics
from tests.support.callbacks import body
from tests.support.disk import hung_disk, slow_disk
from tests.support.inboxes import OpenInbox
from tests.support.service import Service


async def keep(inbox: Inbox, bodies: list[bytes]) -> list[BaseException | None]:
    return await asyncio.gather(
        *(inbox.keep_invalid(each, "not understood") for each in bodies), return_exceptions=True
    )


async def test_all_that_come_while_an_fsync_runs_share_the_next_one(
    open_inbox: OpenInbox, metrics: Metrics
) -> None:
    async with open_inbox() as inbox:
        with slow_disk(inbox.spool):
            keeping = asyncio.create_task(keep(inbox, [b"{"] * 500))
            while inbox.admission.count < 500:
                await asyncio.sleep(0)
        assert await keeping == [None] * 500
        assert inbox.spool.counts()["invalid"] == 500
    written = f"{PREFIX}spool_write_duration_seconds_count"
    assert (metrics.registry.get_sample_value(written) or 0) <= 2


async def test_they_count_among_what_is_in_flight(open_inbox: OpenInbox) -> None:
    async with open_inbox(callback_max_connections=2) as inbox, hung_disk(inbox.spool, limit=None):
        keeping = asyncio.create_task(keep(inbox, [b"{"] * 4))
        while inbox.admission.count < 4:
            await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await inbox.record("d-1", "DONE", b"")
        with pytest.raises(OverloadedError):
            await inbox.keep_invalid(b"{", "not understood")
        assert not keeping.done()


async def test_bodies_that_wait_for_a_hung_disk_are_bounded_in_bytes(open_inbox: OpenInbox) -> None:
    size = 100_000
    async with open_inbox(callback_max_body_bytes=2**20) as inbox:
        async with hung_disk(inbox.spool, limit=None):
            bodies = [bytes(size)] * 2_000
            keeping = asyncio.create_task(keep(inbox, bodies))
            while not inbox.admission.count:
                await asyncio.sleep(0)
            assert inbox.admission.count == MAX_BYTES_IN_FLIGHT // size
        results = await keeping
        kept = results.count(None)
        assert kept == MAX_BYTES_IN_FLIGHT // size
        assert inbox.spool.counts()["invalid"] == kept
        assert all(isinstance(each, OverloadedError) for each in results if each is not None)
        assert inbox.admission.count == 0
        await inbox.keep_invalid(bytes(size), "not understood")


async def test_a_refused_body_is_freed_at_once(
    open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the garbage collector, which looks when there are many objects, however large."""
    content, payload = bytes(100_000), bytes(100_000)
    held = [sys.getrefcount(content), sys.getrefcount(payload)]
    monkeypatch.setattr(spool_module, "IO_SECONDS", 0.2)
    gc.disable()
    try:
        async with open_inbox(sql_sam_payload_column="payload") as inbox:
            inbox.breaker.state = CircuitState.OPEN
            async with hung_disk(inbox.spool, limit=0.2):
                for number in range(20):
                    tasks = [
                        asyncio.create_task(inbox.keep_invalid(content, "not understood")),
                        asyncio.create_task(inbox.record(f"d-{number}", "DONE", payload)),
                    ]
                    await asyncio.wait(tasks)
                    assert {type(task.exception()) for task in tasks} == {NotDurableError}
                    del tasks
                assert [sys.getrefcount(content), sys.getrefcount(payload)] == held
    finally:
        gc.enable()


async def test_one_that_is_larger_than_that_is_kept_if_nothing_else_waits(
    open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_inbox() as inbox:
        monkeypatch.setattr(inbox.admission, "_max_bytes", 1_000)
        await inbox.keep_invalid(bytes(5_000), "not understood")
        assert inbox.spool.counts()["invalid"] == 1


async def test_good_callbacks_do_not_wait_for_them(open_inbox: OpenInbox) -> None:
    async with open_inbox() as inbox, hung_disk(inbox.spool, limit=None):
        keeping = asyncio.create_task(keep(inbox, [b"{"] * 500))
        await asyncio.sleep(0)
        assert (await inbox.record("d-1", "DONE", b"")).outcome == "updated"
        assert not keeping.done()


async def test_where_the_share_of_dead_letters_is_used_up_they_are_refused(
    open_inbox: OpenInbox,
) -> None:
    async with open_inbox(callback_spool_max_bytes=2**20) as inbox:
        results = [(await keep(inbox, [bytes(2**15)]))[0] for _ in range(20)]
        assert results[0] is None
        assert isinstance(results[-1], NotDurableError)
        assert "share" in str(results[-1])
        assert await inbox.spool.page([Kind.INVALID], after=0, limit=1)
        assert (await inbox.record("d-1", "DONE", b"")).outcome == "updated"


def test_a_body_that_cannot_be_kept_is_answered_503(service: Service) -> None:
    service.wait_for_event("database_up")
    spool = service.directory / "var/callback-spool.db"
    assert service.post(b"{").status_code == 422
    with closing(sqlite3.connect(spool)) as connection:
        assert connection.execute("SELECT kind, payload FROM entries").fetchall() == [
            ("invalid", b"{")
        ]
    spool.rename(spool.with_name("away.db"))
    spool.mkdir()
    answer = service.post(b'{"deploymentId": "d-1"}')
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    line = service.wait_for_line(lambda line: line.get("http_status") == 503)
    assert (line["event"], line["level"], line["reason"]) == ("refused", "error", "not_safe")
    assert line["mistakes"] == ["status: Field required"]
    assert service.post(body("d-1", "GOOD")).json()["outcome"] == "updated"
    assert service.ready().json()["status"] == "degraded"
