"""The shared store: one entry of a deployment, numbered by the table, for all instances."""

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.database import make_table
from sam.callback.inbox.sql.schema import DEFAULT_TABLE, VERSION, script
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.store import LIVE, Entry, Kind, StoreUnavailableError
from sam.callback.limits import MAX_DEPLOYMENT_ID_LENGTH, MAX_STATUS_LENGTH
from sam.callback.settings import SpoolSettings
from sam.callback.storage.key_rule import KeyRule
from sam.callback.storage.odbc.dialects import POSTGRESQL, SQL_SERVER
from tests.support.databases import ROW_LOCKING, Database
from tests.support.tds import Answer, Count, Rows, Statement, TdsServer

Open = Callable[..., AbstractAsyncContextManager[SharedStore]]
PATIENT: Final = 60


@pytest.fixture(params=ROW_LOCKING, ids=lambda name: name.removesuffix("_database"))
def database(request: pytest.FixtureRequest) -> Database:
    database: Database = request.getfixturevalue(request.param)
    return database


def settings_for(database: Database, **others: object) -> SpoolSettings:
    values = {
        "callback_inbox_connection_string": database.connection_string,
        "callback_inbox_timeout": PATIENT,
        **others,
    }
    return SpoolSettings.model_validate(values)


def answer_of_an_empty_table(statement: Statement) -> list[Answer]:
    """What SQL Server would say."""
    if statement.text.startswith("SELECT version"):
        return [Rows(("version", "key_rule"), ((VERSION, ""),))]
    if statement.text.startswith(("SELECT kind", "SELECT t.entry_key", "WITH picked")):
        return [Rows(("none",))]
    return [Count(1)]


def stand_in_settings(to_sql_server: dict[str, Any], **others: object) -> SpoolSettings:
    """Settings for the stand-in."""
    driver, server = to_sql_server["sql_sam_driver"], to_sql_server["sql_sam_server"]
    text = f"DRIVER={driver};SERVER={server};DATABASE=SAM;UID=sam;PWD=hush-hush;Encrypt=no;"
    values = {"callback_inbox_connection_string": text, "callback_inbox_timeout": PATIENT, **others}
    return SpoolSettings.model_validate(values)


@pytest.fixture
def open_store(database: Database) -> Open:
    @asynccontextmanager
    async def open_it(sequence: Sequence | None = None) -> AsyncIterator[SharedStore]:
        settings = settings_for(database)
        await make_table(settings)
        store = SharedStore(settings, sequence or Sequence())
        await store.open(patient=True)
        try:
            yield store
        finally:
            await store.close()

    return open_it


def entry(
    number: int,
    deployment_id: str | None = None,
    kind: Kind = Kind.QUEUED,
    payload: bytes | None = None,
) -> Entry:
    return Entry(number, kind, deployment_id or f"d-{number}", f"S{number}", payload, "a reason")


async def live(store: SharedStore) -> list[tuple[int, str | None, str | None]]:
    found = await store.page(LIVE, after=0, limit=1_000)
    return [(each.number, each.deployment_id, each.status) for each in found]


async def test_what_was_put_is_there_for_another_instance(open_store: Open) -> None:
    entries = [entry(1, payload=b"\x00\xff" * 9_000), entry(2, "d-ñ😀"), entry(3)]
    async with open_store() as store, open_store() as other:
        assert await store.put(entries) == [True, True, True]
        assert await other.page([Kind.QUEUED], after=0, limit=10) == entries
        assert await other.with_entries(["d-1", "d-ñ😀", "d-4"]) == {"d-1", "d-ñ😀"}
        assert [each.number for each in (await other.due(10)).entries] == [1, 2, 3]


async def test_the_longest_id_and_status_fit(open_store: Open) -> None:
    longest = replace(entry(1, "😀" * MAX_DEPLOYMENT_ID_LENGTH), status="😀" * MAX_STATUS_LENGTH)
    async with open_store() as store:
        await store.put([longest])
        assert await store.page(LIVE, after=0, limit=10) == [longest]


async def test_a_new_callback_gets_a_number_above_the_one_that_it_replaces(
    open_store: Open,
) -> None:
    async with open_store() as store:
        await store.put([entry(100, "d-1")])
        await store.put([entry(5, "d-1")])  # of an instance whose clock is behind
        assert await live(store) == [(101, "d-1", "S5")]
        await store.put([entry(500, "d-1")])
        assert await live(store) == [(500, "d-1", "S500")]


