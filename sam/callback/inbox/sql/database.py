"""The shared inbox's database: how to connect to it, and how its table is made."""

from typing import Final

from sam.callback.inbox.sql.schema import script
from sam.callback.inbox.sql.statements import require_dialect
from sam.callback.settings import SettingsError, SpoolSettings
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import Advice
from sam.callback.storage.odbc.connection_string import read_connection_string
from sam.callback.storage.odbc.dialects import POSTGRESQL, Dialect
from sam.callback.storage.statements import RobotsTable

CONNECT_SECONDS: Final = 2.0
"""Time limit of connecting to one host: after a failover, the first of several may be silent."""

LONG_SECONDS: Final = 60.0
"""What making, reading or changing all of the table may take."""

_VARIABLE: Final = "CALLBACK_INBOX_CONNECTION_STRING"
_ADVICE: Final = Advice(
    server=f"Check {_VARIABLE}, that the server runs, and that a firewall lets this host through.",
    login=f"Check {_VARIABLE}.",
    certificate="Install the authority that signed the server's certificate here.",
    database=f"Check {_VARIABLE}, and that the login may use it.",
    table="Run `python -m sam.callback inbox init`, or check CALLBACK_INBOX_TABLE.",
    columns="CALLBACK_INBOX_TABLE names another table.",
    grant="Grant the login SELECT, INSERT, UPDATE and DELETE on the table, and SELECT and UPDATE "
    "on that of its version.",
)
# A plan is kept that was made when the table was empty, and it may fill in a minute.
_SESSION_SETUP: Final[dict[Dialect, str]] = {POSTGRESQL: "SET enable_seqscan = off"}


def connection_settings(settings: SpoolSettings, size: int = 1) -> ConnectionSettings:
    """Return those of the inbox's database.

    Args:
        settings: Of the inbox.
        size: The most connections.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If there is no connection string, or it cannot be read.
    """
    secret = settings.callback_inbox_connection_string
    if secret is None:
        raise SettingsError(f"{_VARIABLE} is not set: there is no shared inbox.")
    return ConnectionSettings(
        read_connection_string(secret.get_secret_value(), _VARIABLE),
        RobotsTable(settings.callback_inbox_table, key="entry_key", status="status"),
        size=size,
        login_timeout=CONNECT_SECONDS,
        timeout=settings.callback_inbox_timeout,
        query_timeout=LONG_SECONDS,  # who waits for less gives up by itself
        session_setup=_SESSION_SETUP,
        needs_description=False,
        advice=_ADVICE,
    )


async def make_table(settings: SpoolSettings) -> str:
    """Make the inbox's table, where it is not there yet; return the database's product.

    Raises:
        DatabaseUnavailableError: If that cannot be done.
        SchemaError: If the inbox does not know the product.
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If the connection string is none.
    """

    def work(connection: DatabaseConnection) -> str:
        require_dialect(connection.dialect)
        name = "postgresql" if connection.dialect is POSTGRESQL else "sqlserver"
        cursor = connection.cursor
        cursor.execute(script(name, settings.callback_inbox_table, connection.dialect.quote))
        while cursor.nextset():
            pass
        connection.commit()
        return f"{connection.identity.database} {connection.identity.database_version}"

    connector = DatabaseConnector(connection_settings(settings))
    await connector.open()
    try:
        return await connector.run(work, timeout=LONG_SECONDS)
    finally:
        await connector.close()
