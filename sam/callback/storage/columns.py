"""What a database's catalogue says of columns: their types and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyodbc

from sam.callback.storage.dialects import POSTGRESQL, SQL_SERVER, Dialect
from sam.callback.storage.statements import Table, select_none

# It resolves synonyms, views, default schemas and types of one's own as a statement would, and
# needs no right but SELECT ("sys.dm_exec_describe_first_result_set", SQL Server 2012 and later).
_DESCRIBE: Final = (
    "SELECT system_type_name, max_length, collation_name "
    "FROM sys.dm_exec_describe_first_result_set(?, NULL, 0) "
    "WHERE system_type_name IS NOT NULL ORDER BY column_ordinal"
)
_FORMAT_TYPES: Final = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
    "WHERE attrelid = CAST(? AS regclass) AND attnum > 0"
)
_SHORT_NAMES: Final = {"character varying": "varchar", "character": "char"}
_WIDE_TYPES: Final = {"nchar", "nvarchar"}
_BYTES_PER_WIDE: Final = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        type: The name of its type without a size, in small letters, as in ``varchar``.
        size: How many characters it holds (UTF-16 code units, bytes of a ``varchar``), or of a time
            the digits of its seconds; None where there is no limit, or none is known.
        collation: How SQL Server compares its texts; '' where it is not of text, or not known.
    """

    type: str
    size: int | None = None
    collation: str = ""

    def __str__(self) -> str:
        """Write it as SQL does."""
        return self.type if self.size is None else f"{self.type}({self.size})"


def read_columns(
    cursor: pyodbc.Cursor, table: Table, names: Sequence[str], dialect: Dialect
) -> dict[str, Column]:
    """Ask the catalogue for columns.

    Args:
        cursor: On the database.
        table: The table.
        names: Which of its columns.
        dialect: The database's.

    Returns:
        What the catalogue tells, by name; nothing for what it does not tell.

    Raises:
        pyodbc.Error: If it cannot be asked.
    """
    if dialect is SQL_SERVER:
        return _describe(cursor, table, tuple(names), dialect)
    if dialect is POSTGRESQL:
        return _format_types(cursor, table, names, dialect)
    return _look_up(cursor, table, names)


def _describe(
    cursor: pyodbc.Cursor, table: Table, names: tuple[str, ...], dialect: Dialect
) -> dict[str, Column]:
    rows = cursor.execute(_DESCRIBE, select_none(table.name, names, dialect)).fetchall()
    if len(rows) != len(names):  # it answers with one row that says what is wrong
        return {}
    return {
        name: _column(type_name, max_length, collation or "")
        for name, (type_name, max_length, collation) in zip(names, rows, strict=True)
    }


def _column(type_name: str, max_length: int, collation: str) -> Column:
    """Make a column of ``varchar(64)`` and the bytes that it holds; -1 is ``max``."""
    name, has_size, size = type_name.lower().rstrip(")").partition("(")
    if name.startswith("datetime"):
        return Column(name, int(size) if size.isdigit() else None)
    if not has_size or max_length <= 0:
        return Column(name, None, collation)
    characters = max_length // _BYTES_PER_WIDE if name in _WIDE_TYPES else max_length
    return Column(name, characters, collation)


def _format_types(
    cursor: pyodbc.Cursor, table: Table, names: Sequence[str], dialect: Dialect
) -> dict[str, Column]:
    """Ask for the types as SQL writes them: psqlODBC tells 255 of a varchar without a bound."""
    found = dict(cursor.execute(_FORMAT_TYPES, dialect.quote(table.name)).fetchall())
    return {name: _named_column(found[name]) for name in names if name in found}


def _named_column(text: str) -> Column:
    name, _, size = text.rstrip(")").partition("(")
    name = _SHORT_NAMES.get(name, name)
    return Column(name, int(size) if size.isdigit() and "char" in name else None)


def _look_up(cursor: pyodbc.Cursor, table: Table, names: Sequence[str]) -> dict[str, Column]:
    *owner, table_name = table.name.split(".")
    # Its arguments are patterns, in which "_" stands for any character: all that comes is compared.
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
        for row in found:
            is_same = row.column_name == name
            if is_same or (name not in columns and row.column_name.casefold() == name.casefold()):
                columns[name] = _portable_column(row.type_name, row.column_size)
    return columns


def _portable_column(type_name: str, size: int | None) -> Column:
    name, has_size, _ = type_name.lower().partition("(")
    is_text = bool(has_size) or "char" in name
    return Column(name, size if is_text and size and size > 0 else None)
