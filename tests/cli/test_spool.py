"""`spool list|show|retry|drop|export|drain`, beside a running service and without one."""

import json
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from sam.callback.inbox.sqlite.file import PAGE_BYTES, SpoolFile
from sam.callback.inbox.store import Entry, Kind
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import spooled
from tests.support.service import KEY, Service, run_to_its_end

ENTRIES = [
    Entry(1, Kind.QUEUED, "d-1", "DONE", b'{"a": "\xc3\xb1"}', "The database is down."),
    Entry(2, Kind.UNMATCHED, "d-2", "FAILED", None, "No row has this deployment yet."),
    Entry(3, Kind.DEAD_LETTER, "d-3", "BAD", None, "too long"),
    Entry(4, Kind.INVALID, None, None, b"\xff\x00", "Invalid JSON"),
]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "var/callback-spool.db"
    with closing(SpoolFile(path, 2**24)) as file:
        file.put(ENTRIES, 4)
    return path


def command(directory: Path, *arguments: str, **variables: str) -> CompletedProcess[str]:
    return run_to_its_end(directory, {"COLUMNS": "160", **variables}, "spool", *arguments)


def numbers(path: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT number, kind FROM entries ORDER BY number").fetchall()


def test_list_shows_pages_for_people_and_for_programs(spool: Path, tmp_path: Path) -> None:
    run = command(tmp_path, "list")
    assert run.returncode == 0
    for text in ("d-1", "queued", "No row has this deployment yet.", "1 dead_letter, 1 invalid"):
        assert text in run.stdout
    assert "--after" not in run.stdout

    first = command(tmp_path, "list", "--limit", "2", "--path", str(spool))
    assert "spool list --after 2" in first.stdout
    rest = command(tmp_path, "list", "--json", "--after", "2")
    assert [json.loads(line)["number"] for line in rest.stdout.splitlines()] == [3, 4]
    one = command(tmp_path, "list", "--json", "--kind", "unmatched")
    assert json.loads(one.stdout) == {
        "number": 2,
        "kind": "unmatched",
        "deploymentId": "d-2",
        "status": "FAILED",
        "receivedAt": "1970-01-01T00:00:00+00:00",
        "reason": "No row has this deployment yet.",
    }


def test_show_prints_a_whole_entry(spool: Path, tmp_path: Path) -> None:
    assert spool.exists()
    assert "d-1" in command(tmp_path, "show", "1").stdout
    assert json.loads(command(tmp_path, "show", "1", "--json").stdout)["payload"] == '{"a": "ñ"}'
    assert json.loads(command(tmp_path, "show", "4", "--json").stdout)["payloadBase64"] == "/wA="
    missing = command(tmp_path, "show", "99")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no entry 99" in missing.stderr


def test_export_writes_every_entry_with_its_payload(spool: Path, tmp_path: Path) -> None:
    assert spool.exists()
    run = command(tmp_path, "export")
    entries = [json.loads(line) for line in run.stdout.splitlines()]
    assert [entry["number"] for entry in entries] == [1, 2, 3, 4]
    assert entries[0]["payload"] == '{"a": "ñ"}'
    assert command(tmp_path, "export", "--output", "all.jsonl").returncode == 0
    assert (tmp_path / "all.jsonl").read_text(encoding="utf-8") == run.stdout


def test_drop_asks_first_and_deletes_the_named_entries(spool: Path, tmp_path: Path) -> None:
    assert command(tmp_path, "drop", "1").returncode == 1  # there is no yes
    assert len(numbers(spool)) == 4
    assert command(tmp_path, "drop", "1", "99", "--yes").stdout == "1 deleted.\n"
    assert command(tmp_path, "drop", "--all", "--kind", "invalid", "--yes").returncode == 0
    assert [number for number, _ in numbers(spool)] == [2, 3]
    assert command(tmp_path, "drop", "--yes").returncode == 1  # names nothing


def test_retry_makes_dead_letters_due_and_says_why_a_body_is_not(
    spool: Path, tmp_path: Path
) -> None:
    run = command(tmp_path, "retry", "--all")
    assert run.returncode == 1
    assert run.stdout.splitlines() == [
        "3 to be applied.",
        "1 not understood:",
        "  4: Invalid JSON: no object at byte 0",
        "Say what one means: spool retry NUMBER --deployment ID --status STATUS",
    ]
    assert numbers(spool) == [(1, "queued"), (2, "queued"), (3, "queued"), (4, "invalid")]
    assert command(tmp_path, "retry", "1", "2", "3").stdout == "3 to be applied.\n"
    assert command(tmp_path, "retry", "--all", "--kind", "invalid").returncode == 1


UNDERSTOOD_BY_NOW = [
    '\ufeff{"deploymentId": "d-5", "status": "FALLÓ"}'.encode(),
    '{"deploymentId": " d-6 ", "status": "FALLÓ"}'.encode("utf-16"),
    b'{"deploymentId": "d-7", "status": "DONE", "botOutput": "cut \\ud83d"}',
]


def test_an_invalid_body_is_read_anew(spool: Path, tmp_path: Path) -> None:
    later = Entry(9, Kind.UNMATCHED, "d-7", "LATER")
    with closing(SpoolFile(spool, 2**24)) as file:
        invalid = [
            Entry(number, Kind.INVALID, None, None, payload, "Invalid JSON")
            for number, payload in enumerate(UNDERSTOOD_BY_NOW, 5)
        ]
        file.put([*invalid, later], 9)
    run = command(tmp_path, "retry", "5", "6", "7")
    assert run.returncode == 0
    assert run.stdout.splitlines() == [
        "2 to be applied.",
        "1 deleted: a later callback of the deployment is there.",
    ]
    with closing(SpoolFile(spool, 2**24)) as file:
        assert [(e.kind, e.deployment_id, e.status, e.payload) for e in file.get([5, 6])] == [
            ("queued", "d-5", "FALLÓ", UNDERSTOOD_BY_NOW[0].removeprefix(b"\xef\xbb\xbf")),
            ("queued", "d-6", "FALLÓ", UNDERSTOOD_BY_NOW[1].decode("utf-16").encode()),
        ]
        assert file.get([7, 9]) == [later]


def test_an_operator_gives_an_entry_its_deployment_and_status(
    spool: Path, service: Service, sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.add_robots(["d-3"])
    for number, deployment_id, status in [("4", "d-1", "RUN_FAILED"), ("3", " d-3 ", "GOOD")]:
        run = command(
            service.directory, "retry", number, "--deployment", deployment_id, "--status", status
        )
        assert (run.returncode, run.stdout) == (0, "1 to be applied.\n")
    eventually(lambda: sqlite_database.statuses() == {"d-1": "RUN_FAILED", "d-3": "GOOD"})
    eventually(lambda: spooled(spool).keys() == {"d-2"})


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("4", "--deployment", "d-1"), "go together"),
        (("4", "--status", "DONE"), "go together"),
        (("3", "4", "--deployment", "d-1", "--status", "DONE"), "with one number"),
        (("--all", "--deployment", "d-1", "--status", "DONE"), "with one number"),
        (("1", "--deployment", "d-1", "--status", "DONE"), "1 is no dead letter"),
        (("99", "--deployment", "d-1", "--status", "DONE"), "99 is no dead letter"),
        (("4", "--deployment", " ", "--status", "DONE"), "deploymentId: String should have"),
        (("4", "--deployment", "d-1", "--status", "s" * 65), "status: String should have"),
    ],
)
def test_an_invalid_deployment_or_status_is_refused(
    arguments: tuple[str, ...], why: str, spool: Path, tmp_path: Path
) -> None:
    before = numbers(spool)
    run = command(tmp_path, "retry", *arguments)
    assert run.returncode == 1
    assert why in run.stderr
    assert numbers(spool) == before


