"""Statements of the shared inbox, in the dialects of PostgreSQL and SQL Server.

A batch is one parameter, as JSON: one round trip and one plan, however many entries it has. Both
products read it as rows (PostgreSQL's ``json_to_recordset``, SQL Server's ``OPENJSON``).
"""

# ruff: noqa: S608 - names are quoted, all else is bound

from functools import cache
from typing import Final

from sam.callback.inbox.sql.schema import version_table
from sam.callback.limits import MAX_DEPLOYMENT_ID_LENGTH, MAX_STATUS_LENGTH
from sam.callback.storage.odbc.dialects import POSTGRESQL, SQL_SERVER, Dialect

NEW: Final = 0
"""The line of live entries that were not tried yet."""

TRIED: Final = 1
"""The line of live entries that were tried in vain."""

APPLIED: Final = 2
"""The line of entries that are done. They are kept for a while: what a local spool still holds of
the same deployment is compared with them."""

FOR_OPERATOR: Final = 3
"""The line of dead letters and invalid bodies."""

APPLIED_KIND: Final = "applied"

PAGE_BYTES: Final = 2**24
"""What entries that are read together take, but for one that takes more: payloads may be large."""

PURGE_ROWS: Final = 5_000
"""How many entries that are done are deleted at a time."""

COLUMNS: Final = "number, kind, deployment_id, status, payload, reason, attempts, entry_key"

_VALUES: Final = (
    "entry_key, number, kind, deployment_id, status, payload, reason, size, line, attempts, due"
)
_REPLACED: Final = ("kind", "deployment_id", "status", "payload", "reason", "size", "line")
_FIELDS: Final = {
    "k": ("text", "nvarchar(400)"),
    "n": ("bigint", "bigint"),
    "kind": ("text", "varchar(16)"),
    "d": ("text", f"nvarchar({2 * MAX_DEPLOYMENT_ID_LENGTH})"),  # in UTF-16: two units each
    "s": ("text", f"nvarchar({2 * MAX_STATUS_LENGTH})"),
    "p": ("text", "varbinary(max)"),  # in base 64, which OPENJSON decodes by itself
    "r": ("text", "nvarchar(max)"),
    "z": ("bigint", "bigint"),
    "line": ("smallint", "smallint"),
    "a": ("integer", "int"),
    "w": ("bigint", "bigint"),
}
"""The members of an entry as JSON: the columns in their order, but for `w`, the ms until it is due
(none is at once)."""


class SchemaError(Exception):
    """The table cannot be used. The message says what to do."""


def require_dialect(dialect: Dialect) -> None:
    """Refuse a database that the inbox does not know.

    Raises:
        SchemaError: If it is one.
    """
    if dialect not in {POSTGRESQL, SQL_SERVER}:
        raise SchemaError("The shared inbox is a table of PostgreSQL, SQL Server or Azure SQL.")


