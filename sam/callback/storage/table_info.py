"""What a new connection asks about SAM's table: the types of its columns, and the key rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pyodbc

from sam.callback.storage.columns import Column, read_columns
from sam.callback.storage.dialects import SQL_SERVER, Dialect
from sam.callback.storage.errors import (
    ErrorClass,
    as_connection_lost,
    classify,
    describe,
    is_connection_lost,
)
from sam.callback.storage.key_rule import EXACT, KeyRule
from sam.callback.storage.statements import Table

_UUID: Final = "abcdefab-cdef-4bcd-8fab-cdefabcdefab"
_UUID_SPELLINGS: Final = (_UUID.upper(), f"{{{_UUID}}}")
_WORD: Final = "aé"
_WORD_SPELLINGS: Final = ("aÉ", "ae", "ａé")


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What the database tells of the table.

    Attributes:
        columns: The columns that values are bound by, by name; none where it does not tell, and in
            dialects that bind by the value.
        key_rule: Which ids it takes for the same; None where it does not tell.
        unknown: Why something is not known; '' if all is.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    key_rule: KeyRule | None = None
    unknown: str = ""


def read_table_info(cursor: pyodbc.Cursor, table: Table, dialect: Dialect) -> TableInfo:
    """Ask the database, which leaves a transaction open.

    What it refuses to tell for good (a missing right, a view that it does not have) stays unknown.

    Raises:
        pyodbc.Error: With SQLSTATE 08S01, if another try may succeed: a time-out, a deadlock, a
            lost connection. Without the types the connection must not be used.
    """
    try:
        if dialect is SQL_SERVER:
            return _from_catalogue(cursor, table, dialect)
        return TableInfo(key_rule=_by_comparing(cursor, table, dialect))
    except pyodbc.Error as error:
        if is_connection_lost(error) or classify(error, dialect) is ErrorClass.ROW_LUCK:
            raise as_connection_lost(error) from error
        return TableInfo(unknown=describe(error))


def _from_catalogue(cursor: pyodbc.Cursor, table: Table, dialect: Dialect) -> TableInfo:
    """Read the types of the columns that an index or a plan depends on."""
    columns = read_columns(cursor, table, (table.key, table.status), dialect)
    if not columns:
        return TableInfo(unknown="The catalogue does not tell.")
    key = columns[table.key]
    if key.type == "uniqueidentifier":
        return TableInfo(columns, KeyRule(uuid=True))
    return TableInfo(columns, KeyRule.of_collation(key.collation) if key.collation else EXACT)


def _by_comparing(cursor: pyodbc.Cursor, table: Table, dialect: Dialect) -> KeyRule:
    """Let the database compare spellings, as values of the column's type and collation.

    A catalogue would have to be asked for types, domains, views and collations, and differs from
    one database to the next. Here no row is read, and nothing is bound: the texts are constants.
    """
    is_case, is_uuid = _compare(cursor, table, dialect, _UUID, _UUID_SPELLINGS)
    if is_uuid:
        return KeyRule(uuid=True)
    try:
        any_case, accents, width = _compare(cursor, table, dialect, _WORD, _WORD_SPELLINGS)
    except pyodbc.DataError:  # the database's encoding does not have these letters
        return KeyRule(case=is_case, accents=True, width=True)
    return KeyRule(ascii_case=is_case and not any_case, case=any_case, accents=accents, width=width)


def _compare(
    cursor: pyodbc.Cursor, table: Table, dialect: Dialect, value: str, spellings: tuple[str, ...]
) -> list[bool]:
    """Say which spellings the key's column would take for the value."""
    key, name = dialect.quote(table.key), dialect.quote(table.name)
    equal = ", ".join(f"CASE WHEN k = '{each}' THEN 1 ELSE 0 END" for each in spellings)
    row = cursor.execute(
        f"SELECT {equal} FROM (SELECT {key} AS k FROM {name} WHERE 1 = 0"  # noqa: S608 - checked, quoted
        f" UNION ALL SELECT '{value}') AS probe"
    ).fetchone()
    return [bool(each) for each in row]
