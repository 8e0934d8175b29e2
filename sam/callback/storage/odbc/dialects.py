"""SQL dialects: statements, types and errors of each database."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple

import pyodbc

from sam.callback.storage.errors import (
    ErrorClass,
    NativeErrors,
    classify,
    describe,
    is_connection_lost,
    native_numbers_of,
)
from sam.callback.storage.key_rule import EXACT, KeyRule
from sam.callback.storage.parameters import ColumnType

_UUID: Final = "abcdefab-cdef-4bcd-8fab-cdefabcdefab"
_UUID_SPELLINGS: Final = (_UUID.upper(), f"{{{_UUID}}}")
_WORD: Final = "aé"
_WORD_SPELLINGS: Final = ("aÉ", "ae", "ａé")


class TableDescription(NamedTuple):
    """The table as the database sees it.

    Attributes:
        key_rule: Which ids it takes for the same.
        types: Those that values are bound by, by column; none in a dialect that leaves that to the
            driver.
        unknown: Why the types are not known; '' if they are, or are not asked for.
    """

    key_rule: KeyRule
    types: Mapping[str, ColumnType] = {}
    unknown: str = ""


class Dialect:
    """A database's ways; where nothing else is said, those of the SQL standard.

    Attributes:
        quotes: What stands before and after a quoted identifier; the latter is doubled inside.
        session_setup: Statements for every new connection.
        lock_timeout: The statement that sets how long to wait for another's lock, in ``{ms}``.
        has_query_timeout: Whether its driver knows a time limit per statement.
        has_row_locks: Whether a lock, and so its time-out, may be one row's alone.
        binds_by_column: Whether values are bound by the types of their columns.
        supports_multi_statement: Whether its drivers take several statements in one execute, and
            give the count of each.
        has_table_statistics: Whether SQLStatistics has a line of every table, with no index too.
        durability_query: Tells ``FORCED`` where a COMMIT need not be on disk.
        native_errors: The meaning of native error numbers. A message can quote a refused value, and
            so hold any number: the class that stands first wins.
    """

    quotes: tuple[str, str] = ('"', '"')
    session_setup: tuple[str, ...] = ()
    lock_timeout: str = ""
    has_query_timeout: bool = False
    has_row_locks: bool = True
    binds_by_column: bool = False
    supports_multi_statement: bool = False
    has_table_statistics: bool = False
    durability_query: str = ""
    native_errors: ClassVar[NativeErrors] = {}

    def quote(self, name: str) -> str:
        """Quote an identifier, each part of a dotted one by itself."""
        before, after = self.quotes
        return ".".join(before + part.replace(after, after * 2) + after for part in name.split("."))

    def select_none(self, table: str, columns: Iterable[str] = ()) -> str:
        """Return a SELECT of columns that meets no row: it shows that they are there."""
        names = ", ".join(map(self.quote, columns)) or "1"
        return f"SELECT {names} FROM {self.quote(table)} WHERE 1 = 0"  # noqa: S608 - checked, quoted

    def classify(self, error: pyodbc.Error) -> ErrorClass:
        """Return the class of an error that a statement met; connecting is always `DATABASE`."""
        return classify(error, self.native_errors)

    def read_columns(
        self, cursor: pyodbc.Cursor, table: str, names: Sequence[str]
    ) -> dict[str, ColumnType]:
        """Ask the catalogue for the types of columns.

        Returns:
            What the catalogue tells, by name; nothing for what it does not tell.

        Raises:
            pyodbc.Error: If it cannot be asked.
        """
        *owner, table_name = table.split(".")
        # Its arguments are patterns, in which "_" is any character: all that comes is compared.
        found = [
            row
            for row in cursor.columns(
                table=table_name,
                catalog=owner[0] if len(owner) > 1 else None,
                schema=owner[-1] if owner else None,
            )
            if row.table_name.casefold() == table_name.casefold()
        ]
        columns = {}
        for name in names:
            same = [row for row in found if row.column_name.casefold() == name.casefold()]
            for row in sorted(same, key=lambda row: row.column_name != name)[:1]:
                kind, has_size, _ = row.type_name.lower().partition("(")
                is_text = has_size or "char" in kind
                columns[name] = ColumnType(kind, (is_text and row.column_size) or None)
        return columns

    def describe(
        self, cursor: pyodbc.Cursor, table: str, columns: Sequence[str]
    ) -> TableDescription:
        """Ask for the types that values are bound by, and for the key rule.

        Args:
            cursor: On the database.
            table: The table.
            columns: Those that an index or a plan depends on, that of the ids first.

        Raises:
            pyodbc.Error: If the table cannot be read. Without the rule or, where another try may
                tell them, the types, a write could meet another deployment's row.
        """
        return TableDescription(self._compare(cursor, table, columns[0]))

    def _compare(self, cursor: pyodbc.Cursor, table: str, column: str) -> KeyRule:
        """Let the database compare spellings, as values of the column's type and collation.

        It needs no right that the UPDATE does not. A catalogue would have to be asked for types,
        domains, views and collations, and differs from one database to the next. Here no row is
        read, and nothing is bound: the texts are constants.
        """
        key = self.quote(column)

        def compare(value: str, spellings: tuple[str, ...]) -> list[bool]:
            equal = ", ".join(f"CASE WHEN k = '{each}' THEN 1 ELSE 0 END" for each in spellings)
            row = cursor.execute(
                f"SELECT {equal} FROM (SELECT {key} AS k FROM {self.quote(table)}"  # noqa: S608 - checked, quoted
                f" WHERE 1 = 0 UNION ALL SELECT '{value}') AS probe"
            ).fetchone()
            return [bool(each) for each in row]

        is_case, is_uuid = compare(_UUID, _UUID_SPELLINGS)
        if is_uuid:
            return KeyRule(uuid=True)
        try:
            case, accents, width = compare(_WORD, _WORD_SPELLINGS)
        except pyodbc.DataError:  # the database's encoding does not have these letters
            return KeyRule(case=is_case, accents=True, width=True)
        return KeyRule(ascii_case=is_case and not case, case=case, accents=accents, width=width)


class _SqlServer(Dialect):
    quotes = ("[", "]")
    # A server whose default is NOCOUNT ON would hide how many rows an UPDATE met.
    # XACT_ABORT stays as it is: an error rolls back here whatever it is.
    session_setup: tuple[str, ...] = ("SET NOCOUNT OFF",)
    lock_timeout = "SET LOCK_TIMEOUT {ms}"
    has_query_timeout = True
    binds_by_column = True
    supports_multi_statement = True
    has_table_statistics = True
    durability_query = (
        "SELECT delayed_durability_desc FROM sys.databases WHERE database_id = DB_ID()"
    )
    # "Database Engine events and errors"
    native_errors: ClassVar[NativeErrors] = {
        ErrorClass.PERMANENT: {
            241,  # conversion to date or time failed
            245,  # conversion failed
            515,  # NULL into a column that refuses it
            547,  # constraint
            2601,  # unique index
            2627,  # unique constraint
            2628,  # value too long (names the column)
            8114,  # converting a data type
            8115,  # arithmetic overflow
            8152,  # value too long
            8169,  # not a uniqueidentifier
        },
        ErrorClass.TRANSIENT: {
            1205,  # deadlock victim
            1222,  # lock time-out
            3960,  # snapshot update conflict
        },
        ErrorClass.DATABASE: {
            207,  # no such column
            208,  # no such table
            229,  # permission on the table
            230,  # permission on the column
            701,  # out of memory
            916,  # the login may not use this database
            924,  # single-user mode
            976,  # availability group: not accessible
            983,  # availability group: role is changing
            1105,  # filegroup full
            3906,  # database is read-only
            4060,  # no such database
            9002,  # log full
            10928,  # Azure: resource limit
            10929,  # Azure: resource limit
            18452,  # login from an untrusted domain
            18456,  # login failed
            18470,  # login disabled
            18486,  # login locked
            18487,  # password expired
            18488,  # password must be changed
            40197,  # Azure: error while processing, connection is lost
            40501,  # Azure: busy
            40613,  # Azure: database not available
        },
    }
    _first_user_error = 50_000  # RAISERROR and THROW, say in a trigger; all with SQLSTATE 42000
    # It resolves synonyms, views, default schemas and types of one's own as a statement would, and
    # needs no right but SELECT ("sys.dm_exec_describe_first_result_set", 2012 and later).
    _describe = (
        "SELECT system_type_name, max_length, collation_name "
        "FROM sys.dm_exec_describe_first_result_set(?, NULL, 0) "
        "WHERE system_type_name IS NOT NULL ORDER BY column_ordinal"
    )

    def classify(self, error: pyodbc.Error) -> ErrorClass:
        if any(number >= self._first_user_error for number in native_numbers_of(error)):
            return ErrorClass.UNKNOWN
        return super().classify(error)

    def read_columns(
        self, cursor: pyodbc.Cursor, table: str, names: Sequence[str]
    ) -> dict[str, ColumnType]:
        rows = cursor.execute(self._describe, self.select_none(table, names)).fetchall()
        if len(rows) != len(names):  # it answers with one row that says what is wrong
            return {}
        return {
            name: self._column(type_name.lower(), max_length, collation or "")
            for name, (type_name, max_length, collation) in zip(names, rows, strict=True)
        }

    @staticmethod
    def _column(type_name: str, max_length: int, collation: str) -> ColumnType:
        """Make one of ``varchar(64)`` and the bytes that it holds; -1 is ``max``."""
        kind, has_size, size = type_name.rstrip(")").partition("(")
        if kind.startswith("datetime"):
            return ColumnType(kind, int(size) if size.isdigit() else None)
        if not has_size or max_length <= 0:
            return ColumnType(kind, None, collation)
        bytes_each = 2 if kind in {"nchar", "nvarchar"} else 1
        return ColumnType(kind, max_length // bytes_each, collation)

    def describe(
        self, cursor: pyodbc.Cursor, table: str, columns: Sequence[str]
    ) -> TableDescription:
        unknown = "The catalogue does not tell."
        try:
            types = self.read_columns(cursor, table, columns)
        except pyodbc.Error as error:
            if is_connection_lost(error) or self.classify(error) is ErrorClass.TRANSIENT:
                raise
            types, unknown = {}, describe(error)
        if not types:
            return TableDescription(self._compare(cursor, table, columns[0]), {}, unknown)
        of_key = types[columns[0]]
        if of_key.is_uuid:
            return TableDescription(KeyRule(uuid=True), types)
        rule = KeyRule.of_collation(of_key.collation) if of_key.collation else EXACT
        return TableDescription(rule, types)


class _PostgreSql(Dialect):
    # A client that was stopped or cut off in a transaction holds rows that others wait for, and the
    # lock of the replay, until TCP notices, after two hours by default: it has 3 s (in ms) to go
    # on. Releases before 9.6, and products derived from them, have no such setting.
    session_setup: tuple[str, ...] = (
        (
            "SELECT set_config(name, '3000', false) FROM pg_settings "
            "WHERE name = 'idle_in_transaction_session_timeout'"
        ),
    )
    lock_timeout = "SET lock_timeout = {ms}"
    supports_multi_statement = True
    # psqlODBC tells 255 of a varchar without a bound; this is the type as SQL writes it.
    _format_types = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = CAST(? AS regclass) AND attnum > 0"
    )
    _short_names: ClassVar = {"character varying": "varchar", "character": "char"}

    def read_columns(
        self, cursor: pyodbc.Cursor, table: str, names: Sequence[str]
    ) -> dict[str, ColumnType]:
        found = dict(cursor.execute(self._format_types, self.quote(table)).fetchall())
        columns = {}
        for name in filter(found.__contains__, names):
            kind, _, size = found[name].rstrip(")").partition("(")
            kind = self._short_names.get(kind, kind)
            has_size = size.isdigit() and "char" in kind
            columns[name] = ColumnType(kind, int(size) if has_size else None)
        return columns


class _Sqlite(Dialect):
    # Backquotes, as SQLite takes an unknown name in double quotes for a string.
    quotes = ("`", "`")
    # KiB. With its own 2 MiB the pages of a large table were read anew for each row: callbacks took
    # 1.26 times as long with ten million rows as with a thousand, and 1.06 times with this.
    session_setup: tuple[str, ...] = ("PRAGMA cache_size = -16384",)
    # The lock time-out is "Timeout" (ms) in the connection string: the driver waits in a loop of
    # its own, which PRAGMA busy_timeout does not touch (seen with libsqliteodbc 0.9998).
    has_row_locks = False
    # "Result and Error Codes"
    native_errors: ClassVar[NativeErrors] = {
        ErrorClass.PERMANENT: {
            18,  # SQLITE_TOOBIG
            19,  # SQLITE_CONSTRAINT
            20,  # SQLITE_MISMATCH
        },
        ErrorClass.DATABASE: {
            1,  # SQLITE_ERROR: the statement is ours, so a table or a column is missing
            3,  # SQLITE_PERM
            5,  # SQLITE_BUSY
            6,  # SQLITE_LOCKED
            7,  # SQLITE_NOMEM
            8,  # SQLITE_READONLY
            10,  # SQLITE_IOERR
            11,  # SQLITE_CORRUPT
            13,  # SQLITE_FULL
            14,  # SQLITE_CANTOPEN
            17,  # SQLITE_SCHEMA
            26,  # SQLITE_NOTADB
        },
    }


SQL_SERVER: Final = _SqlServer()
POSTGRESQL: Final = _PostgreSql()
SQLITE: Final = _Sqlite()
OTHER: Final = Dialect()

_BY_DBMS_NAME: Final = {
    "Microsoft SQL Server": SQL_SERVER,
    "PostgreSQL": POSTGRESQL,
    "SQLite": SQLITE,
}


def dialect_of(connection: pyodbc.Connection) -> Dialect:
    """Tell the dialect by what the driver calls its database (``SQLGetInfo(SQL_DBMS_NAME)``)."""
    return _BY_DBMS_NAME.get(connection.getinfo(pyodbc.SQL_DBMS_NAME), OTHER)
