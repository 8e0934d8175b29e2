"""What differs between the databases that the service can write to."""

from dataclasses import dataclass

import pyodbc


@dataclass(frozen=True, slots=True)
class Dialect:
    """One database's ways.

    Attributes:
        opening_quote: What stands before a quoted identifier.
        closing_quote: What stands after it; doubled inside.
        session_setup: Statements for every new connection.
        lock_timeout: The statement that sets how long to wait for another's lock, in ``{ms}``.
        has_query_timeout: Whether its driver knows a time limit per statement.
        may_count_none: Whether "no row" may mean "not counted".
        cuts_uuids: Whether it takes what begins with a UUID for that UUID, in a column of UUIDs.
        takes_several: Whether its drivers take several statements in one execute, and give the
            count of each.
    """

    opening_quote: str = '"'
    closing_quote: str = '"'
    session_setup: tuple[str, ...] = ()
    lock_timeout: str = ""
    has_query_timeout: bool = False
    may_count_none: bool = False
    cuts_uuids: bool = False
    takes_several: bool = False

    def quote(self, name: str) -> str:
        """Quote an identifier, each part of a dotted one by itself."""
        closing = self.closing_quote
        return ".".join(
            self.opening_quote + part.replace(closing, closing * 2) + closing
            for part in name.split(".")
        )


SQL_SERVER = Dialect(
    opening_quote="[",
    closing_quote="]",
    # A server whose default is NOCOUNT ON would hide how many rows an UPDATE met.
    # XACT_ABORT stays as it is: an error rolls back here whatever it is.
    session_setup=("SET NOCOUNT OFF",),
    lock_timeout="SET LOCK_TIMEOUT {ms}",
    has_query_timeout=True,
    # With NOCOUNT ON, FreeTDS gives 0 where Microsoft's driver gives -1 (seen with 1.3 and 18.6).
    may_count_none=True,
    cuts_uuids=True,
    takes_several=True,
)
POSTGRESQL = Dialect(
    lock_timeout="SET lock_timeout = {ms}",
    takes_several=True,
)
# Its lock time-out is "Timeout" (ms) in the connection string: the driver waits in a loop of its
# own, which PRAGMA busy_timeout does not touch (seen with libsqliteodbc 0.9998).
# Backquotes, as SQLite takes an unknown name in double quotes for a string.
SQLITE = Dialect(
    opening_quote="`",
    closing_quote="`",
    # KiB. With its own 2 MiB the pages of a large table were read anew for each row: callbacks took
    # 1.26 times as long with ten million rows as with a thousand, and 1.06 times with this.
    session_setup=("PRAGMA cache_size = -16384",),
)
OTHER = Dialect()

_BY_DBMS_NAME = {
    "Microsoft SQL Server": SQL_SERVER,
    "PostgreSQL": POSTGRESQL,
    "SQLite": SQLITE,
}


def dialect_of(connection: pyodbc.Connection) -> Dialect:
    """Tell the dialect by what the driver calls its database (``SQLGetInfo(SQL_DBMS_NAME)``)."""
    return _BY_DBMS_NAME.get(connection.getinfo(pyodbc.SQL_DBMS_NAME), OTHER)
