"""`check`: one line for each thing that the service needs, and the exit status."""

import json
import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

from tests.support.callbacks import body
from tests.support.databases import (
    UNUSED_PASSWORD,
    Database,
    PostgresDatabase,
    PostgresServer,
    SqliteDatabase,
)
from tests.support.proxy import proxy_to
from tests.support.service import Service, run_to_its_end
from tests.support.tds import Answer, Count, Error, Rows, Statement, TdsServer, types

STRONG_KEY = "Zk3-qT9vXw_82LmNr5yB"


class Checked:
    """The report of `check`."""

    def __init__(self, ended: CompletedProcess[str]) -> None:
        assert ended.stderr == ""
        self.exit_status = ended.returncode
        self.output = ended.stdout
        report = json.loads(ended.stdout)
        self.status = report["status"]
        self._checks = {check["subject"]: check for check in report["checks"]}

    def level(self, subject: str) -> str:
        return str(self._checks[subject]["level"])

    def text(self, subject: str) -> str:
        check = self._checks[subject]
        return f"{check['detail']} {check['action'] or ''}"

    @property
    def wrong(self) -> list[str]:
        return [name for name, check in self._checks.items() if check["level"] == "wrong"]

    @property
    def not_ok(self) -> dict[str, str]:
        return {
            name: check["level"] for name, check in self._checks.items() if check["level"] != "ok"
        }


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Checked]:
    def run(database: Database | str, **environment: str) -> Checked:
        text = database if isinstance(database, str) else database.connection_string
        variables = {
            "CALLBACK_API_KEY": STRONG_KEY,
            "CALLBACK_PORT": "0",
            "SQL_SAM_CONNECTION_STRING": text,
            **environment,
        }
        return Checked(run_to_its_end(tmp_path, variables, "check", "--json"))

    return run


Check = Callable[..., Checked]


def test_a_good_database(check: Check, database: Database) -> None:
    checked = check(database, SQL_SAM_PAYLOAD_COLUMN="payload", SQL_SAM_FINISHED_COLUMN="finished")
    assert (checked.exit_status, checked.status, checked.not_ok) == (0, "ok", {})
    assert "SQL_SAM_CONNECTION_STRING" in checked.text("driver")
    product = "SQLite 3." if isinstance(database, SqliteDatabase) else "PostgreSQL 1"
    assert checked.text("connection").startswith(product)
    assert checked.text("column deploymentId").startswith("varchar(128)")
    assert checked.text("column status").startswith("varchar(64)")
    assert "text" in checked.text("column payload")
    assert "robots" in checked.text("index")
    assert database.statuses() == {"d-1": "RUNNING"}


def test_no_table(check: Check, database: Database) -> None:
    checked = check(database, SQL_SAM_TABLE="nowhere")
    assert (checked.exit_status, checked.wrong) == (1, ["table"])
    assert "nowhere" in checked.text("table")
    assert "Check SQL_SAM_TABLE." in checked.text("table")
    assert checked.level("index") == checked.level("permission") == "not_checked"


@pytest.mark.parametrize(
    "variable",
    [
        "SQL_SAM_DEPLOYMENT_COLUMN",
        "SQL_SAM_STATUS_COLUMN",
        "SQL_SAM_PAYLOAD_COLUMN",
        "SQL_SAM_FINISHED_COLUMN",
    ],
)
def test_no_column(variable: str, check: Check, database: Database) -> None:
    checked = check(database, **{variable: "nowhere"})
    assert checked.exit_status == 1
    assert "column nowhere" in checked.wrong
    assert "COLUMN variables" in checked.text("column nowhere")
    assert checked.level("permission") == "not_checked"


def test_a_column_that_is_too_short_for_an_id(check: Check, database: Database) -> None:
    database.execute('CREATE TABLE short ("deploymentId" VARCHAR(20) UNIQUE, status VARCHAR(64))')
    checked = check(database, SQL_SAM_TABLE="short")
    assert (checked.exit_status, checked.wrong) == (1, ["column deploymentId"])
    assert "varchar(20) is too short" in checked.text("column deploymentId")


