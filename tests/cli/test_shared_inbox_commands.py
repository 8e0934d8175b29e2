"""The commands on the shared inbox: which store they mean, they say."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase
from tests.support.load import spooled
from tests.support.printed import KEY
from tests.support.prometheus import scrape
from tests.support.service import Service, run_to_its_end

UNREACHABLE = (
    "DRIVER={PostgreSQL Unicode};Server=127.0.0.1;Port=1;Database=x;UID=sam;PWD=very-secret;"
)


@pytest.fixture
def environment(postgres_database: PostgresDatabase) -> dict[str, str]:
    return {
        "CALLBACK_API_KEY": KEY,
        "CALLBACK_HOST": "127.0.0.1",
        "CALLBACK_PORT": "0",
        "SQL_SAM_CONNECTION_STRING": postgres_database.connection_string,
        "CALLBACK_INBOX_CONNECTION_STRING": postgres_database.connection_string,
        "CALLBACK_INBOX_TIMEOUT": "60",
    }


def checks(directory: Path, environment: dict[str, str]) -> dict[str, dict[str, str]]:
    ended = run_to_its_end(directory, environment, "check", "--json")
    return {each["subject"]: each for each in json.loads(ended.stdout)["checks"]}


def test_it_is_made_looked_into_and_mended(
    start_service: Callable[..., Service],
    postgres_database: PostgresDatabase,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    def run(*arguments: str) -> str:
        ended = run_to_its_end(tmp_path, environment, *arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    for _ in range(2):
        assert "sam_callback_inbox is there, in PostgreSQL" in run("inbox", "init")
    service = start_service(**environment)
    service.wait_for_event("inbox_available")
    postgres_database.rename("robots", "away")
    assert service.post(body("d-1", "OLD")).json()["outcome"] == "queued"
    assert service.post(b"nonsense").status_code == 422

    with service.client() as client:
        eventually(lambda: client.get("/ready").json()["inbox"]["queued"] == 1)
        ready = client.get("/ready").json()
    assert ready["inbox"] == {
        "queued": 1,
        "unmatched": 0,
        "dead_letter": 0,
        "invalid": 1,
        "up": True,
    }
    assert ready["spool"]["queued"] == 0
    assert scrape(service).value("inbox_entries", kind="queued") == 1

    ended = run_to_its_end(tmp_path, environment, "spool", "list", "--json")
    assert "The shared inbox, sam_callback_inbox" in ended.stderr
    queued, invalid = map(json.loads, ended.stdout.splitlines())
    assert (queued["deploymentId"], queued["status"], queued["kind"]) == ("d-1", "OLD", "queued")
    assert "nonsense" in run("spool", "show", str(invalid["number"]))
    assert "nonsense" in run("spool", "export", "--kind", "invalid")
    retry = ["spool", "retry", str(invalid["number"]), "--deployment", "d-2", "--status", "MEANT"]
    assert "1 to be applied" in run(*retry)
    assert "1 deleted" in run("spool", "drop", str(queued["number"]), "--yes")
    postgres_database.execute(
        "INSERT INTO away (\"deploymentId\", status) VALUES ('d-2', 'RUNNING')"
    )
    postgres_database.rename("away", "robots")
    eventually(lambda: postgres_database.statuses() == {"d-1": "RUNNING", "d-2": "MEANT"})


def test_drain_moves_a_spool_into_it(
    start_service: Callable[..., Service],
    postgres_database: PostgresDatabase,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    run_to_its_end(tmp_path, environment, "inbox", "init")
    alone = {**environment}
    del alone["CALLBACK_INBOX_CONNECTION_STRING"]
    service = start_service(**alone)
    postgres_database.rename("robots", "away")
    assert service.post(body("d-1", "OLD")).json()["outcome"] == "queued"
    assert service.post(b"nonsense").status_code == 422
    assert service.stop() == 0
    spool = tmp_path / "var/callback-spool.db"
    lost = spool.rename(tmp_path / "lost.db")
    service = start_service(**environment)
    service.wait_for_event("inbox_available")
    assert service.post(body("d-1", "NEW")).json()["outcome"] == "queued"

    away = {**environment, "CALLBACK_INBOX_CONNECTION_STRING": UNREACHABLE}
    ended = run_to_its_end(tmp_path, away, "spool", "drain", "--path", str(lost))
    assert ended.returncode == 1
    assert "CALLBACK_INBOX_CONNECTION_STRING" in ended.stderr

    ended = run_to_its_end(tmp_path, environment, "spool", "drain", "--path", str(lost))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "2 moved into the shared inbox, sam_callback_inbox.\n"
    assert spooled(lost) == {}
    ended = run_to_its_end(tmp_path, environment, "spool", "list", "--kind", "invalid", "--json")
    assert len(ended.stdout.splitlines()) == 1
    postgres_database.rename("away", "robots")
    eventually(lambda: postgres_database.statuses() == {"d-1": "NEW"})


def test_check_covers_it(tmp_path: Path, environment: dict[str, str]) -> None:
    found = checks(tmp_path, environment)
    assert found["shared inbox"]["level"] == "wrong"
    assert "inbox init" in found["shared inbox"]["detail"]
    run_to_its_end(tmp_path, environment, "inbox", "init")
    found = checks(tmp_path, environment)
    assert found["shared inbox"]["level"] == "ok"
    assert found["shared inbox's replication"]["level"] == "warning"
    assert "may be lost" in found["shared inbox's replication"]["detail"]
    assert "SQL_SAM_FINISHED_COLUMN" in found["shared inbox's order"]["action"]


def test_missing_rights_are_told(
    tmp_path: Path, environment: dict[str, str], postgres_database: PostgresDatabase
) -> None:
    run_to_its_end(tmp_path, environment, "inbox", "init")
    role = f"less_{postgres_database.name}"
    postgres_database.execute(f"CREATE ROLE {role} LOGIN")
    postgres_database.execute(f"GRANT SELECT, UPDATE ON sam_callback_inbox_version TO {role}")
    postgres_database.execute(f"GRANT SELECT ON sam_callback_inbox TO {role}")
    less = postgres_database.server.connection_string(postgres_database.name, user=role)
    found = checks(tmp_path, {**environment, "CALLBACK_INBOX_CONNECTION_STRING": less})
    assert found["shared inbox"]["level"] == "wrong"
    assert "Grant the login SELECT, INSERT, UPDATE and DELETE" in found["shared inbox"]["detail"]
    postgres_database.execute(f"GRANT INSERT, UPDATE, DELETE ON sam_callback_inbox TO {role}")
    found = checks(tmp_path, {**environment, "CALLBACK_INBOX_CONNECTION_STRING": less})
    assert found["shared inbox"]["level"] == "ok"


def test_a_server_that_is_not_there_is_told_without_its_secret(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    wrong = {**environment, "CALLBACK_INBOX_CONNECTION_STRING": UNREACHABLE}
    for arguments in (["inbox", "init"], ["spool", "list"]):
        ended = run_to_its_end(tmp_path, wrong, *arguments)
        assert ended.returncode == 1
        assert "CALLBACK_INBOX_CONNECTION_STRING" in ended.stderr
        assert "very-secret" not in ended.stderr
    assert checks(tmp_path, wrong)["shared inbox"]["level"] == "wrong"


def test_it_is_refused_without_a_connection_string_or_with_none_that_can_be_read(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    del environment["CALLBACK_INBOX_CONNECTION_STRING"]
    assert run_to_its_end(tmp_path, environment, "inbox", "init").returncode == 2
    assert "shared inbox" not in checks(tmp_path, environment)
    ended = run_to_its_end(
        tmp_path, {**environment, "CALLBACK_INBOX_CONNECTION_STRING": "no pairs"}, "inbox", "init"
    )
    assert ended.returncode == 2
    assert "CALLBACK_INBOX_CONNECTION_STRING is wrong" in ended.stderr
