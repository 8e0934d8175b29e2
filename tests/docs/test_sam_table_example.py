"""docs/how-to/sam-database.md's worked example: the service on the table of a public SAM.

The columns, their sizes and what SAM's own jobs do are those of the installation that the page
names. SQLite and PostgreSQL have them in their own types, and the page's trigger in their words.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import pytest

from tests.support import markdown
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import Database, PostgresDatabase
from tests.support.service import KEY, Service, run_to_its_end

PAGE: Final = markdown.ROOT.joinpath("docs/how-to/sam-database.md").read_text(encoding="utf-8")
DEPLOYMENT: Final = "f6d30428-15d1-41e9-a952-0742eaaa5a31"
HOURS_EAST: Final = 2

TABLE: Final = """
    CREATE TABLE {table} (
        "EjecucionId" INTEGER PRIMARY KEY,
        "DeploymentId" VARCHAR(50) NOT NULL UNIQUE,
        "Estado" VARCHAR(20) NOT NULL CHECK (length("Estado") <= 20),
        "FechaFin" TIMESTAMP,
        "FechaUltimoUNKNOWN" TIMESTAMP,
        "CallbackInfo" TEXT,
        "CallbackUtc" TIMESTAMP
    )"""
LAUNCHER: Final = """
    INSERT INTO {table} ("EjecucionId", "DeploymentId", "Estado")
    SELECT COUNT(*) + 1, ?, 'DEPLOYED' FROM {table}"""
RECONCILER: Final = """
    UPDATE {table} SET "Estado" = ?, "FechaFin" = ?
    WHERE "DeploymentId" = ? AND "CallbackInfo" IS NULL"""
TRIGGER: Final = {
    "sqlite": [
        """
        CREATE TRIGGER callback AFTER UPDATE OF "CallbackUtc" ON "Ejecuciones" BEGIN
            UPDATE "Ejecuciones"
            SET "FechaFin" = CASE WHEN NEW."Estado" <> 'UNKNOWN'
                    THEN datetime(NEW."CallbackUtc", '+2 hours') END,
                "FechaUltimoUNKNOWN" = CASE WHEN NEW."Estado" = 'UNKNOWN'
                    THEN datetime(NEW."CallbackUtc", '+2 hours') ELSE "FechaUltimoUNKNOWN" END,
                "CallbackInfo" = CASE WHEN NEW."Estado" <> 'UNKNOWN' THEN NEW."CallbackInfo" END
            WHERE "EjecucionId" = NEW."EjecucionId";
        END"""
    ],
    "postgres": [
        """
        CREATE FUNCTION callback() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW."Estado" = 'UNKNOWN' THEN
                NEW."FechaFin" = NULL;
                NEW."FechaUltimoUNKNOWN" = NEW."CallbackUtc" + INTERVAL '2 hours';
                NEW."CallbackInfo" = NULL;
            ELSE
                NEW."FechaFin" = NEW."CallbackUtc" + INTERVAL '2 hours';
            END IF;
            RETURN NEW;
        END $$""",
        """
        CREATE TRIGGER callback BEFORE UPDATE OF "CallbackUtc" ON {table}
            FOR EACH ROW EXECUTE FUNCTION callback()""",
    ],
}


class Run(NamedTuple):
    """A row of the table."""

    status: str
    finished: datetime | None
    payload: Any
    callback_utc: datetime | None


class PublicSam:
    """The database of that SAM, and what its jobs do there."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kind = "postgres" if isinstance(database, PostgresDatabase) else "sqlite"
        self.variables = {
            **documented_settings(),
            "SQL_SAM_CONNECTION_STRING": database.connection_string,
        }
        if isinstance(database, PostgresDatabase):
            database.execute("CREATE SCHEMA dbo")
        else:  # SQLite has no schemas
            self.variables["SQL_SAM_TABLE"] = self.variables["SQL_SAM_TABLE"].removeprefix("dbo.")
        self.table = ".".join(f'"{part}"' for part in self.variables["SQL_SAM_TABLE"].split("."))
        self._execute(TABLE)
        if isinstance(database, PostgresDatabase):
            self.variables["SQL_SAM_CONNECTION_STRING"] = self._least_rights(database)

    def _execute(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._database.execute(sql.format(table=self.table), *parameters)

    def _least_rights(self, database: PostgresDatabase) -> str:
        """The page's GRANT, to a role of this database's own."""
        [grant] = re.findall(r"GRANT (SELECT \(.*?) ON dbo", PAGE, re.DOTALL)
        role = f"least_of_{database.name}"
        quoted = re.sub(r"[A-Z][a-z]\w+", r'"\g<0>"', grant)
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA dbo TO {role}",
            f"GRANT {quoted} ON {self.table} TO {role}",
        ):
            database.execute(statement)
        return database.server.connection_string(database.name, user=role)

    def create_trigger(self) -> None:
        for statement in TRIGGER[self._kind]:
            self._execute(statement)

    def launch(self, deployment_id: str = DEPLOYMENT) -> None:
        self._execute(LAUNCHER, deployment_id)

    def reconcile(self, status: str) -> None:
        self._execute(RECONCILER, status, "2026-01-30 12:00:00", DEPLOYMENT)

    def set_finished(self, finished: datetime) -> None:
        self._execute('UPDATE {table} SET "FechaFin" = ?', finished.strftime("%Y-%m-%d %H:%M:%S"))

    def run(self) -> Run:
        [(status, finished, payload, callback_utc)] = self._execute(
            'SELECT "Estado", "FechaFin", "CallbackInfo", "CallbackUtc" FROM {table}'
            ' WHERE "DeploymentId" = ?',
            DEPLOYMENT,
        )
        return Run(status, moment(finished), payload and json.loads(payload), moment(callback_utc))