async def test_of_a_batch_the_last_one_of_a_deployment_stands_for_all(open_store: Open) -> None:
    async with open_store() as store:
        assert await store.put([entry(1, "d-1"), entry(3, "d-1"), entry(2, "d-1")]) == [True] * 3
        assert await live(store) == [(3, "d-1", "S3")]


async def test_of_what_moves_in_only_a_higher_number_replaces(open_store: Open) -> None:
    async with open_store() as store:
        await store.put([entry(10, "d-1"), entry(10, "d-2")])
        await store.move_in([entry(9, "d-1"), entry(11, "d-2"), entry(1, "d-3")])
        assert sorted(await live(store)) == [
            (1, "d-3", "S1"),
            (10, "d-1", "S10"),
            (11, "d-2", "S11"),
        ]


async def test_what_is_done_does_not_come_back_from_a_spool(open_store: Open) -> None:
    async with open_store() as store:
        await store.put([entry(10, "d-1")])
        await store.settle(done=[entry(10, "d-1")])
        await store.settle(put_off=[(entry(10, "d-1"), 0)])  # by an instance that came late
        await store.move_in([entry(9, "d-1"), entry(10, "d-1")])
        assert await live(store) == []
        assert await store.with_entries(["d-1"]) == set()
        await store.note_applied({"d-2": 20})  # written past the inbox
        await store.move_in([entry(19, "d-2"), entry(21, "d-1")])
        assert await live(store) == [(21, "d-1", "S21")]


async def test_an_entry_that_was_replaced_stays_as_it_is(open_store: Open) -> None:
    async with open_store() as store:
        await store.put([entry(1, "d-1")])
        await store.put([entry(2, "d-1")])
        await store.settle(done=[entry(1, "d-1")], put_off=[(entry(1, "d-1"), 5)])
        assert await live(store) == [(2, "d-1", "S2")]
        assert (await store.due(10)).entries


async def test_what_was_put_off_is_due_later_and_what_is_dead_never(open_store: Open) -> None:
    async with open_store() as store:
        await store.put([entry(1), entry(2)])
        await store.settle(
            moved=[(entry(1), Kind.UNMATCHED, "no row"), (entry(2), Kind.DEAD_LETTER, "refused")],
            put_off=[(entry(1), 7), (entry(2), 7)],
        )
        due = await store.due(10)
        assert due.entries == []
        assert due.seconds_to_next is not None
        assert 1 < due.seconds_to_next <= 32
        [dead] = await store.page([Kind.DEAD_LETTER], after=0, limit=10)
        assert (dead.number, dead.reason) == (2, "refused")


async def test_new_entries_and_others_are_due_by_turns(open_store: Open) -> None:
    async with open_store() as store:
        tried = [Entry(number, Kind.UNMATCHED, f"t-{number}", "S") for number in range(1, 6)]
        await store.put([*tried, *(entry(number) for number in range(11, 16))])
        await store.settle(put_off=[(each, 1) for each in tried])
        first: set[str] = set()
        while len(first) < 2:  # the others are due half a second later
            [one] = (await store.due(1)).entries
            first.add((one.deployment_id or "")[0])
        assert first == {"d", "t"}
        assert {
            each.deployment_id[:1]
            for each in (await store.due(9, retries=False)).entries
            if each.deployment_id
        } == {"d"}


async def test_entries_that_become_one_by_the_key_rule(open_store: Open) -> None:
    async with open_store() as store, open_store() as other:
        await store.put([entry(1, "ABC"), entry(2, "abc"), entry(3, "DEF")])
        await store.rekey("case", str.lower)
        assert await live(store) == [(2, "abc", "S2"), (3, "DEF", "S3")]
        await other._refresh(PATIENT)  # noqa: SLF001 - as it does every few seconds
        assert await other.with_entries(["Abc", "def", "x"]) == {"Abc", "def"}


async def test_keys_that_differ_in_a_blank_at_the_end_are_two(open_store: Open) -> None:
    """To SQL Server they are the same text; some rules make such keys of accents."""
    async with open_store() as store:
        await store.put([entry(1, "d-1"), entry(2, "d-1 ")])
        assert await live(store) == [(1, "d-1", "S1"), (2, "d-1 ", "S2")]
        assert await store.with_entries(["d-1", "d-1 "]) == {"d-1", "d-1 "}