def test_a_name_with_an_underscore_is_not_taken_for_another(
    check: Check, database: Database
) -> None:
    """In a catalogue function "_" stands for any character."""
    for name, size in (("my_robots", 99), ("my1robots", 20)):
        database.execute(
            f'CREATE TABLE {name} ("deploymentId" VARCHAR({size}) UNIQUE, status VARCHAR(64))'
        )
    checked = check(database, SQL_SAM_TABLE="my_robots")
    assert checked.text("column deploymentId").startswith("varchar(99)")


@pytest.mark.parametrize(
    ("status", "payload", "not_ok", "says"),
    [
        (10, "TEXT", {"column status": "wrong"}, "RUN_COMPLETED, RUN_ABORTED"),
        (20, "TEXT", {"column status": "warning"}, "every status that is known"),
        (64, "VARCHAR(500)", {"column payload": "warning"}, "the status is written alone"),
        (64, "VARCHAR", {}, ""),
        (80, "TEXT", {}, ""),
    ],
)
def test_columns_that_do_not_hold_every_callback(
    status: int,
    payload: str,
    not_ok: dict[str, str],
    says: str,
    check: Check,
    database: Database,
) -> None:
    database.execute(
        f'CREATE TABLE narrow ("deploymentId" VARCHAR(64) UNIQUE, status VARCHAR({status}),'
        f" payload {payload})"
    )
    checked = check(database, SQL_SAM_TABLE="narrow", SQL_SAM_PAYLOAD_COLUMN="payload")
    assert checked.not_ok == not_ok | ({"permission": "not_checked"} if status < 13 else {})
    for subject in not_ok:
        assert says in checked.text(subject)


def test_times_in_the_future_are_another_writers(check: Check, database: Database) -> None:
    database.execute("UPDATE robots SET finished = '2126-01-01 00:00:00'")
    checked = check(database, SQL_SAM_FINISHED_COLUMN="finished")
    assert (checked.exit_status, checked.not_ok) == (0, {"times of reception": "warning"})
    assert "2126-01-01 00:00:00" in checked.text("times of reception")
    assert "nothing else writes" in checked.text("times of reception")


def test_times_are_not_read_where_their_column_is_wrong(check: Check, database: Database) -> None:
    checked = check(database, SQL_SAM_FINISHED_COLUMN="nowhere")
    assert checked.level("times of reception") == "not_checked"


def test_no_index(check: Check, database: Database) -> None:
    database.execute(
        'CREATE TABLE bare (status VARCHAR(64), "deploymentId" VARCHAR(64), other INTEGER)'
    )
    database.execute('CREATE INDEX other_first ON bare (other, "deploymentId")')
    checked = check(database, SQL_SAM_TABLE="bare")
    assert (checked.exit_status, checked.wrong) == (1, ["index"])
    assert "CREATE INDEX" in checked.text("index")
    text = checked.text("index")
    database.execute(text[text.index("CREATE INDEX") :])
    assert check(database, SQL_SAM_TABLE="bare").exit_status == 0


@pytest.mark.parametrize(
    ("rights", "not_ok"),
    [
        ("SELECT", {"permission": "wrong"}),
        (
            "INSERT",
            {
                "table": "not_checked",
                "column deploymentId": "not_checked",
                "column status": "not_checked",
                "permission": "wrong",
            },
        ),
        ("SELECT, UPDATE", {}),
    ],
)
def test_no_permission(
    rights: str, not_ok: dict[str, str], check: Check, postgres_database: PostgresDatabase
) -> None:
    user = f"some_{postgres_database.name}"
    postgres_database.execute(f"CREATE ROLE {user} LOGIN")
    postgres_database.execute(f"GRANT {rights} ON robots TO {user}")
    checked = check(postgres_database.server.connection_string(postgres_database.name, user=user))
    assert checked.not_ok == not_ok
    assert checked.exit_status == (1 if not_ok else 0)
    if not_ok:
        assert "GRANT SELECT, UPDATE ON robots TO" in checked.text("permission")


