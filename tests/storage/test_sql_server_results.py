"""SQL Server's results are read for what they mean: counts, triggers, errors, silence.

The driver is Microsoft's; the server is a stand-in that answers as [MS-TDS] says one does.
"""

from collections.abc import AsyncIterator
from typing import Any

import pyodbc
import pytest

from sam.callback.settings import Settings
from sam.callback.storage.errors import (
    DatabaseUnavailableError,
    ErrorClass,
    LoginRefusedError,
)
from sam.callback.storage.odbc.connection_string import connection_string
from sam.callback.storage.odbc.dialects import SQL_SERVER, dialect_of
from sam.callback.storage.results import BatchResult, UpdateOutcome
from sam.callback.storage.robots import RobotRepository
from tests.support import repositories
from tests.support.conditions import LIMIT_SECONDS
from tests.support.proxy import proxy_to
from tests.support.repositories import callback, open_repository
from tests.support.tds import Answer, Count, Error, Rows, Statement, TdsServer

PERMANENT, TRANSIENT = ErrorClass.PERMANENT, ErrorClass.TRANSIENT
DATABASE, UNKNOWN = ErrorClass.DATABASE, ErrorClass.UNKNOWN


@pytest.fixture
async def repository(to_sql_server: dict[str, Any]) -> AsyncIterator[RobotRepository]:
    settings = Settings(**{"callback_api_key": "k", **to_sql_server})
    async with open_repository(settings) as repository:
        yield repository


async def apply(repository: RobotRepository, *deployments: str) -> BatchResult:
    return await repositories.apply(repository, [callback(each) for each in deployments])


async def outcome(repository: RobotRepository) -> UpdateOutcome:
    [applied] = (await apply(repository, "d-1")).results
    return applied.outcome


def answer_update(server: TdsServer, *answers: Answer, row: str | None = None) -> None:
    """Let an UPDATE have these results, and the row have this status."""

    def answer(statement: Statement) -> list[Answer]:
        if statement.text.startswith("UPDATE"):
            return list(answers)
        if statement.text.startswith("SELECT [status]"):
            return [Rows(("status",), ((row,),) if row is not None else ())]
        return [Count(None)]

    server.answer = answer


@pytest.mark.parametrize(
    ("answers", "row", "expected"),
    [
        ([Count(1)], None, UpdateOutcome.UPDATED),
        ([Count(2)], None, UpdateOutcome.UPDATED),
        ([Count(0)], None, UpdateOutcome.UNMATCHED),
        # SET NOCOUNT ON.
        ([Count(None)], "DONE", UpdateOutcome.UPDATED),
        ([Count(None)], None, UpdateOutcome.UNMATCHED),
        # The row came between the UPDATE and the look at it: to be tried again.
        ([Count(None)], "RUNNING", UpdateOutcome.FAILED),
        # A trigger's own counts come before the statement's.
        ([Count(1), Count(0)], None, UpdateOutcome.UNMATCHED),
        ([Count(0), Count(1)], None, UpdateOutcome.UPDATED),
        ([Count(3), Count(None)], None, UpdateOutcome.UPDATED),
        ([Rows(("a",), ((1,),)), Count(1)], None, UpdateOutcome.UPDATED),
        ([Rows(("a",), ((1,),)), Count(0)], None, UpdateOutcome.UNMATCHED),
    ],
)
async def test_counts(
    answers: list[Answer],
    row: str | None,
    expected: UpdateOutcome,
    sql_server: TdsServer,
    repository: RobotRepository,
) -> None:
    answer_update(sql_server, *answers, row=row)
    assert await outcome(repository) is expected


