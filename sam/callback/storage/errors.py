"""What a database error means for the callback that met it.

The tables are by SQLSTATE and by native number, since drivers differ in what they give: Microsoft's
tells 42000 for almost everything and the truth in the number, psqlODBC the truth in the SQLSTATE
and always 1 in the number, SQLite's always HY000 and SQLite's result code in the number.

Sources: SQL Server, "Database Engine events and errors"; PostgreSQL, appendix A, "Error Codes";
SQLite, "Result and Error Codes"; ODBC, appendix A, "ODBC Error Codes".
"""

import re
from enum import StrEnum
from typing import Final

import pyodbc

from sam.callback.storage import dialects
from sam.callback.storage.dialects import Dialect


class DatabaseUnavailableError(Exception):
    """The database cannot take callbacks now. The message says why and what to do."""


class ConnectionLostError(DatabaseUnavailableError):
    """The connection is dead or could not be made; another might work."""


class LoginRefusedError(DatabaseUnavailableError):
    """The server refuses the login; trying again and again may lock the account."""


class DatabaseTimeoutError(DatabaseUnavailableError):
    """The database did not answer in time."""


class PoolExhaustedError(DatabaseTimeoutError):
    """No connection became free in time."""


class StillConnectingError(DatabaseTimeoutError):
    """A connection was still being made when time ran out.

    It goes on being made, and serves whoever comes later: this says nothing of the database. If it
    fails, that is reported by itself.
    """


class KeyRuleChangedError(Exception):
    """The caller's key rule is not the database's. Nothing was written, and nothing has failed."""


class ErrorClass(StrEnum):
    """Whose fault an error is, and so what becomes of the callback."""

    ROW_FAULT = "row_fault"
    """The value is refused for good: too long, of the wrong type, against a constraint."""

    ROW_LUCK = "row_luck"
    """Another try may succeed: a lock time-out, a deadlock."""

    DATABASE = "database"
    """No row can be written now: connection, login, missing table, permission."""

    UNKNOWN = "unknown"
    """None of the above is known of it."""