def test_a_database_that_is_read_only(check: Check, postgres_database: PostgresDatabase) -> None:
    postgres_database.execute(
        f"ALTER DATABASE {postgres_database.name} SET default_transaction_read_only = on"
    )
    checked = check(postgres_database)
    assert (checked.exit_status, checked.wrong) == (1, ["permission"])


def test_no_server(check: Check, postgres_server: PostgresServer) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        checked = check(postgres_server.connection_string("postgres", port=port))
    assert (checked.exit_status, checked.wrong) == (1, ["connection"])
    assert "Check SQL_SAM_SERVER" in checked.text("connection")
    assert {checked.level(each) for each in ("table", "index", "permission")} == {"not_checked"}


def test_a_server_that_says_nothing(check: Check, postgres_database: PostgresDatabase) -> None:
    server = postgres_database.server
    with proxy_to(server.port) as proxy:
        proxy.fall_silent()
        text = server.connection_string(postgres_database.name, port=proxy.port)
        checked = check(text, SQL_SAM_LOGIN_TIMEOUT="1")
    assert (checked.exit_status, checked.wrong) == (1, ["connection"])
    assert "Check SQL_SAM_SERVER" in checked.text("connection")


def test_a_server_that_falls_silent_half_way(
    check: Check, postgres_database: PostgresDatabase
) -> None:
    server = postgres_database.server
    with proxy_to(server.port) as proxy:
        proxy.fall_silent_on(b"IS NULL AND 1 = 0", after_it=False)
        text = server.connection_string(postgres_database.name, port=proxy.port)
        checked = check(text, SQL_SAM_LOGIN_TIMEOUT="1")
    assert (checked.exit_status, checked.not_ok) == (1, {"permission": "wrong"})
    assert "did not answer in time" in checked.text("permission")


def test_a_wrong_password(check: Check, postgres_database: PostgresDatabase) -> None:
    user = f"guarded_{postgres_database.name}"
    postgres_database.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'another'")
    postgres_database.server.require_password(user)
    checked = check(postgres_database.server.connection_string(postgres_database.name, user=user))
    assert (checked.exit_status, checked.wrong) == (1, ["connection"])
    assert "Check SQL_SAM_USER and SQL_SAM_PASSWORD." in checked.text("connection")
    assert UNUSED_PASSWORD not in checked.output


