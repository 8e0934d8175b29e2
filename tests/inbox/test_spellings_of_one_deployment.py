"""Spellings that the database takes for the same are one deployment, whichever way each goes.

OLD waits in the spool under one spelling, NEW comes under another: in the end the row says NEW.
"""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from sam.callback.inbox.circuit_breaker import CircuitState
from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.spool import LOOK_UP_SECONDS
from sam.callback.inbox.store import Entry, Kind
from sam.callback.settings import Settings
from tests.support import inboxes
from tests.support.conditions import LIMIT_SECONDS, becomes_true
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.disk import hung_disk, slow_disk
from tests.support.inboxes import MIB, OpenInbox
from tests.support.load import spooled
from tests.support.tds import (
    Answer,
    Count,
    Error,
    Statement,
    TdsServer,
    settings_for_sql_server,
    types,
)

UUID = "abcdefab-cdef-4bcd-8fab-cdefabcdefab"


class Sam(Protocol):
    """A database with one row, `UUID`, and a column that more than one spelling of it meets."""

    settings: dict[str, Any]

    def go_away(self) -> None: ...
    def come_back(self) -> None: ...
    def status(self) -> str: ...


class OdbcSam:
    """A real one."""

    def __init__(self, database: Database, column: str) -> None:
        self._database = database
        self.settings = {
            "sql_sam_connection_string": database.connection_string,
            "sql_sam_table": "runs",
        }
        database.execute(f'CREATE TABLE runs ("deploymentId" {column}, status VARCHAR(64))')
        database.execute("INSERT INTO runs VALUES (?, 'RUNNING')", UUID)

    def go_away(self) -> None:
        self._database.execute("ALTER TABLE runs RENAME TO away")

    def come_back(self) -> None:
        self._database.execute("ALTER TABLE away RENAME TO runs")

    def status(self) -> str:
        [(status,)] = self._database.execute("SELECT status FROM runs")
        return str(status)


