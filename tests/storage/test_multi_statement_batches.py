"""Several UPDATEs go over as one where the drivers can, and none is taken for another.

The drivers are Microsoft's with a stand-in for SQL Server, and psqlODBC with PostgreSQL.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sam.callback.settings import Settings
from sam.callback.storage.results import BatchResult, UpdateOutcome
from sam.callback.storage.robots import RobotRepository
from tests.support import repositories
from tests.support.databases import Database
from tests.support.repositories import callback, open_repository
from tests.support.tds import Answer, Count, Error, Rows, Statement, TdsServer

DEPLOYMENTS = [f"d-{number}" for number in range(1, 102)]
UPDATED, UNMATCHED, REFUSED = UpdateOutcome.UPDATED, UpdateOutcome.UNMATCHED, UpdateOutcome.REFUSED


@pytest.fixture
async def to_stand_in(to_sql_server: dict[str, Any]) -> AsyncIterator[RobotRepository]:
    settings = Settings(**{"callback_api_key": "k", **to_sql_server})
    async with open_repository(settings) as repository:
        yield repository


async def apply(repository: RobotRepository, *deployments: str, status: str = "") -> BatchResult:
    callbacks = [callback(each, status or "DONE") for each in deployments]
    return await repositories.apply(repository, callbacks)


def outcomes(batch: BatchResult) -> list[UpdateOutcome]:
    return [applied.outcome for applied in batch.results]


def answer_each(server: TdsServer, answer: Callable[[str], list[Answer]]) -> None:
    """Let each UPDATE of a statement have the results that `answer` gives for its deployment."""

    def answers(statement: Statement) -> list[Answer]:
        if statement.text.startswith("SELECT"):  # is there such a row?
            return [Rows(("status",))]
        if not statement.text.startswith("UPDATE"):
            return [Count(None)]
        deployments = [str(value.value) for value in statement.parameters[1::2]]
        return [result for deployment in deployments for result in answer(deployment)]

    server.answer = answers


def sizes(server: TdsServer) -> list[int]:
    """The number of UPDATEs of each execute."""
    return [statement.text.count("UPDATE") for statement in server.heard("UPDATE")]


async def test_a_hundred_take_three(to_stand_in: RobotRepository, sql_server: TdsServer) -> None:
    answer_each(sql_server, lambda _: [Count(1)])
    batch = await apply(to_stand_in, *DEPLOYMENTS[:100])
    assert outcomes(batch) == [UPDATED] * 100
    bound = [p.value for each in sql_server.heard("UPDATE") for p in each.parameters[1::2]]
    assert sizes(sql_server) == [64, 32, 4]
    assert bound == DEPLOYMENTS[:100]


async def test_each_count_is_its_own_callbacks(
    to_stand_in: RobotRepository, sql_server: TdsServer
) -> None:
    missing = {"d-2", "d-3", "d-7", "d-8"}
    answer_each(sql_server, lambda deployment: [Count(0 if deployment in missing else 1)])
    batch = await apply(to_stand_in, *DEPLOYMENTS[:8])
    assert outcomes(batch) == [
        UNMATCHED if deployment in missing else UPDATED for deployment in DEPLOYMENTS[:8]
    ]
    assert sizes(sql_server) == [8]


async def test_counts_that_cannot_be_told_apart_are_not_guessed(
    to_stand_in: RobotRepository, sql_server: TdsServer
) -> None:
    # A trigger's count before each one's own; the second callback has no row.
    answer_each(sql_server, lambda each: [Count(1), Count(0 if each == "d-2" else 1)])
    for _ in range(2):
        batch = await apply(to_stand_in, "d-1", "d-2", "d-3", "d-4")
        assert outcomes(batch) == [UPDATED, UNMATCHED, UPDATED, UPDATED]
    assert sizes(sql_server) == [4] + [1] * 8  # and it is not tried again on that connection


async def test_a_value_that_is_refused_is_found(
    to_stand_in: RobotRepository, sql_server: TdsServer
) -> None:
    answer_each(sql_server, lambda each: [Error(2628) if each == "d-3" else Count(1)])
    batch = await apply(to_stand_in, *DEPLOYMENTS[:4])
    assert outcomes(batch) == [UPDATED, UPDATED, REFUSED, UPDATED]


@pytest.mark.parametrize("size", [2, 3, 64, 101])
async def test_real_rows_get_what_is_theirs(
    size: int, database: Database, settings_for: Callable[..., Settings]
) -> None:
    there = [each for each in DEPLOYMENTS[:size] if each not in {"d-1", "d-3", "d-65"}]
    database.add_robots(there)
    async with open_repository(settings_for(database)) as repository:
        callbacks = [callback(each, f"DONE {each}") for each in DEPLOYMENTS[:size]]
        batch = await repositories.apply(repository, callbacks)
    statuses = {each: f"DONE {each}" for each in ["d-1", *there]}
    assert database.statuses() == statuses
    assert outcomes(batch) == [
        UPDATED if each in statuses else UNMATCHED for each in DEPLOYMENTS[:size]
    ]
