"""Database errors, and their classification: permanent, transient, the database's own.

By SQLSTATE here and by native number in a dialect, since drivers differ in what they give:
Microsoft's tells 42000 for almost everything and the truth in the number, psqlODBC the truth in the
SQLSTATE and always 1 in the number, SQLite's always HY000 and SQLite's result code in the number.

Sources: ODBC, appendix A, "ODBC Error Codes"; PostgreSQL, appendix A, "Error Codes".
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pyodbc


class DatabaseUnavailableError(Exception):
    """The database cannot take callbacks now. The message says why and what to do."""


class ConnectionLostError(DatabaseUnavailableError):
    """The connection is dead or could not be made; another might work."""


class LoginRefusedError(DatabaseUnavailableError):
    """The server refuses the login; trying again and again may lock the account."""


class DatabaseTimeoutError(DatabaseUnavailableError):
    """The database did not answer in time."""


class TransientError(DatabaseUnavailableError):
    """A lock or a deadlock kept the work from it; another try may succeed."""


class NoConnectionError(DatabaseTimeoutError):
    """No connection was free in time: all were at work, or one was still being made.

    It says nothing of the database. A connection goes on being made, and serves the next caller; if
    that fails, it is reported by itself.
    """


class KeyRuleChangedError(Exception):
    """The caller's key rule is not the database's. Nothing was written, and nothing has failed."""


class ErrorClass(StrEnum):
    """Class of an error, which decides what becomes of the callback."""

    PERMANENT = "permanent"
    """The value is refused for good: too long, of the wrong type, against a constraint."""

    TRANSIENT = "transient"
    """Another try may succeed: a lock time-out, a deadlock."""

    DATABASE = "database"
    """No row can be written now: connection, login, missing table, permission."""

    UNKNOWN = "unknown"
    """None of the above is known of it."""


NativeErrors = Mapping[ErrorClass, set[int]]
"""The native numbers of a database's errors, by what they mean."""

# By all five characters, or else by the first two, the class.
_SQLSTATE = {
    "08": ErrorClass.DATABASE,  # connection
    "22": ErrorClass.PERMANENT,  # data
    "23": ErrorClass.PERMANENT,  # integrity
    "25006": ErrorClass.DATABASE,  # read-only transaction
    "28": ErrorClass.DATABASE,  # login
    "3D": ErrorClass.DATABASE,  # no such database
    "3F": ErrorClass.DATABASE,  # no such schema
    "40": ErrorClass.TRANSIENT,  # deadlock, serialization failure
    "42": ErrorClass.DATABASE,  # a fixed statement, so a table, a column or a right is missing
    "44": ErrorClass.PERMANENT,  # WITH CHECK OPTION
    "53": ErrorClass.DATABASE,  # PostgreSQL: insufficient resources
    "54": ErrorClass.PERMANENT,  # PostgreSQL: program limit exceeded
    "55P03": ErrorClass.TRANSIENT,  # PostgreSQL: lock time-out
    "57014": ErrorClass.TRANSIENT,  # PostgreSQL: statement time-out
    "57": ErrorClass.DATABASE,  # PostgreSQL: shutdown, crash, not yet started
    "58": ErrorClass.DATABASE,  # PostgreSQL: I/O error
    "HYT00": ErrorClass.TRANSIENT,  # query time-out
    "HYT01": ErrorClass.DATABASE,  # connection time-out
    "IM": ErrorClass.DATABASE,  # driver manager
}

_ROW_LEVEL_SECURITY = (
    "violates row-level security policy"  # PostgreSQL: 42501, like a missing GRANT
)

# What psqlODBC tells with a bare HY000.
_CONNECTION_LOST = re.compile(
    r"connection has been lost|could not (?:send|receive)|server closed the connection"
    r"|no connection to the server|terminating connection|internal savepoint failed",
    re.IGNORECASE,
)
_NATIVE_NUMBER = re.compile(r"\((-?\d+)\) \(SQL\w+\)")


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