class InboxStatements:
    """The statements in one dialect.

    Attributes:
        version: Reads the schema's version and the name of the key rule.
        replication: Reads what the catalogue tells of replication.
        touch: Writes what changes nothing: whether the database takes writes shows.
        set_key_rule: Notes the name of the key rule.
        put: Stores new callbacks. Each gets a number above that of the entry it replaces.
        move_in: Stores what has a number already: only a higher one replaces.
        look_up: Reads keys and numbers of the entries that there are of keys.
        settle: Changes entries by their keys and numbers, but those that are done.
        delete: Deletes entries by their keys and numbers.
        totals: Reads count, bytes, lowest and highest number of each kind.
        next_due: Reads in how many ms the next live entry is due; NULL if none waits.
        purge: Deletes what was applied longer than so many ms ago.
        unstick: Makes due what a clock that was set puts off for longer than so many ms.
        ids: Reads the key and the deployment's id of all entries that have one.
        get: Reads entries by their numbers.
        get_by_key: Reads entries by their keys, and their lines.
        is_postgresql: Whether the dialect is PostgreSQL's; else it is SQL Server's.

    Raises:
        SchemaError: If the inbox does not know this dialect.
    """

    def __init__(self, table: str, dialect: Dialect) -> None:
        require_dialect(dialect)
        self.is_postgresql = dialect is POSTGRESQL
        self._table = dialect.quote(table)
        self._pages: dict[tuple[str, int], str] = {}
        self._set_texts(dialect.quote(version_table(table)))

    def _set_texts(self, version: str) -> None:
        table, rows, now = self._table, self._rows, self._now
        self.version = f"SELECT version, key_rule FROM {version}"
        self.replication = (
            "SELECT current_setting('synchronous_commit'),"
            " current_setting('synchronous_standby_names')"
            if self.is_postgresql
            else "SELECT count(*), '' FROM sys.dm_hadr_database_replica_states"
            " WHERE database_id = DB_ID() AND is_local = 0 AND is_commit_participant = 1"
        )
        self.touch = f"UPDATE {version} SET version = version"
        self.set_key_rule = f"UPDATE {version} SET key_rule = ?"
        if self.is_postgresql:
            self.put = self._upsert_postgresql("greatest(excluded.number, old.number + 1)")
            self.move_in = (
                self._upsert_postgresql("excluded.number") + " WHERE excluded.number > old.number"
            )
            self.settle = (
                f"WITH e AS (SELECT * FROM {rows}), locked AS ("
                f"SELECT t.entry_key FROM {table} AS t JOIN e ON e.k = t.entry_key"
                f" AND e.n = t.number AND t.line <> {APPLIED}"
                " ORDER BY t.entry_key FOR UPDATE OF t) "
                f"UPDATE {table} AS t SET {self._changes} FROM e JOIN locked"
                " ON locked.entry_key = e.k WHERE t.entry_key = e.k AND t.number = e.n"
                f" AND t.line <> {APPLIED}"
            )
            self.delete = (
                f"DELETE FROM {table} AS t USING {rows} WHERE t.entry_key = e.k AND t.number = e.n"
            )
            self.purge = (
                f"DELETE FROM {table} WHERE entry_key IN (SELECT entry_key FROM {table}"
                f" WHERE line = {APPLIED} AND due < {now} - ? ORDER BY due"
                f" LIMIT {PURGE_ROWS} FOR UPDATE SKIP LOCKED)"
            )
        else:
            self.put = self._merge("CASE WHEN e.n > t.number THEN e.n ELSE t.number + 1 END")
            self.move_in = self._merge("e.n", only_if=" AND e.n > t.number")
            joined = (
                f"FROM {table} AS t JOIN {rows} ON t.entry_key = {self._key} AND t.number = e.n"
            )
            self.settle = f"UPDATE t SET {self._changes} {joined} WHERE t.line <> {APPLIED}"
            self.delete = f"DELETE t {joined}"
            self.purge = (
                f"DELETE TOP ({PURGE_ROWS}) FROM {table} WITH (READPAST)"
                f" WHERE line = {APPLIED} AND due < {now} - ?"
            )
        self.look_up = (
            f"SELECT t.entry_key, t.number FROM {table} AS t JOIN {rows}"
            f" ON t.entry_key = {self._key} WHERE t.line <> {APPLIED}"
        )
        self.totals = (
            f"SELECT kind, count(*), sum(size), min(number), max(number) FROM {table} GROUP BY kind"
        )
        self.next_due = f"SELECT min(due) - {now} FROM (" + (
            " UNION ALL ".join(
                f"SELECT min(due) AS due FROM {table} WHERE line = {line}" for line in (NEW, TRIED)
            )
            + ") AS first"
        )
        self.unstick = (
            f"UPDATE {table} SET due = 0 WHERE line IN ({NEW}, {TRIED}) AND due > {now} + ?"
        )
        self.ids = f"SELECT entry_key, deployment_id FROM {table} WHERE deployment_id IS NOT NULL"
        self.get = (
            f"SELECT {_of('t')} FROM {table} AS t JOIN {rows} ON t.number = e.n"
            f" WHERE t.line <> {APPLIED} ORDER BY t.number"
        )
        self.get_by_key = (
            f"SELECT {_of('t')}, t.line FROM {table} AS t JOIN {rows} ON t.entry_key = {self._key}"
        )

    def due(self, lines: int) -> str:
        """Return the SELECT of what is due in so many lines, the first before the second.

        Its parameters are a line and a limit for each, the first line, and the limit of all.
        """
        return self._page(
            f"line = ? AND due <= {self._now} ORDER BY due, number",
            lines,
            "CASE WHEN line = ? THEN 0 ELSE 1 END, due, number, entry_key",
        )

    def page(self, kinds: int) -> str:
        """Return the SELECT of entries of so many kinds above a number.

        Its parameters are a kind, the number and a limit for each, and the limit of all.
        """
        return self._page("kind = ? AND number > ? ORDER BY number", kinds, "number, entry_key")

    def _page(self, condition: str, parts: int, order: str) -> str:
        """Return a SELECT of the first of several parts of the table, each read by its index.

        The same text is returned as the same object, which pyodbc prepares once.
        """
        text = self._pages.get((condition, parts))
        if text is None:
            part = (
                f"SELECT * FROM (SELECT entry_key, number, size, line, due FROM {self._table}"
                f" WHERE {condition} OFFSET 0 ROWS FETCH NEXT ? ROWS ONLY) AS part"
            )
            text = (
                f"WITH picked AS ({' UNION ALL '.join([part] * parts)}), placed AS ("
                f"SELECT entry_key, number, row_number() OVER (ORDER BY {order}) AS place"
                ", size FROM picked), bounded AS (SELECT entry_key, number, place,"
                " sum(size) OVER (ORDER BY place) AS total FROM placed) "
                f"SELECT {_of('t')} FROM bounded AS b JOIN {self._table} AS t"
                " ON t.entry_key = b.entry_key AND t.number = b.number"
                f" WHERE b.place <= ? AND (b.place = 1 OR b.total <= {PAGE_BYTES})"
                " ORDER BY b.place"
            )
            self._pages[condition, parts] = text
        return text

    @property
    def _now(self) -> str:
        """The server's time in ms since 1970."""
        if self.is_postgresql:
            return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
        return "DATEDIFF_BIG(millisecond, '1970-01-01', SYSUTCDATETIME())"

    @property
    def _rows(self) -> str:
        """The parameter as rows."""
        place = 0 if self.is_postgresql else 1
        members = ", ".join(f"{name} {types[place]}" for name, types in _FIELDS.items())
        if self.is_postgresql:
            return f"json_to_recordset(CAST(? AS json)) AS e ({members})"
        return f"OPENJSON(?) WITH ({members}) AS e"

    @property
    def _key(self) -> str:
        return "e.k" if self.is_postgresql else "e.k COLLATE Latin1_General_100_BIN2"

    @property
    def _selected(self) -> str:
        payload = "decode(e.p, 'base64')" if self.is_postgresql else "e.p"
        due = f"CASE WHEN e.w IS NULL THEN 0 ELSE {self._now} + e.w END"
        return f"e.k, e.n, e.kind, e.d, e.s, {payload}, e.r, e.z, e.line, e.a, {due}"

    @property
    def _changes(self) -> str:
        return (
            "kind = coalesce(e.kind, t.kind), reason = coalesce(e.r, t.reason), line = e.line,"
            f" attempts = e.a, due = CASE WHEN e.w IS NULL THEN 0 ELSE {self._now} + e.w END,"
            f" payload = CASE WHEN e.kind = '{APPLIED_KIND}' THEN NULL ELSE t.payload END"
        )

    def _upsert_postgresql(self, number: str) -> str:
        replaced = ", ".join(
            f"{name} = excluded.{name}" for name in (*_REPLACED, "attempts", "due")
        )
        return (
            f"INSERT INTO {self._table} AS old ({_VALUES}) SELECT {self._selected}"
            f" FROM {self._rows} ORDER BY e.k"
            f" ON CONFLICT (entry_key) DO UPDATE SET number = {number}, {replaced}"
        )

    def _merge(self, number: str, only_if: str = "") -> str:
        columns = _VALUES.split(", ")
        values = self._selected
        assigned = ", ".join(f"{name} = v.{name}" for name in (*_REPLACED, "attempts", "due"))
        number = number.replace("e.n", "v.number")
        only_if = only_if.replace("e.n", "v.number")
        return (
            f"MERGE INTO {self._table} WITH (HOLDLOCK) AS t USING"
            f" (SELECT {values} FROM {self._rows}) AS v ({', '.join(columns)})"
            " ON t.entry_key = v.entry_key COLLATE Latin1_General_100_BIN2"
            f" WHEN MATCHED{only_if} THEN UPDATE SET number = {number}, {assigned}"
            f" WHEN NOT MATCHED THEN INSERT ({_VALUES})"
            f" VALUES ({', '.join(f'v.{name}' for name in columns)});"
        )


@cache
def inbox_statements(table: str, dialect: Dialect) -> InboxStatements:
    """Return the statements of a table, the same ones each time: pyodbc prepares a text once.

    Raises:
        SchemaError: If the inbox does not know this dialect.
    """
    return InboxStatements(table, dialect)


def _of(alias: str) -> str:
    return ", ".join(f"{alias}.{name}" for name in COLUMNS.split(", "))
