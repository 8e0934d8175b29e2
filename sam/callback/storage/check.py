"""Database check: all that the UPDATE needs. Changes nothing."""

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pyodbc

from sam.callback.check_result import CheckResult, Level
from sam.callback.limits import MAX_STATUS_LENGTH
from sam.callback.model import KNOWN_STATUSES
from sam.callback.settings import Settings
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import (
    DatabaseUnavailableError,
    advice_on,
    describe,
    is_connection_lost,
    is_permission_missing,
)
from sam.callback.storage.parameters import ColumnType
from sam.callback.storage.statements import RobotsTable, Statement

GRACE_SECONDS: Final = 1
"""Time beyond SQL_SAM_LOGIN_TIMEOUT to hear that there is no answer."""

CLOSE_SECONDS: Final = 0.25
"""Time limit of closing."""

SCAN_SECONDS: Final = 5
"""Time limit of reading the whole table."""

CLOCK_TOLERANCE: Final = timedelta(minutes=1)
"""Difference that the clocks of two machines may have."""

_TIMES: Final = "times of reception"
_ID_LENGTH: Final = 36
_LONGEST_STATUS: Final = max(map(len, KNOWN_STATUSES))
_ROUNDING: Final = {"datetime", "smalldatetime"}
_DIGITS: Final = 6
"""Of a second, in the times that are written."""


async def check_database(settings: Settings) -> list[CheckResult]:
    """Connect as the service does, and check all that its UPDATE needs.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If the settings are no connection string.
    """
    connection_settings = ConnectionSettings.of_sam(settings)
    connector = DatabaseConnector(replace(connection_settings, size=1, needs_description=False))
    driver = connector.driver
    check = _Check(RobotsTable.of(settings), settings.sql_sam_user)
    await connector.open()
    failure = ""
    try:
        timeout = settings.sql_sam_login_timeout + GRACE_SECONDS
        await connector.run(check.run, timeout=timeout)
        if check.can_read_times:
            await connector.run(check.run_times, timeout=SCAN_SECONDS)
    except DatabaseUnavailableError as error:
        failure = str(error)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):  # the process ends; what hangs ends with it
            await connector.close()
    of_driver = CheckResult("driver", Level.OK, f"{driver.name or 'of the DSN'}: {driver.reason}")
    return [of_driver, *check.results(failure)]


