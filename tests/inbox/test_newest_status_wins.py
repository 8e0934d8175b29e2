"""Rules 1 and 2: for one deployment the higher number wins, whichever way each travelled."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Self

import pytest

from sam.callback.inbox.batch_limit import BatchLimit
from sam.callback.inbox.batcher import Batcher
from sam.callback.model import Callback, Outcome, Recorded
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import Load, losses, spooled
from tests.support.service import Service

NUMBERS = itertools.count(1)


def callback(deployment_id: str) -> Callback:
    return Callback(next(NUMBERS), deployment_id, "DONE", None)


def recorded(number: int) -> Recorded:
    return Recorded(Outcome.UPDATED, str(number), 0.0, 1)


class Writers:
    """Take batches from a batcher, as long as they are within; answer when they are let.

    Args:
        slots: How many batches may be under way.
        time_limit: Of the batcher.
    """

    def __init__(self, slots: int = 2, time_limit: float = 60) -> None:
        self.batches: list[list[str]] = []
        self.under_way: list[str] = []
        self.may_end = asyncio.Event()
        self.batcher = Batcher(
            set(),
            slots=asyncio.Semaphore(slots),
            limit=BatchLimit(time_limit=2.0),
            interval=lambda: 0.0,
            time_limit=time_limit,
        )
        self._slots = slots
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write()) for _ in range(self._slots)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, one: Callback) -> "asyncio.Future[Recorded]":
        return self.batcher.submit(one.deployment_id.lower(), one)

    async def _write(self) -> None:
        while True:
            groups = await self.batcher.next()
            names = [group.callback.deployment_id for group in groups]
            assert not set(names) & set(self.under_way), "one deployment in two batches"
            self.batches.append(names)
            self.under_way += names
            await self.may_end.wait()
            self.under_way = [name for name in self.under_way if name not in names]
            for group in groups:
                group.resolve(recorded(group.callback.number))
            self.batcher.done(groups)


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_callback_on_an_idle_service_waits_for_no_other() -> None:
    async with Writers() as writers:
        writers.may_end.set()
        one = callback("d-1")
        assert await writers.submit(one) == recorded(one.number)
        assert writers.batches == [["d-1"]]


async def test_a_batch_is_all_that_arrived_while_the_last_one_ran() -> None:
    async with Writers(slots=1) as writers:
        first = writers.submit(callback("d-1"))
        await turn()
        rest = [writers.submit(callback(f"d-{number}")) for number in range(2, 50)]
        await turn()
        assert writers.batches == [["d-1"]]
        writers.may_end.set()
        await asyncio.gather(first, *rest)
        assert [len(batch) for batch in writers.batches] == [1, 48]


async def test_a_deployment_in_flight_is_never_in_a_second_batch() -> None:
    async with Writers(slots=4) as writers:
        first = writers.submit(callback("d-1"))
        await turn()
        second, other = writers.submit(callback("d-1")), writers.submit(callback("d-2"))
        await turn()
        assert writers.batches == [["d-1"], ["d-2"]]
        writers.may_end.set()
        await asyncio.gather(first, second, other)
        assert writers.batches == [["d-1"], ["d-2"], ["d-1"]]


async def test_callbacks_of_one_deployment_that_wait_together_go_as_the_last_of_them() -> None:
    async with Writers() as writers:
        first = writers.submit(callback("d-1"))
        await turn()
        older, newer = callback("d-1"), callback("d-1")
        answers = [writers.submit(newer), writers.submit(older)]
        writers.may_end.set()
        await first
        assert await asyncio.gather(*answers) == [recorded(newer.number)] * 2
        assert len(writers.batches) == 2


async def test_ids_that_may_be_one_deployment_are_never_in_two_batches_and_the_last_goes_last() -> (
    None
):
    """Ids are put together only if they are the same: others may be two deployments after all."""
    async with Writers(slots=4) as writers:
        first = writers.submit(callback("d-1"))
        await turn()
        waiting = [callback(name) for name in ("D-1", "d-1", "D-1")]
        rest = [writers.submit(one) for one in waiting]
        await turn()
        assert writers.batches == [["d-1"]]
        writers.may_end.set()
        results = await asyncio.gather(first, *rest)
        assert writers.batches == [["d-1"], ["d-1"], ["D-1"]]
        assert results[1] == results[3] == recorded(waiting[-1].number)


async def test_a_group_whose_deadline_has_come_is_taken_out_and_its_batch_goes_on() -> None:
    async with Writers(slots=1, time_limit=0.05) as writers:
        under_way = writers.submit(callback("d-1"))
        await turn()
        waiting = writers.submit(callback("d-2"))
        async with asyncio.timeout(LIMIT_SECONDS):
            expired = [await writers.batcher.next_expired() for _ in range(2)]
        assert [group.callback.deployment_id for group in expired] == ["d-1", "d-2"]
        waiting.cancel()
        later = writers.submit(callback("d-3"))
        writers.may_end.set()  # the batch of the first goes on, and the second is in none
        await asyncio.gather(under_way, later)
        assert writers.batches == [["d-1"], ["d-3"]]


@pytest.mark.parametrize("kind", ["queued", "unmatched", "dead_letter"])
def test_a_callback_replaces_the_entry_of_its_deployment(
    kind: str, start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    spool = service.directory / "var/callback-spool.db"
    if kind == "queued":
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        service.post(body("d-1", "OLD"))
    elif kind == "unmatched":
        service.post(body("d-9", "OLD"))
    else:
        sqlite_database.execute("UPDATE robots SET deploymentId = 'd-9'")
        sqlite_database.execute(
            "CREATE TRIGGER t BEFORE UPDATE ON robots WHEN NEW.status = 'OLD'"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        service.post(body("d-9", "OLD"))
    deployment_id = "d-1" if kind == "queued" else "d-9"
    assert spooled(spool) == {deployment_id: (kind, "OLD")}

    assert service.post(body(deployment_id, "NEW")).json()["outcome"] == "queued"

    if kind == "queued":
        sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    elif kind == "unmatched":
        sqlite_database.add_robots(["d-9"])
    eventually(lambda: sqlite_database.statuses()[deployment_id] == "NEW")
    eventually(lambda: spooled(spool) == {})


def test_conflicting_statuses_while_the_database_goes_and_comes(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    deployments = [f"d-{number}" for number in range(1, 11)]
    sqlite_database.add_robots(deployments[1:])
    with Load(service.url, deployments, connections=16) as load:
        for _ in range(4):
            load.wait_for(100)
            sqlite_database.execute("ALTER TABLE robots RENAME TO away")
            load.wait_for(100)
            sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    spool = service.directory / "var/callback-spool.db"
    eventually(lambda: spooled(spool) == {})
    assert not load.refused
    assert {sent.outcome for sent in load.answered} - {"superseded"} == {"updated", "queued"}
    assert losses(load.answered, load.all, sqlite_database.statuses(), spool) == []
