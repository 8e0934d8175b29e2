"""Prints a deployment's status: past the service, with its settings and its driver."""

import sys
from contextlib import closing

import pyodbc

from sam.callback.settings import Settings
from sam.callback.storage.odbc.connection_string import connection_string
from sam.callback.storage.odbc.dialects import dialect_of

settings = Settings.load()
with closing(pyodbc.connect(connection_string(settings).text, timeout=10)) as connection:
    table, deployment, status = map(
        dialect_of(connection).quote,
        (
            settings.sql_sam_table,
            settings.sql_sam_deployment_column,
            settings.sql_sam_status_column,
        ),
    )
    statement = f"SELECT {status} FROM {table} WHERE {deployment} = ?"  # noqa: S608 - quoted above
    row = connection.execute(statement, sys.argv[1]).fetchone()
print(row[0] if row else "no such row")
