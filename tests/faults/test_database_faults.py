"""Database faults under load: nothing is refused, nothing is lost, the newest wins."""

import contextlib
import os
import signal
from collections.abc import Callable
from contextlib import closing

import pyodbc
import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import (
    ROW_LOCKING,
    PostgresDatabase,
    PostgresServer,
    SqlServerDatabase,
)
from tests.support.load import Load, losses, spooled
from tests.support.service import Service

pytestmark = pytest.mark.faults

DEPLOYMENTS = [f"d-{number}" for number in range(1, 31)]


@pytest.fixture
def database(postgres_server: PostgresServer) -> PostgresDatabase:
    database = postgres_server.create_database()
    database.add_robots(DEPLOYMENTS)
    return database


@pytest.fixture(params=ROW_LOCKING)
def row_locking_database(request: pytest.FixtureRequest) -> PostgresDatabase | SqlServerDatabase:
    database: PostgresDatabase | SqlServerDatabase = request.getfixturevalue(request.param)
    database.add_robots(DEPLOYMENTS[1:])
    return database


StartOn = Callable[..., Service]


@pytest.fixture
def start_on(start_service: Callable[..., Service]) -> StartOn:
    def start(database: PostgresDatabase | SqlServerDatabase, *, user: str = "sam") -> Service:
        return start_service(
            SQL_SAM_CONNECTION_STRING=database.connection_string.replace(
                "UID=sam;", f"UID={user};"
            ),
            CALLBACK_DB_TIMEOUT="1 s",
        )

    return start


def settle(service: Service, database: PostgresDatabase | SqlServerDatabase, load: Load) -> None:
    """Wait until the spool is empty; check the account."""
    spool = service.directory / "var/callback-spool.db"
    eventually(lambda: spooled(spool) == {})
    assert not load.refused
    assert losses(load.answered, load.all, database.statuses(), spool) == []


def test_a_server_that_is_killed_and_restarted(start_on: StartOn) -> None:
    server = PostgresServer()
    try:
        database = server.create_database()
        database.add_robots(DEPLOYMENTS)
        service = start_on(database)
        with Load(service.url, DEPLOYMENTS, connections=16, pause=0.002) as load:
            for _ in range(2):
                load.wait_for(200)
                pid = int((server.directory / "data/postmaster.pid").read_text().split()[0])
                os.kill(pid, signal.SIGKILL)
                load.wait_for(300)
                server.restart_after_kill()
                load.wait_for(100)
        settle(service, database, load)
    finally:
        server.destroy()


def test_a_table_that_is_renamed_away_and_back(
    row_locking_database: PostgresDatabase | SqlServerDatabase, start_on: StartOn
) -> None:
    database = row_locking_database
    service = start_on(database)
    with Load(service.url, DEPLOYMENTS, connections=16, pause=0.002) as load:
        for _ in range(3):
            load.wait_for(100)
            database.rename("robots", "away")
            load.wait_for(200)
            database.rename("away", "robots")
            load.wait_for(100)
    settle(service, database, load)


def test_a_permission_and_a_login_that_are_taken_away_and_given_back(
    database: PostgresDatabase, start_on: StartOn
) -> None:
    database.execute(f"CREATE ROLE user_{database.name} LOGIN")
    database.execute(f"GRANT SELECT, UPDATE ON robots TO user_{database.name}")
    service = start_on(database, user=f"user_{database.name}")
    with Load(service.url, DEPLOYMENTS, connections=16, pause=0.002) as load:
        load.wait_for(100)
        database.execute(f"REVOKE UPDATE ON robots FROM user_{database.name}")
        load.wait_for(200)
        assert "Grant" in service.wait_for_event("database_down")["reason"]
        database.execute(f"GRANT UPDATE ON robots TO user_{database.name}")
        load.wait_for(100)

        database.execute(f"ALTER ROLE user_{database.name} NOLOGIN")
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ?",
            f"user_{database.name}",
        )
        load.wait_for(200)
        assert "SQL_SAM_PASSWORD" in service.wait_for_event("login_refused")["reason"]
        database.execute(f"ALTER ROLE user_{database.name} LOGIN")
        load.wait_for(100)
    settle(service, database, load)


