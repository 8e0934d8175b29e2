"""An answer takes CALLBACK_DB_TIMEOUT and one fsync at most, and the write goes on behind it.

On a PostgreSQL whose COMMIT takes long. What is told apart is the order of events, no time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.recorder import NOT_ANSWERED, OLDER_WAITS, WAITED_TOO_LONG
from sam.callback.model import Recorded
from sam.callback.settings import Settings
from tests.support import inboxes
from tests.support.conditions import LIMIT_SECONDS, becomes_true, eventually
from tests.support.databases import PostgresDatabase
from tests.support.disk import hung_disk, slow_disk
from tests.support.inboxes import OpenInbox, replay_all
from tests.support.load import Load, losses, spooled
from tests.support.service import Service
from tests.support.slow_commits import make_commits_slow


@pytest.fixture
def open_inbox(
    postgres_database: PostgresDatabase, settings_for: Callable[..., Settings], path: Path
) -> OpenInbox:
    postgres_database.add_robots(["d-2", "d-3"])

    @asynccontextmanager
    async def open_it(time_limit: float, *, connections: int = 1) -> AsyncIterator[Inbox]:
        settings = settings_for(
            postgres_database,
            callback_spool_path=path,
            callback_db_timeout=time_limit,
            sql_sam_pool_max=connections,
        )
        async with inboxes.open_inbox(settings) as inbox:
            await inbox.record("d-3", "WARM-UP", b"")
            yield inbox

    return open_it


def send(inbox: Inbox, deployment_id: str, status: str) -> asyncio.Task[Recorded]:
    return asyncio.create_task(inbox.record(deployment_id, status, b""))


def is_committing(database: PostgresDatabase) -> bool:
    return bool(database.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))


async def in_spool(inbox: Inbox, database: PostgresDatabase, status: str) -> None:
    """Put a callback of d-1 into the spool."""
    database.rename("robots", "away")
    assert (await inbox.record("d-1", status, b"")).outcome == "queued"
    database.rename("away", "robots")
    inbox.breaker.committed()


async def test_a_callback_with_an_older_entry_does_not_wait_for_the_database(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase
) -> None:
    async with open_inbox(30) as inbox:
        await in_spool(inbox, postgres_database, "OLD")
        make_commits_slow(postgres_database, seconds=3)
        newer, other = send(inbox, "d-1", "NEW"), send(inbox, "d-2", "DONE")  # one batch
        recorded = await newer
        assert not other.done()
        assert (recorded.outcome, recorded.reason) == ("queued", OLDER_WAITS)
        assert (await other).outcome == "updated"
        await replay_all(inbox)
    assert postgres_database.statuses()["d-1"] == "NEW"


async def test_a_callback_does_not_wait_for_the_replay_of_an_older_entry(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase
) -> None:
    async with open_inbox(30) as inbox:
        await in_spool(inbox, postgres_database, "OLD")
        make_commits_slow(postgres_database, seconds=3)
        replay = asyncio.create_task(inbox.replayer.step())
        await becomes_true(lambda: is_committing(postgres_database))
        assert (await inbox.record("d-1", "NEW", b"")).outcome == "queued"
        assert not replay.done()
        await replay_all(inbox)
        await replay
    assert postgres_database.statuses()["d-1"] == "NEW"


async def test_a_callback_follows_an_older_one_into_the_spool(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase
) -> None:
    async with open_inbox(30) as inbox:
        postgres_database.rename("robots", "away")
        assert (await inbox.record("d-2", "ANY", b"")).outcome == "queued"
        postgres_database.rename("away", "robots")
        with slow_disk(inbox.spool):
            older = send(inbox, "d-1", "OLD")
            await asyncio.sleep(0)
            inbox.breaker.committed()  # the circuit closes before the older one is on disk
            newer = send(inbox, "d-1", "NEW")
            await asyncio.sleep(0.5)
            assert not older.done()
            assert not newer.done()
        assert [(await older).outcome, (await newer).outcome] == ["queued", "queued"]
        await replay_all(inbox)
    assert postgres_database.statuses()["d-1"] == "NEW"


async def test_no_entry_is_replayed_while_a_newer_one_is_being_written(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase
) -> None:
    async with open_inbox(30, connections=2) as inbox:
        await in_spool(inbox, postgres_database, "OLD")
        make_commits_slow(postgres_database, seconds=3)
        async with hung_disk(inbox.spool, limit=None):  # so the older one is not seen
            newer = send(inbox, "d-1", "NEW")
            await becomes_true(lambda: is_committing(postgres_database))
        await replay_all(inbox)
        assert (await newer).outcome == "updated"
        async with asyncio.timeout(LIMIT_SECONDS):
            while inbox.spool.counts()["queued"]:
                await inbox.replayer.step()
                await asyncio.sleep(0.1)
    assert postgres_database.statuses()["d-1"] == "NEW"


async def test_a_callback_whose_time_is_up_is_queued_and_its_batch_goes_on(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase, path: Path
) -> None:
    async with open_inbox(4) as inbox:
        make_commits_slow(postgres_database, seconds=2.5)
        first = send(inbox, "d-1", "FIRST")
        await becomes_true(lambda: is_committing(postgres_database))
        late = send(inbox, "d-2", "LATE")  # its batch begins 2.5 s later, and has all of its time
        assert (await first).outcome == "updated"
        recorded = await late
        assert (recorded.outcome, recorded.reason) == ("queued", NOT_ANSWERED)
        assert spooled(path) == {"d-2": ("queued", "LATE")}
        await becomes_true(
            lambda: not inbox.spool.counts()["queued"]
        )  # withdrawn: nothing is replayed
        assert postgres_database.statuses()["d-2"] == "LATE"
        assert inbox.breaker.failures == 0


async def test_a_later_callback_is_written_after_it(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase
) -> None:
    async with open_inbox(4, connections=2) as inbox:
        make_commits_slow(postgres_database, seconds=2.5)
        answers = [send(inbox, "d-1", "S0")]
        for number in range(1, 8):
            await asyncio.sleep(0.5)
            answers.append(send(inbox, "d-1", f"S{number}"))
        outcomes = {(await answer).outcome for answer in answers}
        assert outcomes <= {"updated", "queued", "superseded"}
        make_commits_slow(postgres_database)
        await becomes_true(lambda: not inbox.admission.count)
        await inbox._recorder.finish()  # noqa: SLF001 - what goes on behind the answers
        await replay_all(inbox)
    assert postgres_database.statuses()["d-1"] == "S7"


async def test_a_callback_that_waits_for_its_deployment_is_queued_when_its_time_is_up(
    open_inbox: OpenInbox, postgres_database: PostgresDatabase
) -> None:
    async with open_inbox(2) as inbox:
        make_commits_slow(postgres_database, seconds=5)
        first = send(inbox, "d-1", "FIRST")
        await becomes_true(lambda: is_committing(postgres_database))
        second = send(inbox, "d-1", "SECOND")
        assert (await first).outcome == "queued"
        recorded = await second
        assert recorded.outcome == "queued"
        assert recorded.reason in {WAITED_TOO_LONG, "The database is down.", OLDER_WAITS}
        make_commits_slow(postgres_database)
        async with asyncio.timeout(
            LIMIT_SECONDS
        ):  # the first has its row locked until it is committed
            while postgres_database.statuses()["d-1"] != "SECOND":
                await inbox.replayer.step()
                await asyncio.sleep(0.1)


@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.parametrize("connections", ["1", "3"])
def test_conflicting_statuses_on_a_database_that_is_nearly_too_slow(
    connections: str,
    start_service: Callable[..., Service],
    postgres_database: PostgresDatabase,
) -> None:
    deployments = [f"d-{number}" for number in range(1, 21)]
    postgres_database.add_robots(deployments[1:])
    service = start_service(
        SQL_SAM_CONNECTION_STRING=postgres_database.connection_string,
        SQL_SAM_POOL_MAX=connections,
        CALLBACK_DB_TIMEOUT="0.6",
    )
    spool = service.directory / "var/callback-spool.db"
    with Load(service.url, deployments, connections=16, pause=0.02) as load:
        for seconds in (0.3, 0.45, 0.55, 0.7, 0.2, 0.5):
            make_commits_slow(postgres_database, seconds=seconds)
            load.wait_for(150)
    make_commits_slow(postgres_database)
    eventually(lambda: spooled(spool) == {})
    assert not load.refused
    assert {sent.outcome for sent in load.answered} - {"superseded"} == {"updated", "queued"}
    assert losses(load.answered, load.all, postgres_database.statuses(), spool) == []