class TdsSam:
    """A stand-in for a SQL Server whose column is case-insensitive."""

    def __init__(self, server: TdsServer, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._status = "RUNNING"
        self._is_away = False
        server.answer = self._answer

    def _answer(self, statement: Statement) -> list[Answer]:
        if "dm_exec_describe" in statement.text:
            key = ("nvarchar(50)", 100, "Modern_Spanish_CI_AS")
            return [types(key, ("varchar(64)", 64, "Modern_Spanish_CI_AS"))]
        if not statement.text.startswith("UPDATE"):
            return [Count(None)]
        if self._is_away:
            return [Error(208, "Invalid object name 'robots'.")]
        values = [parameter.value for parameter in statement.parameters]
        met = [status for status, key in zip(values[::2], values[1::2], strict=True)]
        for status, key in zip(values[::2], values[1::2], strict=True):
            if key.lower() == UUID:
                self._status = status
        return [Count(1) for _ in met] or [Count(0)]

    def go_away(self) -> None:
        self._is_away = True

    def come_back(self) -> None:
        self._is_away = False

    def status(self) -> str:
        return self._status


@pytest.fixture(params=["nocase", "citext", "uuid", "sql_server"])
def sam(request: pytest.FixtureRequest) -> Sam:
    if request.param == "nocase":
        sqlite: SqliteDatabase = request.getfixturevalue("sqlite_database")
        return OdbcSam(sqlite, "VARCHAR(128) COLLATE NOCASE")
    if request.param in {"citext", "uuid"}:
        postgres: PostgresDatabase = request.getfixturevalue("postgres_database")
        if request.param == "citext":
            postgres.execute("CREATE EXTENSION citext")
        return OdbcSam(postgres, request.param)
    server: TdsServer = request.getfixturevalue("sql_server")
    return TdsSam(server, settings_for_sql_server(server.port))


@pytest.fixture
def open_inbox(sam: Sam, path: Path) -> OpenInbox:
    values = {"callback_api_key": "k", "callback_spool_path": path, **sam.settings}
    settings = Settings(_env_file=None, **values)
    return lambda: inboxes.open_inbox(settings)


async def empty_spool(inbox: Inbox, path: Path) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while spooled(path):
            await inbox.replayer.step()
            await asyncio.sleep(0.01)


async def outcome(inbox: Inbox, deployment_id: str, status: str) -> str:
    return (await inbox.record(deployment_id, status, b"")).outcome


async def test_a_newer_one_of_another_spelling_replaces_the_entry(
    sam: Sam, open_inbox: OpenInbox, path: Path
) -> None:
    async with open_inbox() as inbox:
        assert await outcome(inbox, UUID, "FIRST") == "updated"
        sam.go_away()
        assert await outcome(inbox, UUID.title(), "OLD") == "queued"
        sam.come_back()
        inbox.breaker.committed()
        assert await outcome(inbox, UUID.upper(), "NEW") == "queued"
        assert len(spooled(path)) == 1
        await empty_spool(inbox, path)
    assert sam.status() == "NEW"


@pytest.mark.parametrize("is_probed_first", [False, True])
async def test_an_entry_spooled_before_the_rule_was_known_is_found_by_it(
    *, is_probed_first: bool, sam: Sam, open_inbox: OpenInbox, path: Path
) -> None:
    with closing(SpoolFile(path, 64 * MIB)) as file:
        file.put([Entry(1, Kind.QUEUED, UUID.upper(), "OLD")], 1)
    async with open_inbox() as inbox:
        if is_probed_first:
            await inbox.database.probe()
        assert await outcome(inbox, UUID, "NEW") == "queued"
        await empty_spool(inbox, path)
    assert sam.status() == "NEW"


async def test_a_replay_under_way_is_applied_before_another_spelling(
    sam: Sam, open_inbox: OpenInbox, path: Path
) -> None:
    with closing(SpoolFile(path, 64 * MIB)) as file:
        file.put([Entry(1, Kind.QUEUED, UUID.upper(), "OLD")], 1)
    async with open_inbox() as inbox:
        async with hung_disk(inbox.spool, limit=None):  # so that there is no look-up
            with inbox._in_flight.replaying([UUID.upper()]):  # noqa: SLF001 - as the replayer does
                newer = asyncio.create_task(outcome(inbox, UUID, "NEW"))
                await asyncio.sleep(2 * LOOK_UP_SECONDS)
                assert not newer.done()
        assert await newer == "queued"
        await empty_spool(inbox, path)
    assert sam.status() == "NEW"


async def test_a_callback_follows_another_spelling_into_the_spool(
    sam: Sam, open_inbox: OpenInbox, path: Path
) -> None:
    async with open_inbox() as inbox:
        assert await outcome(inbox, UUID, "FIRST") == "updated"
        with slow_disk(inbox.spool):
            inbox.breaker.state = CircuitState.OPEN
            older = asyncio.create_task(outcome(inbox, UUID.title(), "OLD"))
            await asyncio.sleep(0)
            inbox.breaker.committed()  # the circuit closes before the older one is on disk
            newer = asyncio.create_task(outcome(inbox, UUID.upper(), "NEW"))
            await asyncio.sleep(0.5)
            assert not newer.done()
        assert [await older, await newer] == ["queued", "queued"]
        await empty_spool(inbox, path)
    assert sam.status() == "NEW"


async def test_of_spellings_that_come_together_the_last_is_written_last(
    sam: Sam, open_inbox: OpenInbox, path: Path
) -> None:
    async with open_inbox() as inbox:
        spellings = [UUID, UUID.upper(), UUID]
        outcomes = await asyncio.gather(
            *(outcome(inbox, id_, f"S{number}") for number, id_ in enumerate(spellings))
        )
        assert set(outcomes) <= {"updated", "superseded", "queued"}
        await empty_spool(inbox, path)
        await becomes_true(lambda: inbox.admission.count == 0)
    assert sam.status() == "S2"
