"""Key equivalence: ids that the database takes for the same are one deployment."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam.callback.settings import Settings
from sam.callback.storage.errors import DatabaseUnavailableError, KeyRuleChangedError
from sam.callback.storage.key_rule import COARSEST, EXACT, KeyRule
from sam.callback.storage.results import UpdateOutcome
from tests.support import repositories
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase
from tests.support.repositories import callback, open_repository
from tests.support.tds import Answer, Count, Error, Statement, TdsServer, types

UUID = "abcdefab-cdef-4bcd-8fab-cdefabcdefab"
RULES = [
    EXACT,
    KeyRule(ascii_case=True),
    KeyRule(case=True),
    KeyRule(case=True, width=True),
    KeyRule(case=True, accents=True, width=True),
    KeyRule(uuid=True),
    COARSEST,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name or "exact")
def test_a_uuid_in_small_letters_is_its_own_key(rule: KeyRule) -> None:
    assert rule.key(UUID) == UUID


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name or "exact")
def test_a_rule_has_a_name_to_be_kept_by(rule: KeyRule) -> None:
    assert KeyRule.named(rule.name) == rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name or "exact")
@given(text=st.text())
def test_a_key_is_its_own_key(rule: KeyRule, text: str) -> None:
    key = rule.key(text)
    assert rule.key(key) == key


@pytest.mark.parametrize(
    ("rule", "one", "other", "same"),
    [
        (EXACT, "aBc", "abc", False),
        (KeyRule(ascii_case=True), "aBc", "AbC", True),
        (KeyRule(ascii_case=True), "ÑAñ", "Ñañ", True),
        (KeyRule(ascii_case=True), "Ñ", "ñ", False),
        (KeyRule(case=True), "Ñ", "ñ", True),
        (KeyRule(case=True), "n", "ñ", False),
        (KeyRule(case=True, accents=True), "N", "ñ", True),
        (KeyRule(case=True, width=True), "Ａbc", "aBC", True),
        (KeyRule(uuid=True), UUID.upper(), UUID, True),
        (KeyRule(uuid=True), f"{{{UUID}}}", UUID, True),
        (KeyRule(uuid=True), UUID.replace("-", ""), UUID, True),
        (KeyRule(uuid=True), "abcd-efab-cdef-4bcd-8fab-cdef-abcd-efab", UUID, True),
        (KeyRule(uuid=True), f"{UUID}x", UUID, False),
        (KeyRule(uuid=True), f"{{{UUID}", UUID, False),
        (KeyRule(uuid=True), "a-bcdefabcdef4bcd8fabcdefabcdefab", UUID, False),
    ],
)
def test_which_ids_are_the_same(rule: KeyRule, one: str, other: str, *, same: bool) -> None:
    assert (rule.key(one) == rule.key(other)) is same


LEVEL_1 = (
    "CREATE COLLATION level1 (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
)
LEVEL_2 = (
    "CREATE COLLATION level2 (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)
NO_ACCENTS = (
    "CREATE COLLATION no_accents (provider = icu, locale = 'und-u-ks-level1-kc-true',"
    " deterministic = false)"
)
OF_SQLITE = [
    ("VARCHAR(128)", EXACT),
    ("VARCHAR(128) COLLATE NOCASE", KeyRule(ascii_case=True)),
    ("VARCHAR(128) COLLATE RTRIM", EXACT),
]
OF_POSTGRESQL = [
    ("varchar(128)", EXACT),
    ("text", EXACT),
    ("char(40)", EXACT),
    ('text COLLATE "C"', EXACT),
    ("uuid", KeyRule(uuid=True)),
    ("citext", KeyRule(case=True)),
    ("varchar(128) COLLATE level1", KeyRule(case=True, accents=True, width=True)),
    ("varchar(128) COLLATE level2", KeyRule(case=True, width=True)),
    ("text COLLATE no_accents", KeyRule(accents=True, width=True)),
]
SPELLINGS = (UUID, UUID.upper(), f"{{{UUID}}}", UUID.replace("-", ""))


@pytest.mark.parametrize(("column", "rule"), OF_SQLITE)
async def test_the_rule_of_sqlite(
    column: str,
    rule: KeyRule,
    sqlite_database: SqliteDatabase,
    settings_for: Callable[..., Settings],
) -> None:
    sqlite_database.execute(f"CREATE TABLE runs (deploymentId {column}, status VARCHAR(64))")
    await check_the_rule(sqlite_database, rule, settings_for)


@pytest.mark.parametrize(("column", "rule"), OF_POSTGRESQL)
async def test_the_rule_of_postgresql(
    column: str,
    rule: KeyRule,
    postgres_database: PostgresDatabase,
    settings_for: Callable[..., Settings],
) -> None:
    for statement in ("CREATE EXTENSION citext", LEVEL_1, LEVEL_2, NO_ACCENTS):
        postgres_database.execute(statement)
    postgres_database.execute(f'CREATE TABLE runs ("deploymentId" {column}, status VARCHAR(64))')
    await check_the_rule(postgres_database, rule, settings_for)


async def check_the_rule(
    database: Database, rule: KeyRule, settings_for: Callable[..., Settings]
) -> None:
    """It is what is told, of the table and of a view, and it is what an UPDATE does."""
    database.execute("CREATE VIEW seen AS SELECT * FROM runs")
    async with open_repository(settings_for(database, sql_sam_table="seen")) as repository:
        with contextlib.suppress(DatabaseUnavailableError):  # SQLite updates no view
            await repository.probe(timeout=LIMIT_SECONDS)
        assert repository.key_rule == rule
    database.execute("INSERT INTO runs (\"deploymentId\", status) VALUES (?, 'RUNNING')", UUID)
    async with open_repository(settings_for(database, sql_sam_table="runs")) as repository:
        assert repository.key_rule == EXACT  # nothing is known yet
        for spelling in SPELLINGS:
            batch = await repositories.apply(repository, [callback(spelling)])
            is_same = rule.key(spelling) == UUID
            assert (batch.results[0].outcome is UpdateOutcome.UPDATED) is is_same, spelling
        assert repository.key_rule == rule


COLLATIONS = [
    ("SQL_Latin1_General_CP1_CI_AS", KeyRule(case=True, width=True)),
    ("Latin1_General_100_CI_AI_SC_UTF8", KeyRule(case=True, accents=True, width=True)),
    ("Modern_Spanish_CS_AS", KeyRule(width=True)),
    ("Modern_Spanish_CS_AI_WS", KeyRule(accents=True)),
    ("Japanese_XJIS_140_CS_AS_KS_WS_VSS", EXACT),
    ("Latin1_General_BIN", EXACT),
    ("Latin1_General_100_BIN2_UTF8", EXACT),
]


@pytest.mark.parametrize(("collation", "rule"), COLLATIONS)
def test_the_rule_of_a_collation_of_sql_server(collation: str, rule: KeyRule) -> None:
    assert KeyRule.of_collation(collation) == rule


def answer_for(key: Answer) -> Callable[[Statement], list[Answer]]:
    """A SQL Server whose catalogue answers so; each UPDATE meets a row."""

    def answer(statement: Statement) -> list[Answer]:
        return [key] if "dm_exec_describe" in statement.text else [Count(1)]

    return answer


STATUS = ("varchar(64)", 64, "Latin1_General_BIN2")
TOLD: list[tuple[Answer, KeyRule]] = [
    (types(("uniqueidentifier", 16, None), STATUS), KeyRule(uuid=True)),
    (types(("nvarchar(50)", 100, "Modern_Spanish_CI_AS"), STATUS), KeyRule(case=True, width=True)),
    (types(("varchar(50)", 50, "Latin1_General_BIN2"), STATUS), EXACT),
    (types(("bigint", 8, None), STATUS), EXACT),
    (types(), KeyRule(case=True)),  # by comparing
    (Error(208, "Invalid object name 'sys.dm_exec_describe'."), KeyRule(case=True)),
]


@pytest.mark.parametrize(("key", "rule"), TOLD)
async def test_the_rule_of_sql_server_comes_with_the_types(
    key: Answer, rule: KeyRule, sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    sql_server.answer, sql_server.ignores_case = answer_for(key), True
    settings = Settings(_env_file=None, **{"callback_api_key": "k", **to_sql_server})
    async with open_repository(settings) as repository:
        await repository.probe(timeout=LIMIT_SECONDS)
        assert repository.key_rule == rule
    asked = sql_server.heard("SELECT")[0]
    assert "collation_name" in asked.text


async def test_a_batch_of_another_rule_is_not_written(
    postgres_database: PostgresDatabase, settings_for: Callable[..., Settings]
) -> None:
    """Of two spellings one might be overtaken by the other: the caller puts them together."""
    postgres_database.execute('CREATE TABLE runs ("deploymentId" uuid, status VARCHAR(64))')
    postgres_database.execute("INSERT INTO runs VALUES (?, 'RUNNING')", UUID)
    settings = settings_for(postgres_database, sql_sam_table="runs")
    async with open_repository(settings) as repository:
        two = [callback(UUID, "OLD"), callback(UUID.upper(), "NEW")]
        with pytest.raises(KeyRuleChangedError):
            await repository.apply(two, timeout=LIMIT_SECONDS, key_rule=EXACT)
        assert postgres_database.execute("SELECT status FROM runs") == [("RUNNING",)]
        assert repository.key_rule == KeyRule(uuid=True)
        batch = await repository.apply(two[1:], timeout=LIMIT_SECONDS, key_rule=repository.key_rule)
        assert batch.results[0].outcome is UpdateOutcome.UPDATED


async def test_a_connection_that_is_not_told_the_rule_is_not_used(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    sql_server.answer, sql_server.ignores_case = answer_for(types()), None
    settings = Settings(_env_file=None, **{"callback_api_key": "k", **to_sql_server})
    async with open_repository(settings) as repository:
        with pytest.raises(DatabaseUnavailableError, match=r"cannot write: .*Check SQL_SAM_TABLE"):
            await repository.probe(timeout=LIMIT_SECONDS)
        assert sql_server.heard("UPDATE") == []
        sql_server.ignores_case = True
        await repository.probe(timeout=LIMIT_SECONDS)
        assert repository.key_rule == KeyRule(case=True)