class TestSqlServer:
    """By Microsoft's driver, on a stand-in that answers as its catalogue would."""

    @pytest.fixture
    def check(
        self, tmp_path: Path, sql_server: TdsServer, to_sql_server: dict[str, Any]
    ) -> Callable[..., Checked]:
        def run(**answers: list[Answer]) -> Checked:
            sql_server.answer = self.server(answers)
            environment = {name.upper(): str(value) for name, value in to_sql_server.items()}
            environment |= {
                "CALLBACK_API_KEY": STRONG_KEY,
                "CALLBACK_PORT": "0",
                "SQL_SAM_FINISHED_COLUMN": "finished",
            }
            return Checked(run_to_its_end(tmp_path, environment, "check", "--json"))

        return run

    def test_a_time_that_is_rounded(self, check: Check) -> None:
        checked = check(describe=[types(("datetime2(3)", 7, None))])
        assert checked.level("column finished") == "warning"
        assert "datetime2(3) rounds the time" in checked.text("column finished")

    @staticmethod
    def server(answers: dict[str, list[Answer]]) -> Callable[[Statement], list[Answer]]:
        columns = {
            "deploymentId": "varchar(128)",
            "status": "varchar(64)",
            "finished": "datetime2(6)",
        }

        def answer(statement: Statement) -> list[Answer]:
            text = statement.text
            if "dm_exec_describe" in text:
                asked = str(statement.parameters[0].value)
                rows = ((name, 128, None) for column, name in columns.items() if column in asked)
                return answers.get("describe", [types(*rows)])
            if "sp_statistics" in text:
                names = (
                    "TABLE_QUALIFIER", "TABLE_OWNER", "TABLE_NAME", "NON_UNIQUE",
                    "INDEX_QUALIFIER", "INDEX_NAME", "TYPE", "SEQ_IN_INDEX", "COLUMN_NAME",
                    "COLLATION", "CARDINALITY", "PAGES", "FILTER_CONDITION",
                )  # fmt: skip
                row = (
                    "SAM", "dbo", "robots", 1, "robots", "IX_robots_deploymentId", 3, 1,
                    "deploymentId", "A", 4, 1, "",
                )  # fmt: skip
                return answers.get("statistics", [Rows(names, (row,))])
            simple: dict[str, tuple[str, Answer]] = {
                "SELECT delayed": ("durability", Rows(("desc",), (("DISABLED",),))),
                "SELECT": ("select", Rows(("column",))),
                "UPDATE": ("update", Count(0)),
                "": ("", Count(None)),
            }
            beginning = next(each for each in simple if text.startswith(each))
            name, usual = simple[beginning]
            return answers.get(name, [usual])

        return answer

    def test_a_good_one(self, check: Check) -> None:
        checked = check()
        assert (checked.exit_status, checked.not_ok) == (0, {})
        assert checked.text("column deploymentId").startswith("varchar(128)")
        assert checked.text("column finished").startswith("datetime2(6)")
        assert checked.text("index").startswith("IX_robots_deploymentId")
        assert "18.06" in checked.text("connection")

    def test_delayed_durability(self, check: Check) -> None:
        checked = check(durability=[Rows(("desc",), (("FORCED",),))])
        assert (checked.exit_status, checked.not_ok) == (0, {"durability": "warning"})
        assert "DELAYED_DURABILITY" in checked.text("durability")

    def test_no_permission(self, check: Check) -> None:
        denied = Error(229, "The UPDATE permission was denied on the object 'robots'.")
        checked = check(update=[denied])
        assert (checked.exit_status, checked.wrong) == (1, ["permission"])
        assert "GRANT SELECT, UPDATE ON robots TO sam" in checked.text("permission")

    def test_no_table(self, check: Check) -> None:
        checked = check(select=[Error(208, "Invalid object name 'robots'.")])
        assert (checked.exit_status, checked.wrong) == (1, ["table"])
        assert "Check SQL_SAM_TABLE." in checked.text("table")

    def test_a_view_or_a_synonym(self, check: Check) -> None:
        """Its index cannot be seen."""
        checked = check(statistics=[Rows(("INDEX_NAME",))])
        assert (checked.exit_status, checked.not_ok) == (0, {"index": "warning"})

    def test_a_type_that_is_not_told(self, check: Check) -> None:
        checked = check(describe=[types()])
        assert checked.exit_status == 0
        assert checked.level("column deploymentId") == "warning"

    def test_a_wrong_password(self, check: Check, sql_server: TdsServer) -> None:
        sql_server.login_error = Error(18456, "Login failed for user 'sam'.")
        checked = check()
        assert (checked.exit_status, checked.wrong) == (1, ["connection"])
        assert "SQL_SAM_PASSWORD" in checked.text("connection")
        assert "hush-hush" not in checked.output


def test_beside_a_service_that_runs(
    check: Check, service: Service, sqlite_database: SqliteDatabase
) -> None:
    checked = check(sqlite_database)
    assert (checked.exit_status, checked.not_ok) == (0, {})
    assert "a service that runs has it" in checked.text("spool")
    assert service.post(body()).json()["outcome"] == "updated"


