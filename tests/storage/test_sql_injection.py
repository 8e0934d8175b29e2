"""Nothing from outside becomes part of a statement: values are bound, names checked and quoted.

On each database that can be run here, by way of HTTP, and by way of the spool as well.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pyodbc
import pytest
from pydantic import ValidationError

from sam.callback.settings import Settings
from sam.callback.storage.odbc.dialects import SQL_SERVER, dialect_of
from sam.callback.storage.results import UpdateOutcome
from tests.support import repositories
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import Database, SqliteDatabase
from tests.support.service import Service

HOSTILE = [
    "'; DROP TABLE robots; --",
    "' OR '1'='1",
    "'' OR 1=1 --",
    '"; DELETE FROM robots; --',
    "]; UPDATE robots SET status = 'x'; --",
    "`; DROP TABLE robots; --",
    "\\'; DROP TABLE robots; --",  # a backslash that would escape the bound quote
    "$$; DROP TABLE robots; $$",  # PostgreSQL's other quotes
    "E'\\x27'; DROP TABLE robots; --",
    "/*",
    "*/ OR 1=1 /*",
    "--",
    "#",
    "?",
    "??",
    "? OR 1=1",
    ":1",
    "$1",
    "@status",
    "%",
    "_",
    "d-_",
    "%s%n%x",
    "%(status)s",
    "{fn now()}",
    "{d '2026-01-01'}",
    "{ts '2026-01-01 00:00:00'}",
    "{call robots}",
    "{?=call robots}",
    "{escape '\\'}",
    "’; DROP TABLE robots; —",  # quotes that a narrow code page folds to plain ones
    "ʼ; DROP TABLE robots; --",
    "＇; DROP TABLE robots; ﹣﹣",
    "0x27",
    "NULL",
    "1; WAITFOR DELAY '0:0:5'",
    "1 UNION SELECT 1",
    "é\u0301ñ日🤖",
    "\u202e\u2028\u2029\u200b\ufeffx",
    "x" * 64,
]
REFUSED = ["\0", "d-1\0'; DROP TABLE robots; --", "a\rb", "\x1b[2K", "\x85", "x" * 129]


@pytest.fixture
def started(start_service: Callable[..., Service], database: Database) -> Service:
    return start_service(SQL_SAM_CONNECTION_STRING=database.connection_string)


def test_a_value_is_a_value(started: Service, database: Database) -> None:
    database.add_robots(HOSTILE)
    for value in HOSTILE:
        answer = started.post(body(value, value)).json()
        assert (answer["outcome"], answer["deploymentId"]) == ("updated", value)
        # Queued while an id that may be the same, by some database's collation, is replayed.
        outcome = started.post(body(f"no such {value}"[:128], "X")).json()["outcome"]
        assert outcome in {"unmatched", "queued"}
    assert database.statuses() == {"d-1": "RUNNING", **{value: value for value in HOSTILE}}


def test_it_is_one_by_way_of_the_spool_too(started: Service, database: Database) -> None:
    database.add_robots(HOSTILE)
    with table_away(database):
        outcomes = {started.post(body(value, value)).json()["outcome"] for value in HOSTILE}
        assert outcomes == {"queued"}
    expected = {"d-1": "RUNNING", **{value: value for value in HOSTILE}}
    eventually(lambda: database.statuses() == expected)


def test_it_is_one_in_the_payload_too(
    start_service: Callable[..., Service], database: Database
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=database.connection_string,
        SQL_SAM_PAYLOAD_COLUMN="payload",
    )
    payload = {"deploymentId": "d-1", "status": "DONE", "botOutput": HOSTILE}
    sent = json.dumps(payload, ensure_ascii=False).encode()
    assert service.post(sent).json()["outcome"] == "updated"
    assert database.execute("SELECT status, payload FROM robots") == [("DONE", sent.decode())]


def test_nul_is_refused(started: Service, database: Database) -> None:
    for value in REFUSED:
        assert started.post(body(value, "X")).status_code == 422
        assert started.post(body("d-1", value)).status_code == 422
    assert database.statuses() == {"d-1": "RUNNING"}


# --- Names, which come from the settings --------------------------------------------------------

BAD_NAMES = [
    "",
    " ",
    "robots; DROP TABLE robots",
    "robots--\n",
    "robots/*",
    "robots'",
    'robots"',
    'robots" SET status = 1 --',
    "robots]",
    "robots`",
    "[robots]",
    "robots\0",
    "robots?",
    "robots%",
    "{robots}",
    "robots\\",
    "(SELECT 1)",
    "robots=1",
    "robots ’",
    "1robots",
    "-robots",
    ".robots",
    "robots.",
    "a..b",
    "a.b.c.d",
    "x" * 129,
]
NAMES_WITH_QUOTES = [
    'a"b',
    "a`b",
    "a]b",
    "a[b",
    "a'b",
    '""',
    "``",
    "]]",
    'a" FROM x --',
    "a` --",
    "a] --",
    "\\",
]
# Letters, digits, _ $ # @, spaces and hyphens may be in one: quoted, they are a name's.
ODD_NAMES = [
    "robots -- SET status",
    "DROP TABLE robots",
    "select",
    "SAM robots",
    "a  b",
    "robots$1#2@3",
    "automatización",
    "日次",
]


@pytest.mark.parametrize(
    "setting",
    [
        "sql_sam_table",
        "sql_sam_deployment_column",
        "sql_sam_status_column",
        "sql_sam_payload_column",
        "sql_sam_finished_column",
    ],
)
def test_a_bad_name_does_not_get_past_the_settings(
    setting: str, settings_for: Callable[..., Settings], sqlite_database: SqliteDatabase
) -> None:
    for name in BAD_NAMES:
        with pytest.raises(ValidationError, match=setting):
            settings_for(sqlite_database, **{setting: name})


async def test_an_odd_name_is_a_name(
    settings_for: Callable[..., Settings], database: Database
) -> None:
    for name in ODD_NAMES:
        key, status = f"{name} id", f"{name} st"
        with quoting(database) as quote:
            table = quote(name)
            database.execute(
                f"CREATE TABLE {table} ({quote(key)} VARCHAR(64), {quote(status)} VARCHAR(64))"
            )
            read = f"SELECT {quote(key)}, {quote(status)} FROM {table}"
        for deployment_id in ("d-1", "d-2"):
            database.execute(f"INSERT INTO {table} VALUES ('{deployment_id}', 'RUNNING')")
        settings = settings_for(
            database,
            sql_sam_table=name,
            sql_sam_deployment_column=key,
            sql_sam_status_column=status,
        )
        async with repositories.open_repository(settings) as repository:
            batch = await repositories.apply(repository, [repositories.callback("d-1")])
        assert [applied.outcome for applied in batch.results] == [UpdateOutcome.UPDATED], name
        assert sorted(database.execute(read)) == [("d-1", "DONE"), ("d-2", "RUNNING")]
    assert database.statuses() == {"d-1": "RUNNING"}


def test_quoting_holds_for_what_the_settings_would_refuse(database: Database) -> None:
    """Two walls: were the check to let one through, it would still be a name.

    Without a semicolon: SQLite's driver looks for one itself, and refuses the statement.
    """
    with closing(pyodbc.connect(database.connection_string)) as connection:
        for name in NAMES_WITH_QUOTES:
            quoted = dialect_of(connection).quote(name)
            [column] = connection.execute(f"SELECT 1 AS {quoted}").description
            assert column[0] == name


@contextmanager
def quoting(database: Database) -> Iterator[Callable[[str], str]]:
    with closing(pyodbc.connect(database.connection_string)) as connection:
        yield dialect_of(connection).quote


@contextmanager
def table_away(database: Database) -> Iterator[None]:
    """While it is renamed, the database cannot take callbacks."""
    with closing(pyodbc.connect(database.connection_string)) as connection:
        rename = (
            "EXECUTE sp_rename '{}', '{}'"
            if dialect_of(connection) is SQL_SERVER
            else "ALTER TABLE {} RENAME TO {}"
        )
    database.execute(rename.format("robots", "elsewhere"))
    yield
    database.execute(rename.format("elsewhere", "robots"))
