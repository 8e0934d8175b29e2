"""A database connection as seen from the thread that works on it."""

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Final, Self

import pyodbc

from sam.callback.storage.binding import Binder
from sam.callback.storage.dialects import dialect_of
from sam.callback.storage.errors import as_connection_lost
from sam.callback.storage.statements import Statements, Table
from sam.callback.storage.table_info import read_table_info

LOCK_TIMEOUT_SHARE: Final = 0.25
"""The lock time-out as a share of CALLBACK_DB_TIMEOUT, so that the other rows have time left."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is connected with whom, as the driver tells it.

    Attributes:
        driver: The driver's library.
        driver_version: Its version.
        database: The database's product.
        database_version: Its version.
    """

    driver: str
    driver_version: str
    database: str
    database_version: str

    @classmethod
    def of(cls, connection: pyodbc.Connection) -> Self:
        """Ask the driver; it knows by itself, or since the login."""
        return cls(
            connection.getinfo(pyodbc.SQL_DRIVER_NAME),
            connection.getinfo(pyodbc.SQL_DRIVER_VER),
            connection.getinfo(pyodbc.SQL_DBMS_NAME),
            connection.getinfo(pyodbc.SQL_DBMS_VER),
        )


class Session:
    """A connection set up for its dialect, with one cursor that keeps a statement prepared.

    A cursor per batch would be simpler, and prepare anew each time: with psqlODBC 400 instead of
    245 microseconds per committed UPDATE on loopback, and a round trip more elsewhere.

    Args:
        connection: A fresh connection, autocommit off. It is closed if the set-up fails.
        table: SAM's table.
        timeout: CALLBACK_DB_TIMEOUT, which the session's time-outs follow.

    Attributes:
        identity: Who is connected with whom.
        statements: The table's, in this dialect.
        takes_several: Whether several of them may be executed as one.
        table_info: What the database tells of the table.
        binder: How values are bound.

    Raises:
        pyodbc.Error: If the set-up failed.
    """

    def __init__(self, connection: pyodbc.Connection, table: Table, timeout: float) -> None:
        self.connection = connection
        self._lock_timeout = timeout * LOCK_TIMEOUT_SHARE
        self._last_used = time.monotonic()
        self.dialect = dialect_of(connection)
        self.statements = Statements(table, self.dialect)
        self.takes_several = self.dialect.takes_several
        if self.dialect.has_query_timeout:
            # Before there is a cursor: each takes it over when it is made (pyodbc 5.5).
            connection.timeout = math.ceil(timeout)
        self.cursor = connection.cursor()
        try:
            self.identity = Identity.of(connection)
            self._set_up()
            self.table_info = read_table_info(self.cursor, table, self.dialect)
            self.binder = Binder(self.table_info.columns, cuts_uuids=self.dialect.cuts_uuids)
            connection.rollback()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        statements = [*self.dialect.session_setup, self._lock_timeout_of(self._lock_timeout)]
        try:
            if text := "; ".join(filter(None, statements)):
                self.cursor.execute(text)
            self.connection.commit()
        except pyodbc.Error as error:
            raise as_connection_lost(error) from error

    def wait_for_locks(self, seconds: float | None = None) -> None:
        """Set how long to wait for another's lock, in a dialect that can say so.

        Args:
            seconds: How long; None for what the session was made with.

        Raises:
            pyodbc.Error: If it failed.
        """
        text = self._lock_timeout_of(self._lock_timeout if seconds is None else seconds)
        # By a cursor of its own: the session's keeps its statement prepared.
        self.connection.execute(text).close()

    def _lock_timeout_of(self, seconds: float) -> str:
        return self.dialect.lock_timeout.format(ms=math.ceil(seconds * 1000))

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        is_closed: bool = self.connection.closed
        return is_closed

    @property
    def idle_seconds(self) -> float:
        """How long ago it was last used."""
        return time.monotonic() - self._last_used

    def used(self) -> None:
        """Note that it was used now."""
        self._last_used = time.monotonic()

    def close(self) -> None:
        """Close the cursor, then the connection, which may be closed or dead; undo open work.

        On the thread that has the session, and on no other: a cursor that outlives its connection
        raises when it is collected, and one that is collected meanwhile does too (pyodbc 5.5).
        """
        with contextlib.suppress(pyodbc.Error):
            self.cursor.close()
        with contextlib.suppress(pyodbc.Error):
            self.connection.close()
