"""The bytes of TDS 7.4 that `tests.support.tds` needs, by [MS-TDS]: values read, tokens written."""

import struct
from dataclasses import dataclass
from typing import Any, Final

MAX: Final = 0xFFFF
"""A length that stands for "max", or for NULL; a name's length that stands for a number."""

DONE, DONE_IN_PROCEDURE, DONE_PROCEDURE = 0xFD, 0xFF, 0xFE
SELECT, UPDATE = 0xC1, 0xC5
MORE, FAILED, COUNTED, CANCELLED = 0x01, 0x02, 0x10, 0x20

_COLLATION = bytes.fromhex("0904d00034")  # SQL_Latin1_General_CP1_CI_AS
_SMALL_TYPES = {0x24: "uniqueidentifier", 0x26: "int"}
_TIME_TYPES = {0x2A: "datetime2"}
_LONG_TYPES = {0x63: "ntext"}
_STRING_TYPES = {0xA7: "varchar", 0xAF: "char", 0xE7: "nvarchar", 0xEF: "nchar"}


@dataclass(frozen=True)
class Parameter:
    """A bound value.

    Attributes:
        type: The type that the driver declared.
        size: The characters that it declared, where it is of text; None is max.
        value: What came.
    """

    type: str
    size: int | None
    value: Any


class Reader:
    """Reads a message from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, length: int) -> str:
        return self.take(2 * length).decode("utf-16-le")

    def skip_headers(self) -> None:
        self.take(self.number(4) - 4)

    def parameter(self) -> Parameter:
        self.take(2 * self.number(1))  # its name
        self.take(1)  # in or out
        kind = self.number(1)
        if kind in _SMALL_TYPES:
            self.take(1)
            size = self.number(1)
            return Parameter(_SMALL_TYPES[kind], None, self.number(size) if size else None)
        if kind in _TIME_TYPES:
            self.take(1)
            return Parameter(_TIME_TYPES[kind], None, self.take(self.number(1)))
        if kind in _LONG_TYPES:
            self.take(9)
            return Parameter(_LONG_TYPES[kind], None, self.text(self.number(4) // 2))
        return self._string(_STRING_TYPES[kind])

    def _string(self, kind: str) -> Parameter:
        length = self.number(2)
        self.take(5)  # collation
        data = self._chunks() if length == MAX else self.take(self.number(2))
        is_wide = kind.startswith("n")
        size = None if length == MAX else length // 2 if is_wide else length
        return Parameter(kind, size, data.decode("utf-16-le" if is_wide else "latin-1"))

    def _chunks(self) -> bytes:
        self.take(8)  # the length of all, which may be unknown
        data = b""
        while size := self.number(4):
            data += self.take(size)
        return data


def unscramble(data: bytes) -> bytes:
    """Read a password: each byte XORed with A5, its halves swapped."""
    return bytes((byte ^ 0xA5) >> 4 | ((byte ^ 0xA5) & 0x0F) << 4 for byte in data)


def prelogin() -> bytes:
    """The version, and that there is no encryption."""
    options = {0: bytes([16, 0, 0x0F, 0xA0, 0, 0]), 1: b"\x02", 2: b"\0", 3: b"", 4: b"\0"}
    head, data = b"", b""
    for token, value in options.items():
        head += struct.pack(">BHH", token, 5 * len(options) + 1 + len(data), len(value))
        data += value
    return head + b"\xff" + data


def login_accepted(database: str) -> bytes:
    version = b"\x01\x74\x00\x00\x04" + _short_text("Microsoft SQL Server") + b"\x10\x00\x0f\xa0"
    return (
        environment(1, _short_text(database) + _short_text("master"))
        + environment(7, bytes([len(_COLLATION)]) + _COLLATION + b"\0")
        + environment(4, _short_text("4096") + _short_text("4096"))
        + _token(0xAD, version)
        + done(DONE)
    )


def environment(kind: int, values: bytes) -> bytes:
    """A change of the session: 1 database, 4 packet size, 7 collation, 8 to 10 transaction."""
    return _token(0xE3, bytes([kind]) + values)


def error(number: int, message: str) -> bytes:
    text = message.encode("utf-16-le")
    body = struct.pack("<IBBH", number, 1, 16, len(text) // 2) + text
    return _token(0xAA, body + _short_text("server") + _short_text("") + struct.pack("<I", 1))


def rows(columns: tuple[str, ...], values: tuple[tuple[int | str | None, ...], ...]) -> bytes:
    """A result set. A column is of numbers if it has one in the first row."""
    numbers = [bool(values) and isinstance(values[0][at], int) for at in range(len(columns))]
    body = b"\x81" + struct.pack("<H", len(columns))
    for name, is_number in zip(columns, numbers, strict=True):
        body += struct.pack("<IH", 0, 9)
        body += b"\x26\x04" if is_number else b"\xe7\x40\x1f" + _COLLATION
        body += _short_text(name)
    for row in values:
        body += b"\xd1"
        for value in row:
            if isinstance(value, int):
                body += b"\x04" + struct.pack("<i", value)
            elif value is None:
                body += struct.pack("<H", MAX)
            else:
                body += struct.pack("<H", 2 * len(value)) + value.encode("utf-16-le")
    return body


def return_status() -> bytes:
    return b"\x79" + struct.pack("<i", 0)


def return_value(number: int) -> bytes:
    head = struct.pack("<HBBIH", 0, 0, 1, 0, 0)
    return b"\xac" + head + b"\x26\x04\x04" + struct.pack("<i", number)


def done(token: int, status: int = 0, count: int = 0, command: int = SELECT) -> bytes:
    return struct.pack("<BHHQ", token, status, command, count)


def _token(token: int, body: bytes) -> bytes:
    return struct.pack("<BH", token, len(body)) + body


def _short_text(text: str) -> bytes:
    data = text.encode("utf-16-le")
    return bytes([len(data) // 2]) + data
