"""Looks at the database as an operator would, and changes nothing."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pyodbc

from sam.callback.check_result import CheckResult, Level
from sam.callback.model import KNOWN_STATUSES, MAX_STATUS_LENGTH
from sam.callback.settings import Settings
from sam.callback.storage.columns import Column, read_columns
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.dialects import SQL_SERVER
from sam.callback.storage.errors import (
    DatabaseUnavailableError,
    advice_on,
    describe,
    is_connection_lost,
    is_permission_missing,
)
from sam.callback.storage.statements import Statement, Table, select_none
from sam.callback.storage.transaction import Transaction

GRACE_SECONDS: Final = 1
"""How long it may take beyond SQL_SAM_LOGIN_TIMEOUT to hear that nobody answers."""

CLOSE_SECONDS: Final = 0.25
"""How long closing may take."""

SCAN_SECONDS: Final = 5
"""How long the whole table may be read for."""

CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""How far the clocks of two machines may be apart."""

_TIMES: Final = "times of reception"
_ID_LENGTH: Final = 36
_LONGEST_STATUS: Final = max(map(len, KNOWN_STATUSES))
_FIRST: Final = 1
_ROUNDING = {"datetime", "smalldatetime"}
_DIGITS: Final = 6
"""Of a second, in the times that are written."""


async def inspect_database(settings: Settings) -> list[CheckResult]:
    """Connect as the service does, and look at all that its UPDATE needs.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If the driver cannot be told the settings.
    """
    connector = DatabaseConnector(settings.model_copy(update={"sql_sam_pool_max": 1}))
    driver = connector.driver
    results = [CheckResult("driver", Level.OK, f"{driver.name or 'of the DSN'}: {driver.reason}")]
    if connector.caveat:
        results.append(CheckResult("certificate", Level.WARNING, connector.caveat))
    inspector = _Inspector(Table.of(settings), settings.sql_sam_user)
    await connector.open()
    failure = ""
    try:
        await connector.run(
            inspector.inspect, timeout=settings.sql_sam_login_timeout + GRACE_SECONDS
        )
        if inspector.can_read_times:
            await connector.run(inspector.inspect_times, timeout=SCAN_SECONDS)
    except DatabaseUnavailableError as error:
        failure = str(error)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):  # the process ends; what hangs ends with it
            await connector.close()
    return results + inspector.results(failure)


