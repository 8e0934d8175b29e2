"""Rules 1 and 2: for one deployment the higher number wins, whichever way each travelled."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from sam.callback.inbox.batcher import MAX_BATCH, Batcher, Group
from sam.callback.model import Callback
from tests.support.callbacks import body
from tests.support.conditions import eventually
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
    process: Recording, *, max_batches: int = 2, blocked: frozenset[str] = frozenset()
) -> "Batcher[int]":
    return Batcher(process, max_batches=max_batches, is_blocked=blocked.__contains__)


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_callback_on_an_idle_service_waits_for_nobody() -> None:
    process = Recording()
    process.may_end.set()
    batcher = make_batcher(process)
    one = callback("d-1")
    assert await batcher.submit(one, 0) == one.number
    assert process.batches == [["d-1"]]


async def test_a_batch_is_all_that_arrived_while_the_last_one_ran() -> None:
    process = Recording()
    batcher = make_batcher(process, max_batches=1)
    first = batcher.submit(callback("d-1"), 0)
    await turn()
    rest = [batcher.submit(callback(f"d-{number}"), 0) for number in range(2, 50)]
    await turn()
    assert process.batches == [["d-1"]]
    process.may_end.set()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in process.batches] == [1, 48]


async def test_a_deployment_in_flight_is_never_in_a_second_batch() -> None:
    process = Recording()
    batcher = make_batcher(process, max_batches=4)
    first = batcher.submit(callback("d-1"), 0)
    await turn()
    second, other = batcher.submit(callback("d-1"), 0), batcher.submit(callback("d-2"), 0)
    await turn()
    assert process.batches == [["d-1"], ["d-2"]]
    process.may_end.set()
    await asyncio.gather(first, second, other)
    assert process.batches == [["d-1"], ["d-2"], ["d-1"]]


async def test_callbacks_of_one_deployment_that_wait_together_go_as_the_last_of_them() -> None:
    process = Recording()
    batcher = make_batcher(process)
    first = batcher.submit(callback("d-1"), 0)
    await turn()
    older, newer = callback("d-1"), callback("d-1")
    answers = [batcher.submit(newer, 0), batcher.submit(older, 0)]
    process.may_end.set()
    await first
    assert await asyncio.gather(*answers) == [newer.number, newer.number]
    assert len(process.batches) == 2


async def test_a_batch_is_as_large_as_the_database_is_fast() -> None:
    batcher = make_batcher(Recording())
    assert batcher.batch_limit == MAX_BATCH
    batcher.took(seconds=1.0, deployments=10, time_limit=2.0)
    assert batcher.batch_limit == 5  # a quarter of the time
    for _ in range(5):
        batcher.ran_out_of_time()
    assert batcher.batch_limit == 1
    batcher.took(seconds=0.001, deployments=1, time_limit=2.0)
    assert batcher.batch_limit == MAX_BATCH


async def test_what_is_blocked_waits_and_holds_up_nobody_else() -> None:
    process = Recording()
    process.may_end.set()
    batcher = make_batcher(process, blocked=frozenset({"d-1"}))
    waiting = batcher.submit(callback("d-1"), 0)
    await batcher.submit(callback("d-2"), 0)
    await turn()
    assert process.batches == [["d-2"]]
    assert not waiting.done()
    waiting.cancel()


async def test_a_mistake_in_a_batch_reaches_those_who_wait_and_frees_their_deployments() -> None:
    async def fail(_groups: "list[Group[int]]") -> None:
        raise LookupError

    batcher: Batcher[int] = Batcher(fail, max_batches=1, is_blocked=lambda _: False)
    for _ in range(2):
        with pytest.raises(LookupError):
            await batcher.submit(callback("d-1"), 0)


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
