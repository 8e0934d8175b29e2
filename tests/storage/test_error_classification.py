"""Error classification (rule 5): permanent or transient for the row, or the database's.

The tables are checked against what the drivers really answer, where the database can be run here;
SQL Server's by messages in the form that Microsoft's driver gives them.
"""

from contextlib import closing

import pyodbc
import pytest

from sam.callback.storage.errors import (
    ErrorClass,
    advice_on,
    is_connection_lost,
    native_numbers_of,
)
from sam.callback.storage.odbc.dialects import OTHER, POSTGRESQL, SQL_SERVER, SQLITE, dialect_of
from tests.support.databases import PostgresDatabase, SqliteDatabase

PERMANENT, TRANSIENT = ErrorClass.PERMANENT, ErrorClass.TRANSIENT
DATABASE, UNKNOWN = ErrorClass.DATABASE, ErrorClass.UNKNOWN


def sql_server_error(sqlstate: str, *records: tuple[str, int]) -> pyodbc.Error:
    """An error as pyodbc makes one of the diagnostic records of Microsoft's driver."""
    text = "; ".join(
        f"[{sqlstate}] [Microsoft][ODBC Driver 18 for SQL Server][SQL Server]{message} ({number})"
        " (SQLExecDirectW)"
        for message, number in records
    )
    return pyodbc.Error(sqlstate, text)


@pytest.mark.parametrize(
    ("sqlstate", "number", "expected"),
    [
        ("22001", 2628, PERMANENT),
        ("22001", 8152, PERMANENT),
        ("42000", 8114, PERMANENT),
        ("42000", 8169, PERMANENT),
        ("22003", 8115, PERMANENT),
        ("22018", 245, PERMANENT),
        ("23000", 2627, PERMANENT),
        ("23000", 2601, PERMANENT),
        ("23000", 547, PERMANENT),
        ("23000", 515, PERMANENT),
        ("40001", 1205, TRANSIENT),
        ("42000", 1222, TRANSIENT),
        ("HYT00", 1222, TRANSIENT),
        ("42000", 3960, TRANSIENT),
        ("HYT00", 0, TRANSIENT),
        ("42S02", 208, DATABASE),
        ("42000", 208, DATABASE),
        ("42S22", 207, DATABASE),
        ("42000", 229, DATABASE),
        ("42000", 4060, DATABASE),
        ("28000", 18456, DATABASE),
        ("42000", 40501, DATABASE),
        ("42000", 10928, DATABASE),
        ("42000", 40613, DATABASE),
        ("42000", 976, DATABASE),
        ("42000", 983, DATABASE),
        ("42000", 9002, DATABASE),
        ("08S01", 0, DATABASE),
        ("HY000", 50000, UNKNOWN),
    ],
)
def test_sql_server(sqlstate: str, number: int, expected: ErrorClass) -> None:
    assert SQL_SERVER.classify(sql_server_error(sqlstate, ("Something.", number))) is expected


def test_the_first_number_that_tells_something_counts() -> None:
    error = sql_server_error(
        "22001", ("String or binary data would be truncated.", 2628), ("Terminated.", 3621)
    )
    assert native_numbers_of(error) == [2628, 3621]
    assert SQL_SERVER.classify(error) is PERMANENT


def test_a_value_that_is_quoted_cannot_pass_for_an_outage() -> None:
    error = sql_server_error("42000", ("Cannot convert 'x (208) (SQLExecDirectW)'.", 8114))
    assert SQL_SERVER.classify(error) is PERMANENT


def test_numbers_mean_nothing_in_another_database() -> None:
    error = sql_server_error("HY000", ("Something.", 208))
    assert OTHER.classify(error) is UNKNOWN


UPDATE = 'UPDATE robots SET status = ? WHERE "deploymentId" = ?'


@pytest.mark.parametrize(
    ("prepare", "statement", "status", "expected"),
    [
        ("SELECT 1", UPDATE, "x" * 65, PERMANENT),
        ("SELECT 1", UPDATE, None, PERMANENT),
        ("DROP TABLE robots", UPDATE, "RUN", DATABASE),
        ("SELECT 1", UPDATE.replace("status", "nope"), "RUN", DATABASE),
        (
            (
                "CREATE TRIGGER t BEFORE UPDATE ON robots"
                " BEGIN SELECT RAISE(ABORT, 'not on Sundays'); END"
            ),
            UPDATE,
            "RUN",
            PERMANENT,
        ),
    ],
)
def test_sqlite(
    prepare: str,
    statement: str,
    status: str,
    expected: ErrorClass,
    sqlite_database: SqliteDatabase,
) -> None:
    sqlite_database.execute(prepare)
    with closing(pyodbc.connect(sqlite_database.connection_string)) as connection:
        assert dialect_of(connection) is SQLITE
        with pytest.raises(pyodbc.Error) as caught:
            connection.execute(statement, status, "d-1")
    assert SQLITE.classify(caught.value) is expected


