"""Rules 1 and 2: for one deployment the higher number wins, whichever way each travelled."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from sam.callback.inbox.batch_limit import BatchLimit
from sam.callback.inbox.batcher import Batcher, Group
from sam.callback.model import Callback
from tests.support.callbacks import body
from tests.support.conditions import becomes_true, eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import Load, losses, spooled
from tests.support.service import Service

NUMBERS = itertools.count(1)


def callback(deployment_id: str) -> Callback:
    return Callback(next(NUMBERS), deployment_id, "DONE", None)


class Recording:
    """A process for a batcher: keeps what it got, and answers when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.under_way: list[str] = []
        self.may_end = asyncio.Event()

    async def __call__(self, groups: "list[Group[int]]") -> None:
        names = [group.callback.deployment_id for group in groups]
        assert not set(names) & set(self.under_way), "one deployment in two batches"
        self.batches.append(names)
        self.under_way += names
        await self.may_end.wait()
        self.under_way = [name for name in self.under_way if name not in names]
        for group in groups:
            group.resolve(group.callback.number)


def make_batcher(
    process: "Callable[[list[Group[int]]], Awaitable[None]]",
    *,
    max_batches: int = 2,
    expired: "Callable[[Group[int]], None]" = lambda _: None,
) -> "Batcher[int]":
    return Batcher(
        process, expired, slots=asyncio.Semaphore(max_batches), limit=BatchLimit(time_limit=2.0)
    )


def submit(batcher: "Batcher[int]", one: Callback, seconds: float = 60) -> "asyncio.Future[int]":
    return batcher.submit(one.deployment_id.lower(), one, seconds)


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_callback_on_an_idle_service_waits_for_nobody() -> None:
    process = Recording()
    process.may_end.set()
    batcher = make_batcher(process)
    one = callback("d-1")
    assert await submit(batcher, one) == one.number
    assert process.batches == [["d-1"]]


async def test_a_batch_is_all_that_arrived_while_the_last_one_ran() -> None:
    process = Recording()
    batcher = make_batcher(process, max_batches=1)
    first = submit(batcher, callback("d-1"))
    await turn()
    rest = [submit(batcher, callback(f"d-{number}")) for number in range(2, 50)]
    await turn()
    assert process.batches == [["d-1"]]
    process.may_end.set()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in process.batches] == [1, 48]


async def test_a_deployment_in_flight_is_never_in_a_second_batch() -> None:
    process = Recording()
    batcher = make_batcher(process, max_batches=4)
    first = submit(batcher, callback("d-1"))
    await turn()
    second, other = submit(batcher, callback("d-1")), submit(batcher, callback("d-2"))
    await turn()
    assert process.batches == [["d-1"], ["d-2"]]
    process.may_end.set()
    await asyncio.gather(first, second, other)
    assert process.batches == [["d-1"], ["d-2"], ["d-1"]]


async def test_callbacks_of_one_deployment_that_wait_together_go_as_the_last_of_them() -> None:
    process = Recording()
    batcher = make_batcher(process)
    first = submit(batcher, callback("d-1"))
    await turn()
    older, newer = callback("d-1"), callback("d-1")
    answers = [submit(batcher, newer), submit(batcher, older)]
    process.may_end.set()
    await first
    assert await asyncio.gather(*answers) == [newer.number, newer.number]
    assert len(process.batches) == 2


async def test_what_may_be_one_deployment_is_never_in_two_batches_and_the_last_goes_last() -> None:
    """Ids are put together only if they are the same: others may be two deployments after all."""
    process = Recording()
    batcher = make_batcher(process, max_batches=4)
    first = submit(batcher, callback("d-1"))
    await turn()
    rest = [submit(batcher, callback(name)) for name in ("D-1", "d-1", "D-1")]
    await turn()
    assert process.batches == [["d-1"]]
    process.may_end.set()
    numbers = await asyncio.gather(first, *rest)
    assert process.batches == [["d-1"], ["d-1"], ["D-1"]]
    assert numbers[1] == numbers[3] == max(numbers)


async def test_a_group_whose_time_is_up_is_told_and_the_others_are_not() -> None:
    process, expired = Recording(), list[str]()
    batcher = make_batcher(
        process, max_batches=1, expired=lambda group: expired.append(group.callback.deployment_id)
    )
    under_way = submit(batcher, callback("d-1"), 0.05)
    await turn()
    waiting = submit(batcher, callback("d-2"), 0.05)
    await becomes_true(lambda: len(expired) == 2)
    assert expired == ["d-1", "d-2"]
    waiting.cancel()
    later = submit(batcher, callback("d-3"), 60)
    process.may_end.set()  # the batch of the first goes on, and the second is in none
    await asyncio.gather(under_way, later)
    assert process.batches == [["d-1"], ["d-3"]]
    assert len(expired) == 2


async def test_a_mistake_about_one_whose_time_is_up_does_not_end_the_times_of_others() -> None:
    def fail(group: "Group[int]") -> None:
        expired.append(group.callback.deployment_id)
        raise LookupError

    process, expired = Recording(), list[str]()
    batcher = make_batcher(process, max_batches=1, expired=fail)
    answers = [submit(batcher, callback(f"d-{number}"), 0.05) for number in range(3)]
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    process.may_end.set()


async def test_a_mistake_in_a_batch_reaches_those_who_wait_and_frees_their_deployments() -> None:
    async def fail(_groups: "list[Group[int]]") -> None:
        raise LookupError

    batcher = make_batcher(fail)
    for _ in range(2):
        with pytest.raises(LookupError):
            await submit(batcher, callback("d-1"))


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