class _Inspector:
    """Looks at one thing after the other, on a connection's thread."""

    def __init__(self, table: Table, user: str | None) -> None:
        self._table = table
        self._user = user or "<the service's login>"
        self._results: list[CheckResult] = []

    def results(self, failure: str) -> list[CheckResult]:
        """Return what was found; for what was not looked at, why.

        Args:
            failure: What ended it before its time; '' if nothing did.
        """
        results = self._results.copy()  # its thread may still be at work
        looked_at = {result.subject for result in results}
        subjects = ["connection", "table", *map(_column_subject, self._table.columns)]
        for subject in [*subjects, "index", "permission"]:
            if subject not in looked_at:
                level = Level.WRONG if failure else Level.NOT_CHECKED
                results.append(CheckResult(subject, level, failure or "It depends on the others."))
                failure = ""
        if self._table.finished and _TIMES not in looked_at:
            why = failure or "It depends on the others."
            results.append(CheckResult(_TIMES, Level.NOT_CHECKED, why))
        return results

    def inspect(self, transaction: Transaction) -> None:
        """Look at all, from the beginning: a connection that is lost is replaced once."""
        self._results.clear()
        identity = transaction.identity
        self._results.append(
            CheckResult(
                "connection",
                Level.OK,
                f"{identity.database} {identity.database_version}, "
                f"by {identity.driver} {identity.driver_version}",
            )
        )
        if self._look("table", transaction, self._check_table).level is Level.WRONG:
            return
        columns = [
            self._look(_column_subject(name), transaction, partial(self._column, name))
            for name in self._table.columns
        ]
        self._look("index", transaction, self._index)
        if transaction.dialect is SQL_SERVER:
            self._look("durability", transaction, _durability)
        if all(result.level is not Level.WRONG for result in columns):
            self._look("permission", transaction, self._permission)

    @property
    def can_read_times(self) -> bool:
        """Whether there is a column for the time of reception."""
        column = _column_subject(self._table.finished or "")
        return any(
            result.subject == column and result.level in {Level.OK, Level.WARNING}
            for result in self._results
        )

    def inspect_times(self, transaction: Transaction) -> None:
        """Look for a time at which no callback can have been received."""
        name = self._table.finished or ""
        quote = transaction.dialect.quote
        text = f"SELECT {quote(name)} FROM {quote(self._table.name)} WHERE {quote(name)} > ?"  # noqa: S608 - checked, quoted
        latest = datetime.now(UTC).replace(tzinfo=None) + CLOCK_TOLERANCE
        result = CheckResult(_TIMES, Level.OK, "None is in the future.")
        try:
            row = transaction.execute(Statement(text, (name,)), latest).fetchone()
        except pyodbc.Error as error:
            result = CheckResult(_TIMES, Level.NOT_CHECKED, describe(error))
        else:
            if row is not None:
                result = CheckResult(
                    _TIMES,
                    Level.WARNING,
                    f"{name} holds times in the future of UTC, such as {row[0]}: another program's "
                    "local time? Until then, callbacks of such a row are superseded, not written.",
                    "Name a column in SQL_SAM_FINISHED_COLUMN that nobody else writes.",
                )
        transaction.rollback()
        self._results.append(result)

    def _look(
        self, subject: str, transaction: Transaction, look: Callable[[Transaction], CheckResult]
    ) -> CheckResult:
        try:
            result = look(transaction)
        except pyodbc.Error as error:
            if is_connection_lost(error):
                raise
            if is_permission_missing(error) and subject != "permission":
                result = CheckResult(subject, Level.NOT_CHECKED, "The login may not read it.")
            else:
                result = CheckResult(subject, Level.WRONG, describe(error), self._advice(error))
        finally:
            transaction.rollback()
        self._results.append(result)
        return result

    def _advice(self, error: pyodbc.Error) -> str:
        if is_permission_missing(error):
            return f"GRANT SELECT, UPDATE ON {self._table.name} TO {self._user}"
        return advice_on(error)

    def _check_table(self, transaction: Transaction) -> CheckResult:
        transaction.cursor.execute(select_none(self._table.name, (), transaction.dialect))
        return CheckResult("table", Level.OK, self._table.name)

    def _column(self, name: str, transaction: Transaction) -> CheckResult:
        subject = _column_subject(name)
        cursor = transaction.cursor
        cursor.execute(select_none(self._table.name, (name,), transaction.dialect))
        column = read_columns(cursor, self._table, [name], transaction.dialect).get(name)
        if column is None:
            level = Level.WARNING if transaction.dialect is SQL_SERVER else Level.OK
            return CheckResult(subject, level, "The catalogue does not tell its type.")
        level, detail, action = self._fitness(name, column)
        return CheckResult(subject, level, f"{column} {detail}".rstrip(), action)

    def _fitness(self, name: str, column: Column) -> tuple[Level, str, str]:
        """Say whether a column holds what is for it, and what to do where it may not."""
        size = math.inf if column.size is None else column.size
        if name == self._table.key and size < _ID_LENGTH:
            detail = f"is too short for A360's ids, of {_ID_LENGTH} characters."
            return Level.WRONG, detail, "Make it longer."
        if name == self._table.status and size < _LONGEST_STATUS:
            too_long = ", ".join(each for each in KNOWN_STATUSES if len(each) > size)
            detail = f"is too short for {too_long}: such a callback becomes a dead letter."
            return Level.WRONG, detail, f"Make it {MAX_STATUS_LENGTH} characters long."
        if name == self._table.status and size < MAX_STATUS_LENGTH:
            detail = (
                "holds every status that is known. A new one may have up to "
                f"{MAX_STATUS_LENGTH} characters; what is too long becomes a dead letter."
            )
            return Level.WARNING, detail, f"Make it {MAX_STATUS_LENGTH} characters long."
        if name == self._table.payload and size < math.inf:
            detail = "holds no longer callbacks: of those the status is written alone."
            return Level.WARNING, detail, "Make it nvarchar(max), or text."
        if name == self._table.finished and _rounds(column):
            detail = "rounds the time, and so may prefer the wrong one of two callbacks."
            return Level.WARNING, detail, "Make it datetime2."
        return Level.OK, "", ""

    def _index(self, transaction: Transaction) -> CheckResult:
        *owner, name = self._table.name.split(".")
        rows = transaction.cursor.statistics(
            name,
            catalog=owner[0] if len(owner) > 1 else None,
            schema=owner[-1] if owner else None,
            quick=True,
        ).fetchall()
        for row in rows:
            if row.ordinal_position == _FIRST and _is_same(row.column_name, self._table.key):
                return CheckResult("index", Level.OK, row.index_name)
        if not rows and transaction.dialect is SQL_SERVER:  # of a table it tells its size at least
            detail = "The catalogue tells of no index: it is no table, but a view or a synonym."
            return CheckResult("index", Level.WARNING, detail)
        quote = transaction.dialect.quote
        return CheckResult(
            "index",
            Level.WRONG,
            f"No index begins with {self._table.key}: each callback reads the whole table, and "
            "may wait for any row that another holds.",
            f"CREATE INDEX {quote(f'IX_{name}_{self._table.key}')} "
            f"ON {quote(self._table.name)} ({quote(self._table.key)})",
        )

    def _permission(self, transaction: Transaction) -> CheckResult:
        transaction.count(transaction.statements.probe)
        return CheckResult("permission", Level.OK, "The login may update the row of a deployment.")


def _is_same(quoted: str | None, name: str) -> bool:
    """Whether a name of the catalogue, which some drivers quote, is this one."""
    return quoted is not None and quoted.strip('"').casefold() == name.casefold()


def _column_subject(name: str) -> str:
    return f"column {name}"


def _durability(transaction: Transaction) -> CheckResult:
    row = transaction.cursor.execute(
        "SELECT delayed_durability_desc FROM sys.databases WHERE database_id = DB_ID()"
    ).fetchone()
    if row is not None and row[0] == "FORCED":
        return CheckResult(
            "durability",
            Level.WARNING,
            "Delayed durability is forced: a crash of the server may lose what it has committed.",
            "ALTER DATABASE CURRENT SET DELAYED_DURABILITY = DISABLED",
        )
    return CheckResult("durability", Level.OK, "A COMMIT is on the server's disk.")


def _rounds(column: Column) -> bool:
    if column.type in _ROUNDING:
        return True
    is_time = column.type.startswith("datetime")
    return is_time and column.size is not None and column.size < _DIGITS
