"""Least privilege: the database login needs SELECT and UPDATE on one table, and has no more.

On PostgreSQL, for SQLite knows no rights; for SQL Server storage/schema/sqlserver_login.sql has the
same two.
"""

from collections.abc import Callable
from contextlib import closing

import pyodbc
import pytest

from tests.support.callbacks import body
from tests.support.databases import PostgresDatabase
from tests.support.service import Service

OF_THE_TABLE = "SELECT, UPDATE"
OF_COLUMNS = (
    'SELECT ("deploymentId", status, payload, finished), UPDATE (status, payload, finished)'
)


@pytest.fixture(params=[OF_THE_TABLE, OF_COLUMNS], ids=["of the table", "of columns"])
def connection_string(request: pytest.FixtureRequest, postgres_database: PostgresDatabase) -> str:
    """For a login that has these rights alone."""
    role = f"least_of_{postgres_database.name}"
    postgres_database.execute(f"CREATE ROLE {role} LOGIN")
    postgres_database.execute(f"GRANT {request.param} ON robots TO {role}")
    return postgres_database.server.connection_string(postgres_database.name, user=role)


def test_callbacks_are_written(
    start_service: Callable[..., Service],
    connection_string: str,
    postgres_database: PostgresDatabase,
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=connection_string,
        SQL_SAM_PAYLOAD_COLUMN="payload",
        SQL_SAM_FINISHED_COLUMN="finished",
    )
    assert service.post(body("d-1", "DONE")).json()["outcome"] == "updated"
    assert service.post(body("d-unknown", "DONE")).json()["outcome"] == "unmatched"
    assert service.ready().json()["database"] == "up"
    assert postgres_database.statuses() == {"d-1": "DONE"}


FORBIDDEN = [
    "DELETE FROM robots",
    "INSERT INTO robots VALUES ('d-2', 'x')",
    "TRUNCATE robots",
    "DROP TABLE robots",
    "ALTER TABLE robots ADD COLUMN x TEXT",
    "CREATE TABLE other (x TEXT)",
    "SELECT * FROM others",
]


def test_nothing_else_can_be_done_with_that_login(
    connection_string: str, postgres_database: PostgresDatabase
) -> None:
    postgres_database.execute("CREATE TABLE others (x TEXT)")
    with closing(pyodbc.connect(connection_string, autocommit=True)) as connection:
        for statement in FORBIDDEN:
            with pytest.raises(pyodbc.Error, match=r"permission denied|must be owner"):
                connection.execute(statement)
