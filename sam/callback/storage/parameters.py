"""Parameters bound by the types of their columns; refusal of ids that no column can hold.

pyodbc binds a `str` as nvarchar, as long as the value. On SQL Server that costs twice: nvarchar
ranks above varchar, so the column's values are converted for the comparison and its index is not
used ("Data type precedence"); and each length makes another plan. See docs/decisions.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyodbc

_MAX_BYTES: Final = 8000
_MAX_CODE_UNITS: Final = 4000
_SHORT: Final = 1000
_NARROW: Final = {"varchar", "char", "text"}
_WIDE: Final = {"nvarchar", "nchar", "ntext"}
_UUID_LENGTH: Final = 36
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

_InputSize = tuple[int, int, int]
"""Argument of `pyodbc.Cursor.setinputsizes` for a value: SQL type, size, decimal digits."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of a column.

    Attributes:
        name: Its name without a size, in small letters, as in ``varchar``.
        size: How many characters it holds (UTF-16 code units, bytes of a ``varchar``), or of a time
            the digits of its seconds; None where there is no limit, or none is known.
        collation: How SQL Server compares its texts; '' where it is not of text, or not known.
    """

    name: str
    size: int | None = None
    collation: str = ""

    @property
    def is_uuid(self) -> bool:
        """Whether it is SQL Server's type of UUIDs."""
        return self.name == "uniqueidentifier"

    def __str__(self) -> str:
        """Write it as SQL does."""
        return self.name if self.size is None else f"{self.name}({self.size})"


class Parameters:
    """The parameters of a dialect that binds by column.

    Args:
        columns: The types of their columns, by name. A value of another column is left to the
            driver, but for a long text.
    """

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self._columns = columns

    def bind(self, cursor: pyodbc.Cursor, columns: Sequence[str], values: Sequence[object]) -> None:
        """Set how a cursor binds the values of its next statement."""
        cursor.setinputsizes(list(map(self._input_size, columns, values)))

    def refusal(self, column: str, value: str) -> str | None:
        """Say why no row can have this value in this column; None if one can.

        SQL Server would cut off what follows a UUID, and so meet the row of another one
        ("uniqueidentifier", "Remarks"); the form without braces is the only one it documents. Where
        the type is not known, it may be that one.
        """
        known = self._columns.get(column)
        if known is None:
            uuid = _UUID.match(value.removeprefix("{"))
            if uuid is None or value in {uuid[0], f"{{{uuid[0]}}}"}:
                return None
            return (
                f"The type of the column {column} is not known. In one of UUIDs this would meet "
                "the row of the UUID that it begins with."
            )
        if not known.is_uuid or _UUID.fullmatch(value):
            return None
        return f"The column {column} holds UUIDs (uniqueidentifier), and this is none."

    def _input_size(self, name: str, value: object) -> _InputSize | None:
        if not isinstance(value, str):
            return None
        column = self._columns.get(name)
        if column is None:
            # pyodbc makes ntext of more than 2,000 code units. OPENJSON takes none, nor does a
            # database whose collation has "_SC" or "_UTF8" (error 4189). This is nvarchar(max).
            return (pyodbc.SQL_WVARCHAR, 0, 0) if len(value) > _SHORT else None
        # Types of varying length for all: of fixed ones, a driver pads what it assigns. Never
        # shorter than the value, which the driver would refuse: what is too long is for the server
        # to say, whose column may have grown meanwhile.
        if column.is_uuid:
            return (pyodbc.SQL_VARCHAR, max(_UUID_LENGTH, len(value)), 0)
        if column.name in _NARROW and value.isascii():
            return (pyodbc.SQL_VARCHAR, max(column.size or _MAX_BYTES, len(value)), 0)
        if column.name in _NARROW | _WIDE:
            # In varchar another alphabet's letter would become "?", and may meet another's row.
            length = len(value.encode("utf-16-le", "surrogatepass")) // 2
            limit = _MAX_CODE_UNITS
            return (pyodbc.SQL_WVARCHAR, max(min(column.size or limit, limit), length), 0)
        return None
