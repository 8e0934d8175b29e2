"""On SQL Server a value is bound by its column's own type, or an index on varchar is not used.

The driver is Microsoft's; the server is a stand-in that hears what
they send. What a real server makes of it can be seen with SAM_TEST_SQLSERVER only.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from sam.callback.settings import Settings
from sam.callback.storage.results import UpdateOutcome, UpdateResult
from sam.callback.storage.robots import RobotRepository
from tests.support import repositories
from tests.support.tds import Answer, Count, Error, Statement, TdsServer, types
from tests.support.tds_wire import Parameter

UUID = "f6d30428-15d1-41e9-a952-0742eaaa5a31"
OpenRepository = Callable[..., AbstractAsyncContextManager[RobotRepository]]


def table_of(key: tuple[str, int], status: tuple[str, int] = ("varchar(64)", 64)) -> Any:  # noqa: ANN401 - a TdsServer's answer
    """A server whose table has columns of these types; each UPDATE meets a row."""

    def answer(statement: Statement) -> list[Answer]:
        if "dm_exec_describe_first_result_set" in statement.text:
            return [types((*key, None), (*status, None))]
        return [Count(1)]

    return answer


@pytest.fixture
def open_repository(to_sql_server: dict[str, Any]) -> OpenRepository:
    def open_it(**overrides: object) -> AbstractAsyncContextManager[RobotRepository]:
        values: dict[str, Any] = {"callback_api_key": "k", **to_sql_server, **overrides}
        return repositories.open_repository(Settings(**values))

    return open_it


async def apply(repository: RobotRepository, *pairs: tuple[str, str]) -> Sequence[UpdateResult]:
    callbacks = [repositories.callback(key, status) for key, status in pairs]
    batch = await repositories.apply(repository, callbacks)
    assert batch.error is None
    return batch.results


def bound(server: TdsServer) -> list[tuple[Parameter, ...]]:
    return [statement.parameters for statement in server.heard("UPDATE")]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (("varchar(128)", 128), Parameter("varchar", 128, UUID)),
        (("VARCHAR(36)", 36), Parameter("varchar", 36, UUID)),
        (("char(40)", 40), Parameter("varchar", 40, UUID)),
        (("varchar(max)", -1), Parameter("varchar", 8000, UUID)),
        (("nvarchar(128)", 256), Parameter("nvarchar", 128, UUID)),
        (("nchar(36)", 72), Parameter("nvarchar", 36, UUID)),
        (("nvarchar(max)", -1), Parameter("nvarchar", 4000, UUID)),
        (("uniqueidentifier", 16), Parameter("varchar", 36, UUID)),
    ],
)
async def test_the_deployment_goes_as_its_columns_type(
    column: tuple[str, int],
    expected: Parameter,
    sql_server: TdsServer,
    open_repository: OpenRepository,
) -> None:
    sql_server.answer = table_of(column)
    async with open_repository() as repository:
        [applied] = await apply(repository, (UUID, "DONE"))
    assert applied.outcome is UpdateOutcome.UPDATED
    assert bound(sql_server) == [(Parameter("varchar", 64, "DONE"), expected)]


async def test_values_of_all_lengths_have_one_declaration(
    sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    sql_server.answer = table_of(("varchar(128)", 128), ("nvarchar(64)", 128))
    async with open_repository() as repository:
        for pair in (("d", "RUN"), ("d-22", "RUN_FAILED"), ("d-333", "R")):
            await apply(repository, pair)
    declared = {tuple((value.type, value.size) for value in values) for values in bound(sql_server)}
    assert declared == {(("nvarchar", 64), ("varchar", 128))}


async def test_another_alphabet_is_never_squeezed_into_varchar(
    sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    """As "?" it might be another deployment."""
    sql_server.answer = table_of(("varchar(128)", 128))
    async with open_repository() as repository:
        await apply(repository, ("日次-🤖", "Ñandú"))
    assert bound(sql_server) == [
        (Parameter("nvarchar", 64, "Ñandú"), Parameter("nvarchar", 128, "日次-🤖"))
    ]


async def test_a_value_that_is_longer_than_its_column_is_not_cut_here(
    sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    """The server may refuse it, or its column has grown since this connection was made."""
    sql_server.answer = table_of(("varchar(4)", 4), ("nvarchar(4)", 8))
    async with open_repository() as repository:
        await apply(repository, ("d-1234567", "RUN_COMPLETED"))
    assert bound(sql_server) == [
        (Parameter("nvarchar", 13, "RUN_COMPLETED"), Parameter("varchar", 9, "d-1234567"))
    ]


@pytest.mark.parametrize("wrong", [f"{UUID}wrong", "d-1", UUID[:-1], f"{{{UUID}}}", "１" * 36])
async def test_an_id_that_is_no_uuid_is_a_dead_letter_where_the_column_holds_uuids(
    wrong: str, sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    """SQL Server would cut it to 36 characters, and so meet the row of another deployment."""
    sql_server.answer = table_of(("uniqueidentifier", 16))
    async with open_repository() as repository:
        refused, updated = await apply(repository, (wrong, "DONE"), (UUID, "DONE"))
    assert (refused.outcome, updated.outcome) == (UpdateOutcome.REFUSED, UpdateOutcome.UPDATED)
    assert "uniqueidentifier" in refused.reason
    assert [key.value for _, key in bound(sql_server)] == [UUID]


@pytest.mark.parametrize(
    "answer",
    [
        [types()],  # a synonym of a server that is not there
        [Error(229, "The SELECT permission was denied.")],
        [Error(208, "Invalid object name 'sys.dm_exec_describe_first_result_set'.")],
    ],
)
async def test_a_catalogue_that_does_not_tell_is_no_outage(
    answer: list[Answer], sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    def respond(statement: Statement) -> list[Answer]:
        return answer if "dm_exec_describe" in statement.text else [Count(1)]

    sql_server.answer = respond
    async with open_repository() as repository:
        [applied] = await apply(repository, ("d-1", "DONE"))
    assert applied.outcome is UpdateOutcome.UPDATED
    [(status, key)] = bound(sql_server)
    assert (status.type, status.value, key.type, key.value) == (
        "nvarchar",
        "DONE",
        "nvarchar",
        "d-1",
    )


async def test_the_types_are_read_once_per_connection_and_anew_by_the_next(
    sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    sql_server.answer = table_of(("varchar(128)", 128))
    async with open_repository() as repository:
        await apply(repository, ("d-1", "DONE"))
        await apply(repository, ("d-2", "DONE"))
    assert len(sql_server.heard("SELECT system_type_name")) == 1

    sql_server.answer = table_of(("nvarchar(128)", 256))  # ALTER TABLE
    async with open_repository() as repository:
        await apply(repository, ("d-3", "DONE"))
    assert [key.type for _, key in bound(sql_server)] == ["varchar", "varchar", "nvarchar"]


async def test_the_catalogue_is_asked_for_the_table_as_the_update_names_it(
    sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    sql_server.answer = table_of(("varchar(128)", 128))
    async with open_repository(
        sql_sam_table="SAM.dbo.robots", sql_sam_deployment_column="the id"
    ) as repository:
        await apply(repository, ("d-1", "DONE"))
    [asked] = sql_server.heard("SELECT system_type_name")
    assert asked.parameters[0].value == (
        "SELECT [the id], [status] FROM [SAM].[dbo].[robots] WHERE 1 = 0"
    )


async def test_payload_and_time_are_left_to_the_driver(
    sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    sql_server.answer = table_of(("varchar(128)", 128))
    payload = '{"botOutput": "' + "ñ🤖" * 5000 + '"}'
    async with open_repository(
        sql_sam_payload_column="payload", sql_sam_finished_column="finished"
    ) as repository:
        for content in ("{}", payload, "{}"):
            callback = replace(repositories.callback("d-1"), payload=content.encode())
            [applied] = (await repositories.apply(repository, [callback])).results
            assert applied.outcome is UpdateOutcome.UPDATED
    values = bound(sql_server)
    assert [value.value for _, value, *_ in values] == ["{}", payload, "{}"]
    assert {(time.type, key.type) for _, _, time, key, _ in values} == {("datetime2", "varchar")}
    declared = [each.split(",")[1] for each in sql_server.declarations if each.count("@") == 5]
    assert declared == ["@P2 nvarchar(4)", "@P2 nvarchar(max)", "@P2 nvarchar(4)"]  # no ntext


UNKNOWN_FOR_GOOD: list[list[Answer]] = [
    [types()],
    [Error(229, "The SELECT permission was denied.")],
    [Error(208, "Invalid object name 'sys.dm_exec_describe_first_result_set'.")],
]


@pytest.mark.parametrize("answer", UNKNOWN_FOR_GOOD)
async def test_without_the_types_another_deployments_row_is_not_changed_either(
    answer: list[Answer], sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    """The column may be of UUIDs, and the server would cut what follows one."""

    def respond(statement: Statement) -> list[Answer]:
        return answer if "dm_exec_describe" in statement.text else [Count(1)]

    sql_server.answer = respond
    harmful = [f"{UUID}x", f"{UUID} 2", f"{{{UUID}}}x", f"{UUID}{UUID}"]
    harmless = [UUID, "d-1", UUID[:-1], f"x{UUID}"]
    async with open_repository() as repository:
        results = await apply(repository, *((each, "DONE") for each in harmful + harmless))
    expected = [UpdateOutcome.REFUSED] * len(harmful) + [UpdateOutcome.UPDATED] * len(harmless)
    assert [applied.outcome for applied in results] == expected
    assert "not known" in results[0].reason
    sent = {value.value for values in bound(sql_server) for value in values[1::2]}
    assert sent == set(harmless)


@pytest.mark.parametrize("answer", [[Error(1222, "Lock request time out.")], []])
async def test_a_connection_that_could_not_ask_for_the_types_is_made_anew(
    answer: list[Answer], sql_server: TdsServer, open_repository: OpenRepository
) -> None:
    """No answer at all is ended by the query time-out."""
    answers: list[list[Answer]] = [
        answer,
        [types(("uniqueidentifier", 16, None), ("varchar(64)", 64, None))],
    ]

    def respond(statement: Statement) -> list[Answer]:
        if "dm_exec_describe" not in statement.text:
            return [Count(1)]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    sql_server.answer = respond
    callbacks = [repositories.callback(each) for each in (f"{UUID}x", UUID)]
    async with open_repository(callback_db_timeout=1) as repository:
        batch = await repositories.apply(repository, callbacks)
        assert batch.error is not None
        assert not sql_server.heard("UPDATE")
        refused, updated = (await repositories.apply(repository, callbacks)).results
    assert (refused.outcome, updated.outcome) == (UpdateOutcome.REFUSED, UpdateOutcome.UPDATED)
    assert len(sql_server.logins) == 2
    assert [key.value for _, key in bound(sql_server)] == [UUID]
