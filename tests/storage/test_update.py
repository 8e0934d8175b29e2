"""The repository's UPDATE, on every database that can be run here."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pyodbc
import pytest

from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.errors import DatabaseUnavailableError
from sam.callback.storage.results import UpdateOutcome
from sam.callback.storage.robots import RobotRepository
from tests.support import repositories
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import ROW_LOCKING, Database, PostgresDatabase, SqliteDatabase

RECEIVED = datetime(2026, 3, 29, 1, 30, 15, 123000, tzinfo=UTC)
NUMBERS = count(round(RECEIVED.timestamp() * 1_000_000) * 1000)
UPDATED, UNMATCHED = UpdateOutcome.UPDATED, UpdateOutcome.UNMATCHED


def callback(deployment_id: str = "d-1", status: str = "DONE", payload: bytes = b"{}") -> Callback:
    return Callback(next(NUMBERS), deployment_id, status, payload)


OpenRepository = Callable[..., AbstractAsyncContextManager[RobotRepository]]


@pytest.fixture
def open_repository(database: Database, settings_for: Callable[..., Settings]) -> OpenRepository:
    def open_it(**overrides: object) -> AbstractAsyncContextManager[RobotRepository]:
        return repositories.open_repository(settings_for(database, **overrides))

    return open_it


async def outcomes(repository: RobotRepository, *callbacks: Callback) -> list[UpdateOutcome]:
    batch = await repositories.apply(repository, callbacks)
    assert batch.error is None
    return [applied.outcome for applied in batch.results]


async def test_each_callback_of_a_batch_gets_its_own_result(
    open_repository: OpenRepository, database: Database
) -> None:
    database.add_robots(["d-2", "d-3"])
    async with open_repository() as repository:
        assert await outcomes(
            repository, callback("d-1", "A"), callback("d-unknown"), callback("d-3", "C")
        ) == [UPDATED, UNMATCHED, UPDATED]
    assert database.statuses() == {"d-1": "A", "d-2": "RUNNING", "d-3": "C"}


async def test_a_row_that_is_refused_does_not_hold_up_the_others(
    open_repository: OpenRepository, database: Database
) -> None:
    names = [f"d-{number}" for number in range(2, 102)]
    database.add_robots(names)
    batch = [callback(name, "x" * 65 if name == "d-50" else "DONE") for name in names]
    async with open_repository() as repository:
        applied_batch = await repositories.apply(repository, batch)
    for name, applied in zip(names, applied_batch.results, strict=True):
        assert applied.outcome is (UpdateOutcome.REFUSED if name == "d-50" else UPDATED)
    statuses = database.statuses()
    assert statuses.pop("d-50") == statuses.pop("d-1") == "RUNNING"
    assert set(statuses.values()) == {"DONE"}


async def test_the_reason_of_a_refusal_is_in_the_databases_words(
    open_repository: OpenRepository,
) -> None:
    async with open_repository() as repository:
        batch = await repositories.apply(repository, [callback(status="x" * 65)])
    [applied] = batch.results
    assert any(words in applied.reason for words in ("length", "too long", "would be truncated"))


async def test_payload_and_time_are_written_where_their_columns_are_set(
    open_repository: OpenRepository, database: Database
) -> None:
    payload = '{"deploymentId": "d-1", "botOutput": "ñ🤖"}'.encode()
    async with open_repository(
        sql_sam_payload_column="payload", sql_sam_finished_column="finished"
    ) as repository:
        assert await outcomes(repository, callback(payload=payload)) == [UPDATED]
    [(status, written, finished)] = database.execute("SELECT status, payload, finished FROM robots")
    assert (status, written) == ("DONE", payload.decode())
    assert str(finished).startswith("2026-03-29 01:30:15.123")


async def test_names_of_the_table_and_its_columns_are_settings(
    open_repository: OpenRepository, database: Database
) -> None:
    database.execute('CREATE TABLE "SAM robots" ("the id" VARCHAR(64), "order" VARCHAR(64))')
    database.execute("""INSERT INTO "SAM robots" VALUES ('d-9', 'RUNNING')""")
    async with open_repository(
        sql_sam_table="SAM robots",
        sql_sam_deployment_column="the id",
        sql_sam_status_column="order",
    ) as repository:
        assert await outcomes(repository, callback("d-9")) == [UPDATED]
    assert database.execute('SELECT "order" FROM "SAM robots"') == [("DONE",)]
    assert database.statuses() == {"d-1": "RUNNING"}


async def test_several_rows_of_one_deployment_are_all_updated(
    open_repository: OpenRepository, database: Database
) -> None:
    database.execute('CREATE TABLE runs ("deploymentId" VARCHAR(64), status VARCHAR(64))')
    for _ in range(2):
        database.execute("INSERT INTO runs VALUES ('d-1', 'RUNNING')")
    async with open_repository(sql_sam_table="runs") as repository:
        assert await outcomes(repository, callback()) == [UPDATED]
    assert database.execute("SELECT status FROM runs") == [("DONE",), ("DONE",)]


async def test_a_missing_table_or_column_is_the_databases_fault(
    open_repository: OpenRepository,
) -> None:
    for what in (
        "table",
        "status_column",
        "deployment_column",
        "payload_column",
        "finished_column",
    ):
        async with open_repository(**{f"sql_sam_{what}": "nowhere"}) as repository:
            with pytest.raises(DatabaseUnavailableError, match=r"Check .*SQL_SAM_"):
                await repository.probe(timeout=LIMIT_SECONDS)
            batch = await repositories.apply(repository, [callback()])
        assert "Check " in str(batch.error), what
        assert [applied.outcome for applied in batch.results] == [UpdateOutcome.UNKNOWN], what


async def test_the_probe_changes_nothing(
    open_repository: OpenRepository, database: Database
) -> None:
    async with open_repository() as repository:
        await repository.probe(timeout=LIMIT_SECONDS)
    assert database.statuses() == {"d-1": "RUNNING"}


async def test_with_a_finished_column_a_later_status_is_not_overwritten(
    open_repository: OpenRepository, database: Database
) -> None:
    earlier, later = callback(status="EARLIER"), callback(status="LATER")
    later = replace(later, number=earlier.number + 1_000_000_000)
    async with open_repository(sql_sam_finished_column="finished") as repository:
        assert await outcomes(repository, later) == [UPDATED]
        assert await outcomes(repository, earlier) == [UpdateOutcome.SUPERSEDED]
        assert await outcomes(repository, later) == [UPDATED]  # replayed
        assert await outcomes(repository, callback("d-unknown")) == [UNMATCHED]
    assert database.statuses() == {"d-1": "LATER"}


# SQL Server has no such trigger: for it there is test_sql_server_results.py.
@pytest.mark.parametrize("database", ["sqlite_database", "postgres_database"], indirect=True)
async def test_a_trigger_that_skips_the_update_is_not_taken_for_a_later_status(
    open_repository: OpenRepository, database: Database
) -> None:
    """Nor is a row that appears just after the UPDATE: the callback is tried again."""
    if isinstance(database, SqliteDatabase):
        database.execute(
            "CREATE TRIGGER keep BEFORE UPDATE ON robots BEGIN SELECT RAISE(IGNORE); END"
        )
    else:
        database.execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        database.execute(
            "CREATE TRIGGER keep BEFORE UPDATE ON robots FOR EACH ROW EXECUTE FUNCTION keep()"
        )
    async with open_repository(sql_sam_finished_column="finished") as repository:
        batch = await repositories.apply(repository, [callback()])
    [applied] = batch.results
    assert applied.outcome is UpdateOutcome.FAILED
    assert "just after the UPDATE" in applied.reason


@pytest.mark.parametrize("database", ROW_LOCKING, indirect=True)
async def test_many_locked_rows_take_little_more_time_than_one(
    database: Database, settings_for: Callable[..., Settings]
) -> None:
    """The others are written; nothing is an outage.

    One lock is waited for for a second. So many seconds as there are locks would be too late.
    """
    names = [f"d-{number}" for number in range(1, 41)]
    locked = names[1::2]
    database.add_robots(names[1:])
    settings = settings_for(database, callback_db_timeout=4, sql_sam_pool_max=1)
    async with repositories.open_connector(settings) as connector:
        with closing(pyodbc.connect(database.connection_string)) as other:
            for name in locked:
                other.execute('UPDATE robots SET status = status WHERE "deploymentId" = ?', name)
            repository = RobotRepository(connector, settings)
            batch = await repositories.apply(
                repository, [callback(name) for name in names], timeout=0.9 * len(locked)
            )
        assert batch.error is None
        for name, applied in zip(names, batch.results, strict=True):
            assert applied.outcome is (UpdateOutcome.FAILED if name in locked else UPDATED)
        if isinstance(database, PostgresDatabase):  # and the next one waits for as long as before
            assert await connector.run(_lock_timeout, timeout=LIMIT_SECONDS) == "1s"


def _lock_timeout(connection: DatabaseConnection) -> str:
    return str(connection.cursor.execute("SHOW lock_timeout").fetchval())


@pytest.mark.parametrize("database", ROW_LOCKING, indirect=True)
async def test_a_row_that_is_locked_does_not_hold_up_the_others(
    open_repository: OpenRepository, database: Database
) -> None:
    database.add_robots(["d-2", "d-3"])
    with closing(pyodbc.connect(database.connection_string)) as other:
        other.execute("UPDATE robots SET status = status WHERE \"deploymentId\" = 'd-2'")
        async with open_repository(callback_db_timeout=0.4) as repository:
            batch = await repositories.apply(
                repository, [callback("d-1"), callback("d-2"), callback("d-3")]
            )
    assert [a.outcome for a in batch.results] == [UPDATED, UpdateOutcome.FAILED, UPDATED]
    assert database.statuses() == {"d-1": "DONE", "d-2": "RUNNING", "d-3": "DONE"}


@pytest.mark.parametrize("database", ["postgres_database"], indirect=True)
async def test_a_failure_at_commit_holds_up_no_other_row(
    open_repository: OpenRepository, database: Database
) -> None:
    """A deferred constraint says nothing before, and does not say whose row it is."""
    database.execute(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " IF NEW.status = ''BAD'' THEN RAISE ''late'' USING ERRCODE = ''23514''; END IF;"
        " RETURN NEW; END'"
    )
    database.execute(
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON robots DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()"
    )
    database.add_robots(["d-2", "d-3"])
    async with open_repository() as repository:
        batch = await repositories.apply(
            repository, [callback("d-1"), callback("d-2", "BAD"), callback("d-3")]
        )
    assert [a.outcome for a in batch.results] == [UPDATED, UpdateOutcome.REFUSED, UPDATED]
    assert database.statuses() == {"d-1": "DONE", "d-2": "RUNNING", "d-3": "DONE"}


@pytest.mark.parametrize("database", ROW_LOCKING, indirect=True)  # SQLite quotes no values
@pytest.mark.parametrize("column", ["payload", None])
async def test_the_values_of_a_row_are_not_in_the_reason(
    column: str | None, open_repository: OpenRepository, database: Database
) -> None:
    database.execute("ALTER TABLE robots ADD CHECK (status <> 'BAD')")
    database.execute("UPDATE robots SET payload = 'ES79'")
    async with open_repository(sql_sam_payload_column=column) as repository:
        batch = await repositories.apply(
            repository, [callback(status="BAD", payload=b'{"iban": "ES79"}')]
        )
    [applied] = batch.results
    assert applied.outcome is UpdateOutcome.REFUSED
    assert "23514" in applied.reason or "547" in applied.reason  # whichever database's number
    assert "ES79" not in applied.reason