@pytest.mark.parametrize(
    ("is_later", "expected"), [(1, UpdateOutcome.SUPERSEDED), (0, UpdateOutcome.FAILED)]
)
async def test_whether_a_row_has_a_later_status_is_looked_at(
    is_later: int, expected: UpdateOutcome, sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    """A row with another status may have come between the UPDATE and the look at it."""

    def answer(statement: Statement) -> list[Answer]:
        if statement.text.startswith("UPDATE"):
            return [Count(0)]
        if statement.text.startswith("SELECT [status], CASE WHEN [finished] > "):
            return [Rows(("status", "later"), (("RUNNING", is_later),))]
        return [Count(None)]

    sql_server.answer = answer
    settings = Settings(
        **{"callback_api_key": "k", "sql_sam_finished_column": "finished", **to_sql_server},
    )
    async with open_repository(settings) as repository:
        assert await outcome(repository) is expected


async def test_after_a_locked_row_the_lock_timeout_is_shortened(
    sql_server: TdsServer, repository: RobotRepository
) -> None:
    def answer(statement: Statement) -> list[Answer]:
        values = [value.value for value in statement.parameters]
        if statement.text.startswith("UPDATE") and {"d-2", "d-3"} & set(values):
            return [Error(1222, "Lock request time out period exceeded.")]
        return [Count(1)]

    sql_server.answer = answer
    batch = await apply(repository, "d-1", "d-2", "d-3", "d-4")
    assert [applied.outcome for applied in batch.results] == [
        UpdateOutcome.UPDATED,
        UpdateOutcome.FAILED,
        UpdateOutcome.FAILED,
        UpdateOutcome.UPDATED,
    ]
    waits = [each.text for each in sql_server.heard("SET") if "LOCK_TIMEOUT" in each.text]
    assert "LOCK_TIMEOUT 15000" in waits[0]  # a quarter of CALLBACK_DB_TIMEOUT
    assert "LOCK_TIMEOUT 10" in waits[1]
    assert "LOCK_TIMEOUT 15000" in waits[-1]  # as before, for the next batch


async def test_an_error_after_a_triggers_count_is_not_missed(
    sql_server: TdsServer, repository: RobotRepository
) -> None:
    answer_update(sql_server, Count(1), Error(50000, "Not on Sundays."))
    [applied] = (await apply(repository, "d-1")).results
    assert applied.outcome is UpdateOutcome.FAILED
    assert "Not on Sundays." in applied.reason
    assert "COMMIT" not in sql_server.ends[1:]  # the first is of the set-up


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (245, PERMANENT),
        (515, PERMANENT),
        (547, PERMANENT),
        (2601, PERMANENT),
        (2627, PERMANENT),
        (2628, PERMANENT),
        (8114, PERMANENT),
        (8115, PERMANENT),
        (8152, PERMANENT),
        (8169, PERMANENT),
        (1205, TRANSIENT),
        (1222, TRANSIENT),
        (3960, TRANSIENT),
        (207, DATABASE),
        (208, DATABASE),
        (229, DATABASE),
        (976, DATABASE),
        (983, DATABASE),
        (4060, DATABASE),
        (9002, DATABASE),
        (10928, DATABASE),
        (10929, DATABASE),
        (18456, DATABASE),
        (40197, DATABASE),
        (40501, DATABASE),
        (40613, DATABASE),
        (50000, UNKNOWN),
    ],
)
def test_errors(
    number: int, expected: ErrorClass, sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    settings = Settings(callback_api_key="k", **to_sql_server)
    answer_update(sql_server, Error(number))
    connection = pyodbc.connect(connection_string(settings).text)
    assert dialect_of(connection) is SQL_SERVER
    cursor = connection.cursor()
    with pytest.raises(pyodbc.Error) as caught:
        cursor.execute("UPDATE robots SET status = ?", "DONE")
    cursor.close()
    connection.close()
    assert SQL_SERVER.classify(caught.value) is expected


async def test_one_bad_row_of_a_batch_does_not_hold_up_the_others(
    sql_server: TdsServer, repository: RobotRepository
) -> None:
    def answer(statement: Statement) -> list[Answer]:
        values = [value.value for value in statement.parameters]
        if statement.text.startswith("UPDATE") and "d-2" in values:
            return [Error(2628, "Truncated value: 'IBAN ES79'.")]
        return [Count(1)]

    sql_server.answer = answer
    batch = await apply(repository, "d-1", "d-2", "d-3")
    assert [applied.outcome for applied in batch.results] == [
        UpdateOutcome.UPDATED,
        UpdateOutcome.REFUSED,
        UpdateOutcome.UPDATED,
    ]
    assert "ES79" not in batch.results[1].reason


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (18456, LoginRefusedError, "SQL_SAM_PASSWORD"),
        (4060, DatabaseUnavailableError, "SQL_SAM_DATABASE"),
    ],
)
async def test_a_login_that_is_refused(
    number: int,
    kind: type[Exception],
    advice: str,
    sql_server: TdsServer,
    to_sql_server: dict[str, Any],
) -> None:
    sql_server.login_error = Error(number, "Login failed for user 'sam'.")
    settings = Settings(_env_file=None, **{"callback_api_key": "k", **to_sql_server})
    async with open_repository(settings) as repository:
        with pytest.raises(kind, match=advice):
            await repository.probe(timeout=LIMIT_SECONDS)


async def test_a_statement_that_hangs_is_ended_by_the_query_time_out(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    """Its thread is free again, though the caller has more time."""
    settings = Settings(**{"callback_api_key": "k", **to_sql_server, "callback_db_timeout": 2})
    async with open_repository(settings) as repository:
        answer_update(sql_server)
        [applied] = (await apply(repository, "d-1")).results
        assert applied.outcome in {UpdateOutcome.FAILED, UpdateOutcome.UNKNOWN}
        answer_update(sql_server, Count(1))
        assert await outcome(repository) is UpdateOutcome.UPDATED


async def test_a_server_that_was_restarted_is_connected_with_anew(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    answer_update(sql_server, Count(1))
    with proxy_to(sql_server.port) as proxy:
        through = {**to_sql_server, "sql_sam_server": f"127.0.0.1,{proxy.port}"}
        settings = Settings(callback_api_key="k", **through)
        async with open_repository(settings) as repository:
            for _ in range(3):  # whichever of its connections is taken
                assert await outcome(repository) is UpdateOutcome.UPDATED
            proxy.cut()
            connections = proxy.connections
            assert await outcome(repository) is UpdateOutcome.UPDATED
            assert proxy.connections > connections