class _Check:
    """Checks one thing after the other, on a connection's thread."""

    def __init__(self, table: RobotsTable, user: str | None) -> None:
        self._table = table
        self._user = user or "<the service's login>"
        self._results: list[CheckResult] = []

    def results(self, failure: str) -> list[CheckResult]:
        """Return the results; of what was not checked, why.

        Args:
            failure: What ended it before its time; '' if nothing did.
        """
        results = self._results.copy()  # its thread may still be at work
        checked = {result.subject for result in results}
        subjects = ["connection", "table", *map(_subject, self._table.columns)]
        subjects += ["index", "permission", *([_TIMES] if self._table.finished else [])]
        for subject in [each for each in subjects if each not in checked]:
            is_failed = failure and subject != _TIMES
            level = Level.WRONG if is_failed else Level.NOT_CHECKED
            results.append(CheckResult(subject, level, failure or "It depends on the others."))
            failure = ""
        return results

    @property
    def can_read_times(self) -> bool:
        """Whether there is a column for the time of reception."""
        subject = _subject(self._table.finished or "")
        good = {Level.OK, Level.WARNING}
        return any(each.subject == subject and each.level in good for each in self._results)

    def run(self, connection: DatabaseConnection) -> None:
        """Check all, from the beginning: a connection that is lost is replaced once."""
        identity = connection.identity
        self._results = [
            CheckResult(
                "connection",
                Level.OK,
                f"{identity.database} {identity.database_version}, "
                f"by {identity.driver} {identity.driver_version}",
            )
        ]
        if self._add("table", connection, self._check_table).level is Level.WRONG:
            return
        columns = [
            self._add(_subject(name), connection, partial(self._check_column, name))
            for name in self._table.columns
        ]
        self._add("index", connection, self._check_index)
        if connection.dialect.durability_query:
            self._add("durability", connection, _check_durability)
        if all(result.level is not Level.WRONG for result in columns):
            self._add("permission", connection, self._check_permission)

    def run_times(self, connection: DatabaseConnection) -> None:
        """Check that no time of reception is one at which no callback can have been received."""
        name = self._table.finished or ""
        quote = connection.dialect.quote
        text = f"SELECT {quote(name)} FROM {quote(self._table.name)} WHERE {quote(name)} > ?"  # noqa: S608 - checked, quoted
        latest = datetime.now(UTC).replace(tzinfo=None) + CLOCK_TOLERANCE
        result = CheckResult(_TIMES, Level.OK, "None is in the future.")
        try:
            row = connection.execute(Statement(text, (name,)), [latest]).fetchone()
        except pyodbc.Error as error:
            result = CheckResult(_TIMES, Level.NOT_CHECKED, describe(error))
        else:
            if row is not None:
                result = CheckResult(
                    _TIMES,
                    Level.WARNING,
                    f"{name} holds times in the future of UTC, such as {row[0]}: another program's "
                    "local time? Until then, callbacks of such a row are superseded, not written.",
                    "Name a column in SQL_SAM_FINISHED_COLUMN that nothing else writes.",
                )
        connection.rollback()
        self._results.append(result)

    def _add(
        self,
        subject: str,
        connection: DatabaseConnection,
        check: Callable[[DatabaseConnection], CheckResult],
    ) -> CheckResult:
        try:
            result = check(connection)
        except pyodbc.Error as error:
            if is_connection_lost(error):
                raise
            advice = advice_on(error)
            if is_permission_missing(error):
                advice = f"GRANT SELECT, UPDATE ON {self._table.name} TO {self._user}"
            if is_permission_missing(error) and subject != "permission":
                result = CheckResult(subject, Level.NOT_CHECKED, "The login may not read it.")
            else:
                result = CheckResult(subject, Level.WRONG, describe(error), advice)
        finally:
            connection.rollback()
        self._results.append(result)
        return result

    def _check_table(self, connection: DatabaseConnection) -> CheckResult:
        connection.cursor.execute(connection.dialect.select_none(self._table.name))
        return CheckResult("table", Level.OK, self._table.name)

    def _check_column(self, name: str, connection: DatabaseConnection) -> CheckResult:
        dialect, cursor = connection.dialect, connection.cursor
        cursor.execute(dialect.select_none(self._table.name, [name]))
        column = dialect.read_columns(cursor, self._table.name, [name]).get(name)
        if column is None:
            level = Level.WARNING if dialect.binds_by_column else Level.OK
            return CheckResult(_subject(name), level, "The catalogue does not tell its type.")
        level, detail, action = self._fitness(name, column)
        return CheckResult(_subject(name), level, f"{column} {detail}".rstrip(), action)

    def _fitness(self, name: str, column: ColumnType) -> tuple[Level, str, str]:
        """Say whether a column holds what is for it, and what to do where it may not."""
        size = math.inf if column.size is None else column.size
        longer = f"Make it {MAX_STATUS_LENGTH} characters long."
        if name == self._table.key and size < _ID_LENGTH:
            detail = f"is too short for A360's ids, of {_ID_LENGTH} characters."
            return Level.WRONG, detail, "Make it longer."
        if name == self._table.status and size < _LONGEST_STATUS:
            too_long = ", ".join(each for each in KNOWN_STATUSES if len(each) > size)
            detail = f"is too short for {too_long}: such a callback becomes a dead letter."
            return Level.WRONG, detail, longer
        if name == self._table.status and size < MAX_STATUS_LENGTH:
            detail = (
                "holds every status that is known. A new one may have up to "
                f"{MAX_STATUS_LENGTH} characters; what is too long becomes a dead letter."
            )
            return Level.WARNING, detail, longer
        if name == self._table.payload and size < math.inf:
            detail = "holds no longer callbacks: of those the status is written alone."
            return Level.WARNING, detail, "Make it nvarchar(max), or text."
        is_coarse = column.name.startswith("datetime") and size < _DIGITS
        if name == self._table.finished and (column.name in _ROUNDING or is_coarse):
            detail = "rounds the time, and so may prefer the wrong one of two callbacks."
            return Level.WARNING, detail, "Make it datetime2."
        return Level.OK, "", ""

    def _check_index(self, connection: DatabaseConnection) -> CheckResult:
        *owner, name = self._table.name.split(".")
        key = self._table.key
        rows = connection.cursor.statistics(
            name,
            catalog=owner[0] if len(owner) > 1 else None,
            schema=owner[-1] if owner else None,
            quick=True,
        ).fetchall()
        for row in rows:
            first = (row.column_name or "").strip('"') if row.ordinal_position == 1 else ""
            if first.casefold() == key.casefold():  # some drivers quote it
                return CheckResult("index", Level.OK, row.index_name)
        if not rows and connection.dialect.has_table_statistics:
            detail = "The catalogue tells of no index: it is no table, but a view or a synonym."
            return CheckResult("index", Level.WARNING, detail)
        quote = connection.dialect.quote
        return CheckResult(
            "index",
            Level.WRONG,
            f"No index begins with {key}: each callback reads the whole table, and "
            "may wait for any row that another holds.",
            f"CREATE INDEX {quote(f'IX_{name}_{key}')} ON {quote(self._table.name)} ({quote(key)})",
        )

    def _check_permission(self, connection: DatabaseConnection) -> CheckResult:
        connection.counts(connection.statements.probe)
        return CheckResult("permission", Level.OK, "The login may update the row of a deployment.")


def _subject(column: str) -> str:
    return f"column {column}"


def _check_durability(connection: DatabaseConnection) -> CheckResult:
    row = connection.cursor.execute(connection.dialect.durability_query).fetchone()
    if row is not None and row[0] == "FORCED":
        return CheckResult(
            "durability",
            Level.WARNING,
            "Delayed durability is forced: a crash of the server may lose what it has committed.",
            "ALTER DATABASE CURRENT SET DELAYED_DURABILITY = DISABLED",
        )
    return CheckResult("durability", Level.OK, "A COMMIT is on the server's disk.")