async def test_an_entry_is_found_by_a_key_that_is_too_long_for_the_table(open_store: Open) -> None:
    longer_in_small_letters = "ﬃ" * MAX_DEPLOYMENT_ID_LENGTH
    async with open_store() as store:
        await store.rekey("case", KeyRule(case=True).key)
        await store.put([entry(1, longer_in_small_letters)])
        assert await store.with_entries([longer_in_small_letters]) == {longer_in_small_letters}


async def test_a_clock_goes_on_from_the_highest_number_of_all(open_store: Open) -> None:
    sequence = Sequence(clock=lambda: 5)
    async with open_store() as store, open_store(sequence) as behind:
        await store.put([entry(2**62)])
        await behind._refresh(PATIENT)  # noqa: SLF001 - as it does every few seconds
        assert sequence.next() == 2**62 + 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (f"DROP TABLE {DEFAULT_TABLE}_version", "inbox init"),
        (f"UPDATE {DEFAULT_TABLE}_version SET version = 99", "Run the release that made it"),
        (f"UPDATE {DEFAULT_TABLE}_version SET version = 0", "inbox init"),
    ],
)
async def test_a_table_that_cannot_be_used_says_what_to_do(
    open_store: Open, database: Database, spoil: str, reason: str
) -> None:
    async with open_store():
        pass
    database.execute(spoil)
    store = SharedStore(settings_for(database), Sequence())
    await store.open(patient=True)
    assert not store.is_writable
    assert reason in store.reason
    with pytest.raises(StoreUnavailableError, match=r"The shared inbox: "):
        await store.put([entry(1)])
    await store.close()


async def test_all_of_the_table_may_take_longer_than_a_callback(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    """Microsoft's driver ends what takes too long, to the second."""

    def answer(statement: Statement) -> list[Answer]:
        if statement.text.startswith("SELECT kind"):
            time.sleep(1.5)
        return answer_of_an_empty_table(statement)

    sql_server.answer = answer
    store = SharedStore(stand_in_settings(to_sql_server, callback_inbox_timeout=1), Sequence())
    await store.open(patient=True)
    try:
        assert store.is_writable, store.reason
    finally:
        await store.close()


async def test_sql_server_gets_a_long_batch_as_nvarchar(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    """OPENJSON takes no ntext, which the driver would declare."""
    sql_server.answer = answer_of_an_empty_table
    store = SharedStore(stand_in_settings(to_sql_server), Sequence())
    await store.open(patient=True)
    try:
        await store.put([entry(number, payload=b"x" * 100) for number in range(50)])
        assert await store.with_entries([f"d-{number}" for number in range(500)]) == set()
        assert await store.page([Kind.QUEUED], after=0, limit=10) == []
    finally:
        await store.close()
    long = [len(each.parameters[0].value) for each in sql_server.statements if "JSON" in each.text]
    assert min(long) > 4_000
    of_json, paged = sql_server.declarations[-3:-1], sql_server.declarations[-1]
    assert of_json == ["@P1 nvarchar(max)"] * 2
    assert paged == "@P1 nvarchar(12),@P2 int,@P3 int,@P4 int"


@pytest.mark.parametrize(
    ("name", "dialect"), [("postgresql", POSTGRESQL), ("sqlserver", SQL_SERVER)]
)
def test_a_script_is_for_the_table_that_is_named(name: str, dialect: object) -> None:
    assert dialect in {POSTGRESQL, SQL_SERVER}
    quote = POSTGRESQL.quote if dialect is POSTGRESQL else SQL_SERVER.quote
    text = script(name, "ops.my inbox", quote)
    code = "\n".join(line.partition("--")[0] for line in text.splitlines())
    assert DEFAULT_TABLE not in code
    assert quote("ops.my inbox") in code
    assert quote("ops.my inbox_version") in code
    assert quote("my inbox_due") in code


def test_sql_servers_columns_take_two_code_units_for_each_character() -> None:
    text = script("sqlserver", DEFAULT_TABLE, SQL_SERVER.quote)
    for name, length in (
        ("deployment_id", MAX_DEPLOYMENT_ID_LENGTH),
        ("status", MAX_STATUS_LENGTH),
    ):
        assert re.search(rf"\b{name} +NVARCHAR\({2 * length}\)", text)