def test_large_entries_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "var/callback-spool.db"
    payload = bytes(PAGE_BYTES // 4)
    with closing(SpoolFile(path, 2**30)) as file:
        for number in range(1, 10):
            file.put([Entry(number, Kind.QUEUED, f"d-{number}", "DONE", payload)], number)
        assert len(file.page([Kind.QUEUED], after=0, limit=10)) == 3
        assert len(file.due(10).entries) == 3
        assert len(file.get(range(1, 10))) == 9
    run = command(tmp_path, "list", "--json", "--limit", "8")
    assert [json.loads(line)["number"] for line in run.stdout.splitlines()] == [*range(1, 9)]
    assert command(tmp_path, "drop", "--all", "--yes").stdout == "9 deleted.\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "or say --all."),
        (("1", "--all"), "not both."),
        (("1", "--kind", "queued"), "--kind goes with --all"),
    ],
)
def test_contradictory_arguments_are_refused(
    arguments: tuple[str, ...], why: str, spool: Path, tmp_path: Path
) -> None:
    before = numbers(spool)
    for action in ("drop", "retry"):
        run = command(tmp_path, action, *arguments)
        assert run.returncode == 1
        assert why in run.stderr
    assert numbers(spool) == before


def test_a_missing_spool_is_reported_and_not_created(tmp_path: Path) -> None:
    run = command(tmp_path, "list")
    assert run.returncode == 1
    assert "There is no spool at" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_left_as_it_is(tmp_path: Path, sqlite_database: SqliteDatabase) -> None:
    variables = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    text = tmp_path / "text"
    text.write_text("no database at all")
    for path in (text, sqlite_database.path):
        before = path.read_bytes()
        for arguments in (("list",), ("drain",), ("drop", "--all", "--yes")):
            run = command(tmp_path, *arguments, "--path", str(path), **variables)
            assert run.returncode == 1
            assert "is no spool" in run.stderr
        assert path.read_bytes() == before