def test_one_locked_row_does_not_hold_up_the_others(
    row_locking_database: PostgresDatabase | SqlServerDatabase, start_on: StartOn
) -> None:
    database = row_locking_database
    service = start_on(database)
    with Load(service.url, DEPLOYMENTS[1:], connections=8, pause=0.005) as load:
        load.wait_for(50)
        with closing(pyodbc.connect(database.connection_string)) as other:
            other.execute("UPDATE robots SET status = status WHERE \"deploymentId\" = 'd-1'")
            assert service.post(body("d-1", "LOCKED")).json()["outcome"] == "queued"
            load.wait_for(300)
            assert spooled(service.directory / "var/callback-spool.db") == {
                "d-1": ("queued", "LOCKED")
            }
        load.wait_for(50)
    settle(service, database, load)
    assert {sent.outcome for sent in load.answered} <= {"updated", "superseded"}
    assert database.statuses()["d-1"] == "LOCKED"


def test_deadlocks_and_serialization_failures(
    database: PostgresDatabase, start_on: StartOn
) -> None:
    database.execute(
        f"ALTER DATABASE {database.name} SET default_transaction_isolation = serializable"
    )
    service = start_on(database)
    with (
        Load(service.url, DEPLOYMENTS, connections=16, pause=0.002) as load,
        closing(pyodbc.connect(database.connection_string)) as other,
    ):
        for round_number in range(40):
            load.wait_for(10)
            first, second = DEPLOYMENTS[round_number % 30], DEPLOYMENTS[(round_number + 7) % 30]
            with contextlib.suppress(pyodbc.Error):
                other.execute("SET lock_timeout = 500")
                for deployment_id in (second, first):
                    other.execute(
                        "UPDATE robots SET payload = 'x' WHERE \"deploymentId\" = ?", deployment_id
                    )
                other.commit()
            other.rollback()
    settle(service, database, load)


def test_a_trigger_that_raises_an_unknown_error_for_one_row(
    database: PostgresDatabase, start_on: StartOn
) -> None:
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
    )
    database.execute(
        "CREATE TRIGGER t BEFORE UPDATE ON robots FOR EACH ROW"
        " WHEN (OLD.\"deploymentId\" = 'd-1') EXECUTE FUNCTION refuse()"
    )
    service = start_on(database)
    with Load(service.url, DEPLOYMENTS[1:], connections=8, pause=0.005) as load:
        load.wait_for(50)
        for number in range(5):
            assert service.post(body("d-1", f"N{number}")).json()["outcome"] == "queued"
            load.wait_for(50)
    assert {sent.outcome for sent in load.answered} <= {"updated", "superseded"}
    database.execute("DROP TRIGGER t ON robots")
    settle(service, database, load)
    assert database.statuses()["d-1"] == "N4"


def test_one_poison_row_among_many(database: PostgresDatabase, start_on: StartOn) -> None:
    database.execute(
        "ALTER TABLE robots ADD CHECK (\"deploymentId\" <> 'd-1' OR status = 'RUNNING')"
    )
    service = start_on(database)
    with Load(service.url, DEPLOYMENTS, connections=32) as load:
        load.wait_for(2000)
    others = [sent for sent in load.answered if sent.deployment_id != "d-1"]
    poison = [sent for sent in load.answered if sent.deployment_id == "d-1"]
    assert {sent.outcome for sent in others} <= {"updated", "superseded"}
    assert {sent.outcome for sent in poison} <= {"dead_letter", "queued"}
    spool = service.directory / "var/callback-spool.db"
    eventually(lambda: {kind for kind, _ in spooled(spool).values()} == {"dead_letter"})
    assert losses(load.answered, load.all, database.statuses(), spool) == []
