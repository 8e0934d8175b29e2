"""Late commits: what is in the shared inbox by now may have been overtaken by another instance."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.sql.database import make_table
from sam.callback.inbox.sql.schema import DEFAULT_TABLE
from sam.callback.model import Outcome
from sam.callback.settings import Settings
from sam.callback.storage.batch import Batch
from sam.callback.storage.connection import DatabaseConnection
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import PostgresDatabase

TIME_LIMIT = 4
"""Seconds. On a machine that is slow the batch is given up before, and commits nothing either."""


async def test_of_a_batch_that_goes_on_when_the_time_of_a_callback_is_up(
    postgres_database: PostgresDatabase,
    settings_for: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    postgres_database.add_robots(["d-0"])  # beside d-1
    begun = {name: threading.Event() for name in ("d-0", "d-1")}
    may_go_on = {name: threading.Event() for name in begun}
    apply = Batch.apply

    def wait_and_apply(self: Batch, connection: DatabaseConnection) -> None:
        (callback,) = self._callbacks
        begun[callback.deployment_id].set()
        assert may_go_on[callback.deployment_id].wait(LIMIT_SECONDS)
        apply(self, connection)

    settings = settings_for(
        postgres_database,
        callback_db_timeout=TIME_LIMIT,
        callback_inbox_connection_string=postgres_database.connection_string,
        callback_inbox_timeout=LIMIT_SECONDS,
        sql_sam_pool_max=1,
    )
    await make_table(settings)
    inbox = Inbox(settings)
    await inbox.open(replay=False)
    try:
        monkeypatch.setattr(Batch, "apply", wait_and_apply)
        first = asyncio.create_task(inbox.record("d-0", "DONE", b""))
        assert await asyncio.to_thread(begun["d-0"].wait, LIMIT_SECONDS)
        older = asyncio.create_task(inbox.record("d-1", "OLD", b""))
        await asyncio.sleep(TIME_LIMIT / 4)  # so much later its batch begins, and ends
        may_go_on["d-0"].set()
        await first
        recorded = await older
        assert recorded.outcome is Outcome.QUEUED
        assert begun["d-1"].is_set()
        # Another instance gets the next one, and applies it.
        postgres_database.execute("UPDATE robots SET status = 'NEW' WHERE \"deploymentId\" = 'd-1'")
        postgres_database.execute(f"DELETE FROM {DEFAULT_TABLE}")
        may_go_on["d-1"].set()
    finally:
        for event in may_go_on.values():
            event.set()
        await inbox.close()
    assert postgres_database.statuses() == {"d-0": "DONE", "d-1": "NEW"}