def moment(value: str | datetime | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def documented_settings() -> dict[str, str]:
    [settings] = [code for _, code in markdown.blocks(PAGE) if "SQL_SAM_TABLE=" in code]
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", settings))


@pytest.fixture
def sam(database: Database) -> PublicSam:
    return PublicSam(database)


@pytest.fixture
def start(start_service: Callable[..., Service], sam: PublicSam) -> Callable[..., Service]:
    """Starts the service with the page's settings, but for those given here."""

    def start_on_it(**variables: str) -> Service:
        return start_service(**{**sam.variables, **variables})

    return start_on_it


def test_a_callback_is_written_into_the_columns_that_the_settings_name(
    start: Callable[..., Service], sam: PublicSam
) -> None:
    sam.launch()
    before = datetime.now(UTC).replace(tzinfo=None)
    callback = {"deploymentId": DEPLOYMENT, "status": "RUN_FAILED", "botOutput": {"factura": "A-1"}}
    answer = start().post(json.dumps(callback).encode())
    assert answer.json()["outcome"] == "updated"
    status, finished, payload, callback_utc = sam.run()
    assert (status, finished) == ("RUN_FAILED", None)
    assert payload == callback
    assert callback_utc is not None
    assert timedelta(0) <= callback_utc - before < timedelta(minutes=5)


def test_check_finds_nothing_wrong(sam: PublicSam, tmp_path: Any) -> None:  # noqa: ANN401
    checked = run_to_its_end(
        tmp_path, {"CALLBACK_API_KEY": KEY, **sam.variables}, "check", "--json"
    )
    wrong = [each for each in json.loads(checked.stdout)["checks"] if each["level"] == "wrong"]
    assert (checked.returncode, wrong) == (0, [])


def test_a_run_that_fails_before_the_launcher_has_written_it_gets_its_status(
    start: Callable[..., Service], sam: PublicSam
) -> None:
    assert start().post(body(DEPLOYMENT, "RUN_FAILED")).json()["outcome"] == "unmatched"
    sam.launch()
    eventually(lambda: sam.run().status == "RUN_FAILED")


def test_a_status_that_is_longer_than_its_column_is_kept_as_a_dead_letter(
    start: Callable[..., Service], sam: PublicSam
) -> None:
    sam.launch()
    answer = start().post(body(DEPLOYMENT, "A_STATUS_OF_MORE_THAN_20"))
    assert answer.json()["outcome"] == "dead_letter"
    assert sam.run().status == "DEPLOYED"


def test_the_reconciler_leaves_a_run_with_a_callback_alone(
    start: Callable[..., Service], sam: PublicSam
) -> None:
    sam.launch()
    start().post(body(DEPLOYMENT, "RUN_COMPLETED"))
    sam.reconcile("RUNNING")  # it asked A360 before the run ended
    assert sam.run().status == "RUN_COMPLETED"


def test_with_the_trigger_a_run_ends_in_local_time_unless_it_is_unknown(
    start: Callable[..., Service], sam: PublicSam
) -> None:
    sam.create_trigger()
    sam.launch()
    service = start()

    assert service.post(body(DEPLOYMENT, "RUN_FAILED")).json()["outcome"] == "updated"
    status, finished, payload, callback_utc = sam.run()
    assert status == "RUN_FAILED"
    assert payload["status"] == "RUN_FAILED"
    assert callback_utc is not None
    assert finished is not None
    assert abs(finished - callback_utc - timedelta(hours=HOURS_EAST)) <= timedelta(seconds=1)

    assert service.post(body(DEPLOYMENT, "UNKNOWN")).json()["outcome"] == "updated"
    assert sam.run()[:3] == ("UNKNOWN", None, None)
    sam.reconcile("COMPLETED")
    assert sam.run().status == "COMPLETED"


def test_in_the_column_of_sams_local_time_callbacks_would_count_as_late(
    start: Callable[..., Service], sam: PublicSam, database: Database
) -> None:
    sam.launch()
    sam.set_finished(datetime.now(UTC) + timedelta(hours=HOURS_EAST))
    service = start(
        SQL_SAM_FINISHED_COLUMN="FechaFin",
        SQL_SAM_CONNECTION_STRING=database.connection_string,  # it may write that column, too
    )
    answer = service.post(body(DEPLOYMENT, "RUN_COMPLETED"))
    assert answer.json()["outcome"] == "superseded"
    assert sam.run().status == "DEPLOYED"