def test_a_callbacks_text_cannot_spoil_the_list(tmp_path: Path) -> None:
    path = tmp_path / "var/callback-spool.db"
    with closing(SpoolFile(path, 2**24)) as file:
        file.put([Entry(1, Kind.QUEUED, "[/a]", "[red]x[/]", None, "[unixODBC]")], 1)
    assert all(text in command(tmp_path, "list").stdout for text in ("[/a]", "[red]x[/]", "[unix"))


@pytest.mark.posix
def test_an_export_is_for_its_owner_alone(spool: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    for arguments in ((), ("--force",)):
        run = command(tmp_path, "export", "--output", "o", "--path", str(spool), *arguments)
        assert run.returncode == 0
        assert stat.S_IMODE(output.stat().st_mode) == 0o600
        output.chmod(0o666)  # as another program may have left it
        output.write_text("before")


def test_an_export_replaces_a_file_only_by_force(spool: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    output.write_text("precious")
    arguments = ("export", "--output", "o", "--path", str(spool))
    refused = command(tmp_path, *arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--force" in refused.stderr
    assert output.read_text() == "precious"
    assert command(tmp_path, *arguments, "--force").stdout == "4 exported to o.\n"
    assert len(output.read_text().splitlines()) == 4


@pytest.mark.posix
@pytest.mark.parametrize("is_there", [True, False])
def test_an_export_follows_no_link(*, is_there: bool, spool: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if is_there:
        target.write_text("precious")
    (tmp_path / "o").symlink_to(target)
    for arguments in ((), ("--force",)):
        run = command(tmp_path, "export", "--output", "o", "--path", str(spool), *arguments)
        assert (run.returncode, run.stdout) == (1, "")
        assert (tmp_path / "o").is_symlink()
        assert (target.read_text() if target.exists() else None) == (
            "precious" if is_there else None
        )


def test_a_file_that_cannot_be_exported_to_is_named(spool: Path, tmp_path: Path) -> None:
    run = command(tmp_path, "export", "--output", "no/such/o", "--path", str(spool))
    assert (run.returncode, run.stdout) == (1, "")
    assert "no/such/o cannot be written: No such file or directory." in run.stderr


def test_a_dead_letter_is_retried_beside_the_running_service(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.execute(
        "CREATE TRIGGER t BEFORE UPDATE ON robots BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    assert service.post(body("d-1", "DONE")).json()["outcome"] == "dead_letter"
    sqlite_database.execute("DROP TRIGGER t")

    listed = command(service.directory, "list", "--json", "--kind", "dead_letter")
    number = str(json.loads(listed.stdout)["number"])
    assert command(service.directory, "retry", number).returncode == 0

    eventually(lambda: sqlite_database.statuses() == {"d-1": "DONE"})
    eventually(lambda: spooled(service.directory / "var/callback-spool.db") == {})


def test_drain_applies_the_spool_of_an_instance_that_will_not_come_back(
    spool: Path, tmp_path: Path, sqlite_database: SqliteDatabase
) -> None:
    variables = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
        "CALLBACK_UNMATCHED_TTL": "100000 d",  # these entries are of 1970
    }
    run = command(tmp_path, "drain", **variables)
    assert run.returncode == 1  # not all of it could be applied
    assert "1 applied, 1 left. Their rows do not exist" in run.stdout
    assert sqlite_database.statuses() == {"d-1": "DONE"}
    assert spooled(spool).keys() == {"d-2", "d-3"}

    sqlite_database.add_robots(["d-2"])
    run = command(tmp_path, "drain", **variables)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "1 applied, 0 left.")
    assert sqlite_database.statuses()["d-2"] == "FAILED"


def test_drain_reports_permanent_refusals(
    spool: Path, tmp_path: Path, sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.execute(
        "CREATE TRIGGER t BEFORE UPDATE ON robots BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    sqlite_database.add_robots(["d-2"])
    run = command(
        tmp_path,
        "drain",
        CALLBACK_API_KEY=KEY,
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
    )
    assert (run.returncode, run.stdout.splitlines()[-1]) == (
        0,  # nothing is left that waits
        "0 applied, 2 kept as dead letters, 0 left.",
    )
    assert spooled(spool).keys() == {"d-1", "d-2", "d-3"}


def test_drain_leaves_a_running_services_spool_alone(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    variables = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    service = start_service(**variables)
    service.post(body("d-9"))
    run = command(service.directory, "drain", **variables)
    assert run.returncode == 1
    assert "Another process owns the spool" in run.stdout