def test_a_spool_that_is_not_there_is_not_made(
    check: Check, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    """It would belong to the user of `check`, and not to the service."""
    spool = tmp_path / "below" / "spool.db"
    checked = check(sqlite_database, CALLBACK_SPOOL_PATH=str(spool))
    assert checked.level("spool") == "ok"
    assert not spool.parent.exists()


def test_a_spool_that_cannot_be_written(
    check: Check, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    (tmp_path / "spool.db").write_text("not a database, but another file")
    checked = check(sqlite_database, CALLBACK_SPOOL_PATH=str(tmp_path / "spool.db"))
    assert (checked.exit_status, checked.wrong) == (1, ["spool"])
    assert (tmp_path / "spool.db").read_text() == "not a database, but another file"

    checked = check(sqlite_database, CALLBACK_SPOOL_PATH=str(sqlite_database.path / "spool.db"))
    assert checked.wrong == ["spool"]


def test_a_spool_in_memory(check: Check, sqlite_database: SqliteDatabase) -> None:
    in_memory = [
        partition.mountpoint
        for partition in psutil.disk_partitions(all=True)
        if partition.fstype in {"tmpfs", "devtmpfs"} and os.access(partition.mountpoint, os.W_OK)
    ]
    assert in_memory, "this test needs a file system in memory, as Linux mounts on /dev/shm"
    checked = check(sqlite_database, CALLBACK_SPOOL_PATH=f"{in_memory[0]}/sam/spool.db")
    assert (checked.exit_status, checked.wrong) == (1, ["spool's disk"])
    assert "CALLBACK_SPOOL_PATH" in checked.text("spool's disk")


@pytest.mark.parametrize("key", ["short-Key-1", "a" * 40, "local-demo-key-and-some-more"])
def test_a_key_that_can_be_guessed(key: str, check: Check, sqlite_database: SqliteDatabase) -> None:
    checked = check(sqlite_database, CALLBACK_API_KEY=key)
    assert (checked.exit_status, checked.not_ok) == (0, {"key": "warning"})
    assert "token_urlsafe" in checked.text("key")
    assert key not in checked.output


def test_the_service_warns_of_such_a_key_too(service: Service) -> None:
    line = service.wait_for_event("weak_key")
    assert line["level"] == "warning"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CALLBACK_PORT": "http"}, "CALLBACK_PORT is wrong"),
        ({"SQL_SAM_CONNECTION_STRING": "DRIVER={No such}"}, "does not exist"),
        (
            {
                "SQL_SAM_CONNECTION_STRING": "",
                "SQL_SAM_SERVER": "db:1433",
                "SQL_SAM_DATABASE": "SAM",
                "SQL_SAM_USER": "sam",
                "SQL_SAM_PASSWORD": "hush-hush",
            },
            "after a comma",
        ),
    ],
)
@pytest.mark.server
def test_a_configuration_that_cannot_be_used(
    environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    needed = {"CALLBACK_API_KEY": STRONG_KEY, "SQL_SAM_CONNECTION_STRING": "DRIVER=SQLite3"}
    ended = run_to_its_end(tmp_path, {**needed, **environment}, "check")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_text_output_has_a_line_for_each_check(
    encoding: str, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    environment = {
        "CALLBACK_API_KEY": STRONG_KEY,
        "CALLBACK_PORT": "0",
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
        "PYTHONIOENCODING": encoding,
    }
    ended = run_to_its_end(tmp_path, environment, "check")
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert [line.partition(": ")[0].removeprefix("ok ") for line in lines] == [
        "configuration",
        "key",
        "address",
        "spool",
        "spool's disk",
        "driver",
        "connection",
        "table",
        "column deploymentId",
        "column status",
        "index",
        "permission",
    ]


def test_its_probes_leave_nothing_behind(
    check: Check, service: Service, sqlite_database: SqliteDatabase
) -> None:
    check(sqlite_database)
    spool = service.directory / "var" / "callback-spool.db"
    with closing(sqlite3.connect(spool)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    assert sqlite_database.statuses() == {"d-1": "RUNNING"}