def test_sqlite_a_lock_is_the_whole_files(sqlite_database: SqliteDatabase) -> None:
    with (
        closing(pyodbc.connect(sqlite_database.connection_string)) as other,
        closing(pyodbc.connect(sqlite_database.waiting_for_locks(50))) as connection,
    ):
        other.execute(UPDATE, "RUN", "d-1")
        with pytest.raises(pyodbc.Error, match="database is locked") as caught:
            connection.execute(UPDATE, "RUN", "d-1")
    assert SQLITE.classify(caught.value) is DATABASE
    assert "lock" in advice_on(caught.value)


def postgres_error(
    database: PostgresDatabase, *statements: str, status: str = "RUN"
) -> pyodbc.Error:
    with closing(pyodbc.connect(database.connection_string)) as connection:
        assert dialect_of(connection) is POSTGRESQL
        for statement in statements[:-1]:
            connection.execute(statement)
        with pytest.raises(pyodbc.Error) as caught:
            connection.execute(statements[-1], status, "d-1")
    return caught.value


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (('ALTER TABLE robots ALTER "deploymentId" TYPE uuid USING NULL', UPDATE), PERMANENT),
        (("DROP TABLE robots", UPDATE), DATABASE),
        ((UPDATE.replace("status", "nope"),), DATABASE),
        (("SET TRANSACTION READ ONLY", UPDATE), DATABASE),
        (("CREATE ROLE other", "SET ROLE other", UPDATE), DATABASE),
        (("SELECT pg_terminate_backend(pg_backend_pid()), ?, ?",), DATABASE),
    ],
)
def test_postgresql(
    statements: tuple[str, ...], expected: ErrorClass, postgres_database: PostgresDatabase
) -> None:
    assert POSTGRESQL.classify(postgres_error(postgres_database, *statements)) is expected


def test_postgresql_a_value_that_is_too_long(postgres_database: PostgresDatabase) -> None:
    error = postgres_error(postgres_database, UPDATE, status="x" * 65)
    assert POSTGRESQL.classify(error) is PERMANENT


def test_postgresql_a_locked_row_is_transient(postgres_database: PostgresDatabase) -> None:
    with (
        closing(pyodbc.connect(postgres_database.connection_string)) as other,
        closing(pyodbc.connect(postgres_database.connection_string)) as connection,
    ):
        other.execute(UPDATE, "RUN", "d-1")
        connection.execute("SET lock_timeout = 50")
        with pytest.raises(pyodbc.Error) as caught:
            connection.execute(UPDATE, "RUN", "d-1")
    assert POSTGRESQL.classify(caught.value) is TRANSIENT


def test_postgresql_a_connection_that_was_cut_is_lost(postgres_database: PostgresDatabase) -> None:
    with closing(pyodbc.connect(postgres_database.connection_string)) as connection:
        [pid] = connection.execute("SELECT pg_backend_pid()").fetchone()
        postgres_database.execute("SELECT pg_terminate_backend(?)", pid)
        with pytest.raises(pyodbc.Error) as caught:
            connection.execute(UPDATE, "RUN", "d-1")
    assert POSTGRESQL.classify(caught.value) is DATABASE
    assert is_connection_lost(caught.value)


@pytest.mark.parametrize(
    ("sqlstate", "number", "advice"),
    [
        ("28000", 18456, "SQL_SAM_PASSWORD"),
        ("42000", 4060, "SQL_SAM_DATABASE"),
        ("42S02", 208, "SQL_SAM_TABLE"),
        ("42S22", 207, "COLUMN"),
        ("42000", 229, "Grant"),
        ("08001", 0, "SQL_SAM_SERVER"),
        ("HYT00", 0, "SQL_SAM_SERVER"),
    ],
)
def test_the_operator_is_told_what_to_do(sqlstate: str, number: int, advice: str) -> None:
    assert advice in advice_on(sql_server_error(sqlstate, ("Something.", number)))
