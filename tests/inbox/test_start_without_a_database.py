"""A database that cannot be used does not stop the start; one CRITICAL line says what to do."""

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.support.databases import PostgresServer, SqliteDatabase
from tests.support.service import Service


def test_a_table_that_is_missing(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.execute("DROP TABLE robots")
    service = start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)

    line = service.wait_for_event("database_down")

    assert line["level"] == "critical"
    assert "no such table: robots" in line["reason"]
    assert line["reason"].endswith("Check SQL_SAM_TABLE.")


def test_a_server_that_refuses_the_connection(
    start_service: Callable[..., Service], postgres_server: PostgresServer
) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        service = start_service(
            SQL_SAM_CONNECTION_STRING=postgres_server.connection_string(
                "postgres", port=unused.getsockname()[1]
            )
        )
        line = service.wait_for_event("database_down")
    assert "Connection refused" in line["reason"]
    assert "Check SQL_SAM_SERVER" in line["reason"]


def test_with_only_sql_sam_variables_the_bundled_driver_is_found(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "odbcinst.ini").touch()
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        service = start_service(
            ODBCSYSINI=str(tmp_path),  # a machine where no driver is registered
            SQL_SAM_SERVER=f"127.0.0.1,{unused.getsockname()[1]}",
            SQL_SAM_DATABASE="sam",
            SQL_SAM_USER="sam",
            SQL_SAM_PASSWORD="hush-hush;}",
            SQL_SAM_LOGIN_TIMEOUT="1",
        )
        assert "mssql-python-odbc" in service.wait_for_event("driver")["reason"]
        line = service.wait_for_event("database_down")
    assert "ODBC Driver 18 for SQL Server" in line["reason"]
    assert "Check SQL_SAM_SERVER" in line["reason"]
