"""Callbacks in flight are bounded, and the event loop never waits for the database or the disk."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.recorder import NotSafeError, OverloadedError, Recorded
from sam.callback.model import Outcome
from sam.callback.settings import Settings
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.proxy import proxy_to

BLOCKED_SECONDS = 0.5
"""So long no computation of ours takes, on however busy a machine; what waits takes longer."""


async def test_more_callbacks_than_the_bound_are_refused_and_none_waits_for_ever(
    sqlite_database: SqliteDatabase, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = settings_for(
        sqlite_database, callback_spool_path=tmp_path / "spool.db", callback_max_connections=2
    )
    inbox = Inbox(settings)
    await inbox.open(replay=False)
    try:
        results = await asyncio.gather(
            *(inbox.record(f"d-{number}", "DONE", b"") for number in range(6)),
            return_exceptions=True,
        )
        after = await inbox.record("d-1", "DONE", b"")
    finally:
        await inbox.close()

    assert [type(result) for result in results[4:]] == [OverloadedError, OverloadedError]
    assert not any(isinstance(result, BaseException) for result in results[:4])
    assert after.outcome is Outcome.UPDATED


async def test_the_event_loop_waits_for_neither_the_database_nor_the_disk(
    postgres_database: PostgresDatabase,
    settings_for: Callable[..., Settings],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def record(inbox: Inbox) -> list[Recorded | BaseException]:
        return await asyncio.gather(
            *(inbox.record(f"d-{number}", "DONE", b"") for number in range(50)),
            return_exceptions=True,
        )

    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = BLOCKED_SECONDS
    with proxy_to(postgres_database.server.port) as proxy:
        settings = settings_for(
            postgres_database,
            sql_sam_connection_string=postgres_database.server.connection_string(
                postgres_database.name, port=proxy.port
            ),
            callback_spool_path=tmp_path / "spool.db",
            callback_db_timeout=1.0,
        )
        inbox = Inbox(settings)
        await inbox.open()
        try:
            assert await record(inbox)
            proxy.fall_silent()
            queued = await record(inbox)
            with closing(sqlite3.connect(settings.callback_spool_path)) as other:
                other.execute("BEGIN IMMEDIATE")  # for longer than the spool waits
                not_safe = await record(inbox)
        finally:
            await inbox.close()

    assert {r.outcome for r in queued if isinstance(r, Recorded)} == {Outcome.QUEUED}
    assert {type(result) for result in not_safe} == {NotSafeError}
    assert not [record.message for record in caplog.records if "Executing" in record.message]
