"""Values bound by the types of their columns, and values that no column of a type can hold.

pyodbc binds a `str` as nvarchar, as long as the value. On SQL Server that costs twice: nvarchar
ranks above varchar, so the column's values are converted for the comparison and its index is not
used ("Data type precedence"); and each length makes another plan. See docs/decisions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import pyodbc

from sam.callback.storage.columns import Column

_MAX_BYTES: Final = 8000
_MAX_CODE_UNITS: Final = 4000
_NARROW = {"varchar", "char", "text"}
_WIDE = {"nvarchar", "nchar", "ntext"}
_UUID_LENGTH: Final = 36
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

_Size = tuple[int, int, int]
"""What `pyodbc.Cursor.setinputsizes` takes for a value: SQL type, size, decimal digits."""


class Binder:
    """Knows how values are to be bound.

    Args:
        columns: What the catalogue tells of their columns. A value of another column is left to the
            driver.
        cuts_uuids: As `Dialect` says it.
    """

    def __init__(self, columns: Mapping[str, Column], *, cuts_uuids: bool) -> None:
        self._columns = columns
        self._cuts_uuids = cuts_uuids

    def bind(self, cursor: pyodbc.Cursor, columns: Sequence[str], values: Sequence[object]) -> None:
        """Set how a cursor binds the values of its next statement."""
        if self._columns:
            cursor.setinputsizes(
                [self._size(name, value) for name, value in zip(columns, values, strict=True)]
            )

    def objection(self, name: str, value: str) -> str | None:
        """Say why no row can have this value in this column; None if one can.

        SQL Server would cut off what follows a UUID, and so meet the row of another one
        ("uniqueidentifier", "Remarks"); the form without braces is the only one it documents. Where
        the type is not known, it may be that one.
        """
        column = self._columns.get(name)
        if column is None:
            if self._cuts_uuids and _is_cut(value):
                return (
                    f"The type of the column {name} is not known. In one of UUIDs this would meet "
                    "the row of the UUID that it begins with."
                )
            return None
        if column.type != "uniqueidentifier" or _UUID.fullmatch(value):
            return None
        return f"The column {name} holds UUIDs (uniqueidentifier), and this is none."

    def _size(self, name: str, value: object) -> _Size | None:
        column = self._columns.get(name)
        if column is None or not isinstance(value, str):
            return None
        # Types of varying length for all: of fixed ones, a driver pads what it assigns. Never
        # shorter than the value: Microsoft's driver would refuse it, and FreeTDS cut it off; what
        # is too long is for the server to say, whose column may have grown meanwhile.
        if column.type == "uniqueidentifier":
            return (pyodbc.SQL_VARCHAR, max(_UUID_LENGTH, len(value)), 0)
        if column.type in _NARROW and value.isascii():
            return (pyodbc.SQL_VARCHAR, max(column.size or _MAX_BYTES, len(value)), 0)
        if column.type in _NARROW | _WIDE:
            # In varchar another alphabet's letter would become "?", and may meet another's row.
            length = len(value.encode("utf-16-le", "surrogatepass")) // 2
            limit = _MAX_CODE_UNITS
            return (pyodbc.SQL_WVARCHAR, max(min(column.size or limit, limit), length), 0)
        return None


def _is_cut(value: str) -> bool:
    """Whether this is a UUID with more behind it."""
    uuid = _UUID.match(value.removeprefix("{"))
    return uuid is not None and value not in {uuid[0], f"{{{uuid[0]}}}"}