_SQL_SERVER = {
    ErrorClass.ROW_FAULT: {
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
    ErrorClass.ROW_LUCK: {
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

_SQLITE = {
    ErrorClass.ROW_FAULT: {
        18,  # SQLITE_TOOBIG
        19,  # SQLITE_CONSTRAINT
        20,  # SQLITE_MISMATCH
    },
    ErrorClass.DATABASE: {
        1,  # SQLITE_ERROR: the statement is ours, so a table or a column is missing
        3,  # SQLITE_PERM
        5,  # SQLITE_BUSY: one lock for the whole file, so no row's own bad luck
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

_NATIVE = {dialects.SQL_SERVER: _SQL_SERVER, dialects.SQLITE: _SQLITE}

# The longest prefix that fits decides.
_SQLSTATE = {
    "08": ErrorClass.DATABASE,  # connection
    "22": ErrorClass.ROW_FAULT,  # data
    "23": ErrorClass.ROW_FAULT,  # integrity
    "25006": ErrorClass.DATABASE,  # read-only transaction
    "28": ErrorClass.DATABASE,  # login
    "3D": ErrorClass.DATABASE,  # no such database
    "3F": ErrorClass.DATABASE,  # no such schema
    "40": ErrorClass.ROW_LUCK,  # deadlock, serialization failure
    "42": ErrorClass.DATABASE,  # the statement is ours, so a table, a column or a right is missing
    "44": ErrorClass.ROW_FAULT,  # WITH CHECK OPTION
    "53": ErrorClass.DATABASE,  # PostgreSQL: insufficient resources
    "54": ErrorClass.ROW_FAULT,  # PostgreSQL: program limit exceeded
    "55P03": ErrorClass.ROW_LUCK,  # PostgreSQL: lock time-out
    "57014": ErrorClass.ROW_LUCK,  # PostgreSQL: statement time-out
    "57": ErrorClass.DATABASE,  # PostgreSQL: shutdown, crash, not yet started
    "58": ErrorClass.DATABASE,  # PostgreSQL: I/O error
    "HYT00": ErrorClass.ROW_LUCK,  # query time-out
    "HYT01": ErrorClass.DATABASE,  # connection time-out
    "IM": ErrorClass.DATABASE,  # driver manager
}

_FIRST_USER_ERROR = 50_000  # RAISERROR and THROW, say in a trigger; all with SQLSTATE 42000
_ROW_LEVEL_SECURITY = (
    "violates row-level security policy"  # PostgreSQL: 42501, like a missing GRANT
)

# What psqlODBC tells with a bare HY000, and FreeTDS with 01000.
_CONNECTION_LOST = re.compile(
    r"connection has been lost|could not (?:send|receive)|server closed the connection"
    r"|no connection to the server|terminating connection|internal savepoint failed"
    r"|unexpected EOF from the server|(?:read from|write to) the server failed|DBPROCESS is dead",
    re.IGNORECASE,
)
_NATIVE_NUMBER = re.compile(r"\((-?\d+)\) \(SQL\w+\)")
_RANK = [ErrorClass.ROW_FAULT, ErrorClass.ROW_LUCK, ErrorClass.DATABASE]


def sqlstate_of(error: pyodbc.Error) -> str:
    """Return the five characters of ODBC's SQLSTATE, or '' where the error carries none."""
    return str(error.args[0]) if len(error.args) > 1 else ""


def native_numbers_of(error: pyodbc.Error) -> list[int]:
    """Return the native number of each diagnostic record, as pyodbc writes them in its message."""
    return [int(number) for number in _NATIVE_NUMBER.findall(str(error.args[-1]))]


def describe(error: pyodbc.Error) -> str:
    """Return the driver's message without the values of a row, as far as they are marked."""
    return _VALUES.sub("...", str(error.args[-1])).strip()


# PostgreSQL's "Failing row contains (...)", in its languages; SQL Server's 2628. All that follows
# goes too: a value may hold anything that could be taken for its end.
_VALUES = re.compile(r"(?:DETAIL|DETALLE|DÉTAIL|DETALHE|Truncated value): .*", re.DOTALL)


def classify(error: pyodbc.Error, dialect: Dialect) -> ErrorClass:
    """Tell the class of an error that a statement met (connecting is always `DATABASE`).

    A message can quote the value that was refused, and so hold anything: where several numbers
    stand in it, the one that harms the fewest callbacks wins.
    """
    numbers = set(native_numbers_of(error))
    if dialect is dialects.SQL_SERVER and any(number >= _FIRST_USER_ERROR for number in numbers):
        return ErrorClass.UNKNOWN
    if _ROW_LEVEL_SECURITY in str(error.args[-1]):
        return ErrorClass.ROW_FAULT
    for error_class in _RANK:
        if numbers & _NATIVE.get(dialect, {}).get(error_class, set()):
            return error_class
    sqlstate = sqlstate_of(error)
    for length in (5, 2):
        if sqlstate[:length] in _SQLSTATE:
            return _SQLSTATE[sqlstate[:length]]
    if _CONNECTION_LOST.search(str(error.args[-1])):
        return ErrorClass.DATABASE
    return ErrorClass.UNKNOWN


def is_connection_lost(error: pyodbc.Error) -> bool:
    """Whether the error means that the connection is dead."""
    return sqlstate_of(error).startswith(("08", "HYT01")) or bool(
        _CONNECTION_LOST.search(str(error.args[-1]))
    )


def as_connection_lost(error: pyodbc.Error) -> pyodbc.OperationalError:
    """Give an error the SQLSTATE of a lost connection.

    One that cannot be set up, or rolled back, is of no more use, whatever its driver calls that
    (FreeTDS: HY000, "Unknown error").
    """
    return pyodbc.OperationalError("08S01", str(error.args[-1]))


def is_login_refused(error: pyodbc.Error) -> bool:
    """Whether the error of a connection attempt means that the login is refused."""
    return (
        sqlstate_of(error).startswith("28")
        or bool(_LOGIN_NUMBERS.intersection(native_numbers_of(error)))
        or bool(_LOGIN_REFUSED.search(str(error.args[-1])))
    )


def is_permission_missing(error: pyodbc.Error) -> bool:
    """Whether the login may not do what was asked of a table or a column that is there."""
    return sqlstate_of(error) == "42501" or bool({229, 230} & set(native_numbers_of(error)))


_LOGIN_NUMBERS = {18452, 18456, 18470, 18486, 18487, 18488}
# psqlODBC gives 08001 for whatever keeps it from connecting.
_LOGIN_REFUSED = re.compile(
    r"authentication failed|role \".*\" (?:does not exist|is not permitted to log in)"
    r"|no pg_hba.conf entry",
    re.IGNORECASE,
)

CHECK_THE_SERVER: Final = (
    "Check SQL_SAM_SERVER, that the server runs, and that a firewall lets this host through."
)
_ADVICE_BY_NUMBER = {
    4060: "Check SQL_SAM_DATABASE, and that the login may use it.",
    18456: "Check SQL_SAM_USER and SQL_SAM_PASSWORD.",
    208: "Check SQL_SAM_TABLE.",
    207: "Check the SQL_SAM_..._COLUMN variables.",
    229: "Grant the login SELECT and UPDATE on the table.",
    230: "Grant the login SELECT and UPDATE on the table.",
}
_ADVICE_BY_SQLSTATE = {
    "28": "Check SQL_SAM_USER and SQL_SAM_PASSWORD.",
    "42501": "Grant the login SELECT and UPDATE on the table.",
    "42P01": "Check SQL_SAM_TABLE.",
    "42S02": "Check SQL_SAM_TABLE.",
    "42703": "Check the SQL_SAM_..._COLUMN variables.",
    "42S22": "Check the SQL_SAM_..._COLUMN variables.",
    "08": CHECK_THE_SERVER,
    "HYT": CHECK_THE_SERVER,
}
_ADVICE_BY_TEXT = {
    "authentication failed": "Check SQL_SAM_USER and SQL_SAM_PASSWORD.",
    "permitted to log in": "Check SQL_SAM_USER and SQL_SAM_PASSWORD.",
    "certificate verify failed": "Install the authority that signed the server's certificate here; "
    "on a machine for tests, SQL_SAM_TRUST_SERVER_CERTIFICATE=yes.",
    "no such table": "Check SQL_SAM_TABLE.",
    "no such column": "Check the SQL_SAM_..._COLUMN variables.",
    "database is locked": "Another process holds a write lock on the file.",
}


def advice_on(error: pyodbc.Error) -> str:
    """Say what an operator can do about a `DATABASE` error; '' where nothing is known."""
    text = str(error.args[-1])
    for needle, advice in _ADVICE_BY_TEXT.items():
        if needle in text:
            return advice
    for number in native_numbers_of(error):
        if number in _ADVICE_BY_NUMBER:
            return _ADVICE_BY_NUMBER[number]
    sqlstate = sqlstate_of(error)
    for length in (5, 3, 2):
        if sqlstate[:length] in _ADVICE_BY_SQLSTATE:
            return _ADVICE_BY_SQLSTATE[sqlstate[:length]]
    return ""