def classify(error: pyodbc.Error, native: NativeErrors) -> ErrorClass:
    """Return the class of an error that a statement met.

    Args:
        error: The error.
        native: What the database's native numbers mean. The first class that fits is taken.
    """
    if _ROW_LEVEL_SECURITY in str(error.args[-1]):
        return ErrorClass.PERMANENT
    numbers = set(native_numbers_of(error))
    for error_class, known in native.items():
        if numbers & known:
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


@contextmanager
def failure_loses_connection() -> Iterator[None]:
    """Give an ODBC error the SQLSTATE of a lost connection.

    One that cannot be set up, or rolled back, is of no more use, whatever its driver calls that.
    """
    try:
        yield
    except pyodbc.Error as error:
        raise pyodbc.OperationalError("08S01", str(error.args[-1])) from error


def is_permission_missing(error: pyodbc.Error) -> bool:
    """Whether the login may not do what was asked of a table or a column that is there."""
    return sqlstate_of(error) == "42501" or bool({229, 230} & set(native_numbers_of(error)))


def is_login_refused(error: pyodbc.Error) -> bool:
    """Whether the error of a connection attempt means that the login is refused."""
    return (
        sqlstate_of(error).startswith("28")
        or bool(_LOGIN_NUMBERS.intersection(native_numbers_of(error)))
        or bool(_LOGIN_REFUSED.search(str(error.args[-1])))
    )


_LOGIN_NUMBERS = {18452, 18456, 18470, 18486, 18487, 18488}
# psqlODBC gives 08001 for whatever keeps it from connecting.
_LOGIN_REFUSED = re.compile(
    r"authentication failed|role \".*\" (?:does not exist|is not permitted to log in)"
    r"|no pg_hba.conf entry",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Advice:
    """What an operator can do about errors of one database, in the words of its settings.

    Attributes:
        server: Where it does not answer.
        login: Where it refuses the login.
        certificate: Where its certificate is not trusted.
        database: Where the server has no such database.
        table: Where the database has no such table.
        columns: Where the table has no such column.
        grant: Where a permission is missing.
    """

    server: str
    login: str
    certificate: str
    database: str
    table: str
    columns: str
    grant: str


SAM_ADVICE: Final = Advice(
    server="Check SQL_SAM_SERVER, that the server runs, and that a firewall lets this host "
    "through.",
    login="Check SQL_SAM_USER and SQL_SAM_PASSWORD.",
    certificate="Install the authority that signed the server's certificate here; on a machine for "
    "tests, SQL_SAM_TRUST_SERVER_CERTIFICATE=yes.",
    database="Check SQL_SAM_DATABASE, and that the login may use it.",
    table="Check SQL_SAM_TABLE.",
    columns="Check the SQL_SAM_..._COLUMN variables.",
    grant="Grant the login SELECT and UPDATE on the table.",
)
_LOCKED: Final = "Another process holds a write lock on the file."


def advice_on(error: pyodbc.Error, advice: Advice = SAM_ADVICE) -> str:
    """Say what an operator can do about a `DATABASE` error; '' where nothing is known."""
    by_text = {
        "authentication failed": advice.login,
        "permitted to log in": advice.login,
        "certificate verify failed": advice.certificate,
        "no such table": advice.table,
        "no such column": advice.columns,
        "database is locked": _LOCKED,
    }
    by_number = {
        4060: advice.database,
        18456: advice.login,
        208: advice.table,
        207: advice.columns,
        229: advice.grant,
        230: advice.grant,
    }
    by_sqlstate = {
        "28": advice.login,
        "42501": advice.grant,
        "42P01": advice.table,
        "42S02": advice.table,
        "42703": advice.columns,
        "42S22": advice.columns,
        "08": advice.server,
        "HYT": advice.server,
    }
    message, sqlstate = str(error.args[-1]), sqlstate_of(error)
    found = [
        *(advised for text, advised in by_text.items() if text in message),
        *map(by_number.get, native_numbers_of(error)),
        *(by_sqlstate.get(sqlstate[:length]) for length in (5, 3, 2)),
    ]
    return next(filter(None, found), "")
