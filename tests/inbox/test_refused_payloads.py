"""A payload that its column refuses does not cost the status: that is written alone, and said."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sam.callback.settings import Settings
from sam.callback.storage.results import UpdateOutcome
from tests.support import repositories
from tests.support.conditions import eventually
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.load import spooled
from tests.support.prometheus import scrape
from tests.support.repositories import callback, open_repository
from tests.support.service import Service
from tests.support.tds import Answer, Count, Error, Statement, TdsServer

StartService = Callable[..., Service]
SECRET = "IBAN ES7921000813610123456789"


def payload(characters: int) -> bytes:
    """A payload of so many characters, with something secret in it."""
    return f'{{"botOutput": "{SECRET}{"x" * characters}'.encode()[: characters - 2] + b'"}'


@pytest.fixture
def narrow_database(database: Database) -> Database:
    """A table whose payload column holds 500 characters."""
    is_sqlite = isinstance(database, SqliteDatabase)  # which does not heed a size
    bound = " CHECK (length(payload) <= 500)" if is_sqlite else ""
    database.execute(
        f'CREATE TABLE runs ("deploymentId" VARCHAR(64) UNIQUE, status VARCHAR(20)'
        f"{' CHECK (length(status) <= 20)' if is_sqlite else ''}, payload VARCHAR(500){bound})"
    )
    for number in range(1, 11):
        database.execute(
            "INSERT INTO runs (\"deploymentId\", status) VALUES (?, 'RUNNING')", f"d-{number}"
        )
    return database


@pytest.fixture
def service(start_service: StartService, narrow_database: Database) -> Service:
    return start_service(
        SQL_SAM_CONNECTION_STRING=narrow_database.connection_string,
        SQL_SAM_TABLE="runs",
        SQL_SAM_PAYLOAD_COLUMN="payload",
    )


def body(deployment_id: str, status: str, padding: int = 0) -> bytes:
    output = SECRET + "x" * padding
    return json.dumps(
        {"deploymentId": deployment_id, "status": status, "botOutput": output}
    ).encode()


def rows(database: Database, *names: str) -> list[tuple[Any, ...]]:
    """Status and payload of these deployments."""
    return [
        database.execute('SELECT status, payload FROM runs WHERE "deploymentId" = ?', name)[0]
        for name in names
    ]


def test_the_status_is_written_and_the_loss_is_said(
    service: Service, narrow_database: Database
) -> None:
    short, long = body("d-1", "SHORT"), body("d-2", "LONG", padding=600)
    for content in (short, long):
        assert service.post(content).json()["outcome"] == "updated"
    assert rows(narrow_database, "d-1", "d-2") == [("SHORT", short.decode()), ("LONG", None)]

    line = service.wait_for_event("payload_refused")
    assert (line["level"], line["deployment_id"]) == ("warning", "d-2")
    assert line["payload_bytes"] == len(long)
    assert scrape(service).value("payloads_refused_total") == 1
    assert scrape(service).value("callbacks_total", outcome="updated") == 2
    assert service.stop() == 0
    assert SECRET not in "".join(service.output)


def test_a_status_that_is_refused_itself_is_a_dead_letter(
    service: Service, narrow_database: Database
) -> None:
    content = body("d-1", "A_STATUS_OF_TOO_MANY_CHARACTERS", padding=600)
    assert service.post(content).json()["outcome"] == "dead_letter"
    assert rows(narrow_database, "d-1") == [("RUNNING", None)]
    assert scrape(service).value("payloads_refused_total") == 0


def test_an_entry_of_the_spool_is_applied_so_too(
    service: Service, narrow_database: Database
) -> None:
    service.wait_for_event("database_up")
    narrow_database.execute("ALTER TABLE runs RENAME TO away")
    assert service.post(body("d-1", "QUEUED", padding=600)).json()["outcome"] == "queued"
    narrow_database.execute("ALTER TABLE away RENAME TO runs")
    eventually(lambda: rows(narrow_database, "d-1") == [("QUEUED", None)])
    assert service.wait_for_event("payload_refused")["deployment_id"] == "d-1"
    eventually(lambda: spooled(service.directory / "var/callback-spool.db") == {})


async def test_in_a_batch_each_payload_that_fits_is_written(
    narrow_database: Database, settings_for: Callable[..., Settings]
) -> None:
    sizes = {f"d-{number}": 600 if number in {2, 3, 7} else 400 for number in range(1, 11)}
    callbacks = [
        replace(callback(name), payload=payload(size))
        for name, size in {**sizes, "no": 600}.items()
    ]
    settings = settings_for(narrow_database, sql_sam_table="runs", sql_sam_payload_column="payload")
    async with open_repository(settings) as repository:
        batch = await repositories.apply(repository, callbacks)
    assert batch.error is None
    outcomes = [applied.outcome for applied in batch.results]
    assert outcomes == [UpdateOutcome.UPDATED] * 10 + [UpdateOutcome.UNMATCHED]
    refused = [applied.is_payload_refused for applied in batch.results]
    assert refused == [size > 500 for size in sizes.values()] + [False]
    written = rows(narrow_database, *sizes)
    assert [each is not None for _, each in written] == [size < 500 for size in sizes.values()]
    assert {status for status, _ in written} == {"DONE"}


async def test_a_payload_that_is_no_value_of_its_columns_type(
    postgres_database: PostgresDatabase, settings_for: Callable[..., Settings]
) -> None:
    postgres_database.execute("ALTER TABLE robots ALTER COLUMN payload TYPE jsonb USING NULL")
    settings = settings_for(postgres_database, sql_sam_payload_column="payload")
    async with open_repository(settings) as repository:
        one = replace(callback("d-1"), payload=b'{"botOutput": "\\u0000"}')
        [applied] = (await repositories.apply(repository, [one])).results
    assert (applied.outcome, applied.is_payload_refused) == (UpdateOutcome.UPDATED, True)
    assert postgres_database.statuses() == {"d-1": "DONE"}


async def test_sql_server(sql_server: TdsServer, to_sql_server: dict[str, Any]) -> None:
    def answer(statement: Statement) -> list[Answer]:
        if statement.text.startswith("UPDATE") and "[payload]" in statement.text:
            return [Error(2628, f"String or binary data would be truncated: '{SECRET}'.")]
        return [Count(1)]

    sql_server.answer = answer
    values = {"callback_api_key": "k", "sql_sam_payload_column": "payload", **to_sql_server}
    async with open_repository(Settings(_env_file=None, **values)) as repository:
        one = replace(callback("d-1"), payload=payload(600))
        [applied] = (await repositories.apply(repository, [one])).results
    assert (applied.outcome, applied.is_payload_refused) == (UpdateOutcome.UPDATED, True)
    assert [statement.text for statement in sql_server.heard("UPDATE")] == [
        "UPDATE [robots] SET [status] = @P1, [payload] = @P2 WHERE [deploymentId] = @P3",
        "UPDATE [robots] SET [status] = @P1 WHERE [deploymentId] = @P2",
    ]
