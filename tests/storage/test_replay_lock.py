"""Replay lock: one instance replays at a time, and commits nothing that was replaced meanwhile."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing

import pyodbc
import pytest

from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage import replay_lock
from sam.callback.storage.connection import AbandonedError
from sam.callback.storage.errors import KeyRuleChangedError
from sam.callback.storage.replay_lock import ReplayLock, ReplayLockedError
from sam.callback.storage.results import BatchResult, UpdateOutcome
from sam.callback.storage.robots import RobotRepository
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import ROW_LOCKING, Database, PostgresDatabase
from tests.support.repositories import callback, open_repository

UPDATED, UNKNOWN = UpdateOutcome.UPDATED, UpdateOutcome.UNKNOWN

Stale = Callable[[Sequence[Callback]], set[int]]

pytestmark = pytest.mark.parametrize("database", ROW_LOCKING, indirect=True)


@pytest.fixture
async def repositories(
    database: Database, settings_for: Callable[..., Settings]
) -> AsyncIterator[list[RobotRepository]]:
    """Those of two instances."""
    database.add_robots(["d-2"])  # beside d-1
    async with AsyncExitStack() as stack:
        settings = settings_for(database, sql_sam_pool_max=1)
        yield [await stack.enter_async_context(open_repository(settings)) for _ in range(2)]


async def replay(
    repository: RobotRepository,
    *callbacks: Callback,
    stale: Stale = lambda _: set(),
    inbox: str = "inbox",
) -> BatchResult:
    while True:
        try:
            return await repository.apply(
                callbacks,
                timeout=LIMIT_SECONDS,
                key_rule=repository.key_rule,
                lock=ReplayLock(inbox),
                stale=stale,
            )
        except KeyRuleChangedError:
            continue


@asynccontextmanager
async def in_the_middle_of_a_replay(
    repository: RobotRepository, replayed: Callback
) -> AsyncIterator[None]:
    """Let the instance be silent between its UPDATE and its COMMIT."""
    asked, answered = threading.Event(), threading.Event()

    def stale(_: Sequence[Callback]) -> set[int]:
        asked.set()
        assert answered.wait(LIMIT_SECONDS)
        return set()

    replaying = asyncio.create_task(replay(repository, replayed, stale=stale))
    try:
        assert await asyncio.to_thread(asked.wait, LIMIT_SECONDS)
        yield
    finally:
        answered.set()
        batch = await replaying
    assert [result.outcome for result in batch.results] == [UPDATED]


async def test_another_instance_is_refused(
    database: Database, repositories: list[RobotRepository]
) -> None:
    one, other = repositories
    async with in_the_middle_of_a_replay(one, callback("d-1", "ONE")):
        with pytest.raises(ReplayLockedError):
            await replay(other, callback("d-2", "OTHER"))
    assert database.statuses() == {"d-1": "ONE", "d-2": "RUNNING"}
    await replay(other, callback("d-2", "OTHER"))
    assert database.statuses() == {"d-1": "ONE", "d-2": "OTHER"}


async def test_another_inbox_is_not(
    database: Database, repositories: list[RobotRepository]
) -> None:
    one, other = repositories
    async with in_the_middle_of_a_replay(one, callback("d-1", "ONE")):
        await replay(other, callback("d-2", "OTHER"), inbox="another inbox")
    assert database.statuses() == {"d-1": "ONE", "d-2": "OTHER"}


async def test_a_silent_instance_is_passed_by(
    database: Database, repositories: list[RobotRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_lock, "PATIENCE_SECONDS", 0)
    one, other = repositories
    async with in_the_middle_of_a_replay(one, callback("d-1", "ONE")):
        await replay(other, callback("d-2", "OTHER"))
    assert database.statuses() == {"d-1": "ONE", "d-2": "OTHER"}


async def test_what_was_replaced_meanwhile_is_not_written(
    database: Database, repositories: list[RobotRepository]
) -> None:
    replaced = callback("d-1")

    def stale(callbacks: Sequence[Callback]) -> set[int]:
        return {each.number for each in callbacks} & {replaced.number}

    batch = await replay(repositories[0], replaced, callback("d-2"), stale=stale)
    assert [result.outcome for result in batch.results] == [UNKNOWN, UPDATED]
    assert batch.error is None
    assert database.statuses() == {"d-1": "RUNNING", "d-2": "DONE"}


async def test_it_is_looked_at_while_the_rows_are_locked(
    database: Database, repositories: list[RobotRepository]
) -> None:
    """Else another status could be committed between the look and the COMMIT."""
    refused: list[Exception] = []

    def stale(_: Sequence[Callback]) -> set[int]:
        with closing(pyodbc.connect(database.connection_string)) as other:
            equals = "=" if isinstance(database, PostgresDatabase) else ""
            other.execute(f"SET lock_timeout {equals} 1")
            try:
                other.execute("UPDATE robots SET status = 'NEWER' WHERE \"deploymentId\" = 'd-1'")
            except pyodbc.Error as error:
                refused.append(error)
        return set()

    await replay(repositories[0], callback("d-1"), stale=stale)
    assert len(refused) == 1
    assert database.statuses()["d-1"] == "DONE"


async def test_nothing_is_written_where_it_cannot_be_looked_at(
    database: Database, repositories: list[RobotRepository]
) -> None:
    def stale(_: Sequence[Callback]) -> set[int]:
        raise AbandonedError("The shared inbox does not answer.")

    batch = await replay(repositories[0], callback("d-1"), stale=stale)
    assert [result.outcome for result in batch.results] == [UNKNOWN]
    assert database.statuses() == {"d-1": "RUNNING", "d-2": "RUNNING"}
