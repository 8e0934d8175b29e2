"""Connection settings: a database, and the limits of the connections to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from sam.callback.settings import Settings
from sam.callback.storage.errors import SAM_ADVICE, Advice
from sam.callback.storage.odbc.connection_string import ConnectionString, connection_string
from sam.callback.storage.odbc.dialects import Dialect
from sam.callback.storage.statements import RobotsTable


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Settings of the connections to one database.

    Attributes:
        connection_string: The database.
        table: The table that each new connection describes.
        size: The most connections in use at a time.
        login_timeout: Seconds for the login.
        timeout: Seconds for a statement; a lock is waited for a quarter of it.
        query_timeout: Seconds after which the driver ends a statement, if it knows how to; None is
            `timeout`.
        session_setup: Statements for every new connection, by dialect, beside the dialect's own.
        needs_description: Whether a connection is of use only where the table can be described.
        advice: What an operator can do about errors.
    """

    connection_string: ConnectionString
    table: RobotsTable
    size: int
    login_timeout: float
    timeout: float
    query_timeout: float | None = None
    session_setup: Mapping[Dialect, str] = field(default_factory=dict)
    needs_description: bool = True
    advice: Advice = SAM_ADVICE

    @classmethod
    def of_sam(cls, settings: Settings) -> Self:
        """Return those of SAM's database.

        Raises:
            DriverNotFoundError: If the driver it needs is not on this machine.
            ConnectionStringError: If SQL_SAM_SERVER or SQL_SAM_CONNECTION_STRING cannot be read.
        """
        return cls(
            connection_string(settings),
            RobotsTable.of(settings),
            size=settings.sql_sam_pool_max,
            login_timeout=settings.sql_sam_login_timeout,
            timeout=settings.callback_db_timeout,
        )
