"""SQL statements against SAM's table. Names are quoted; all else is bound."""

from dataclasses import dataclass
from typing import Self

from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.odbc.dialects import Dialect


@dataclass(frozen=True, slots=True)
class RobotsTable:
    """SAM's table and its columns, as the settings name them.

    Attributes:
        name: 'name', 'schema.name' or 'database.schema.name'.
        key: The column that holds the deployment's id.
        status: The column that receives the status.
        payload: The column that receives the whole callback, if any.
        finished: The column that receives the time of reception, if any.
    """

    name: str
    key: str
    status: str
    payload: str | None = None
    finished: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take the names from the settings, which have checked them."""
        return cls(
            settings.sql_sam_table,
            settings.sql_sam_deployment_column,
            settings.sql_sam_status_column,
            settings.sql_sam_payload_column,
            settings.sql_sam_finished_column,
        )

    @property
    def assigned(self) -> tuple[str, ...]:
        """The columns that are written."""
        return tuple(filter(None, (self.status, self.payload, self.finished)))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read or written."""
        return (self.key, *self.assigned)

    def values(self, callback: Callback) -> dict[str, object]:
        """Return what a callback has for each of the columns."""
        values: dict[str, object] = {self.key: callback.deployment_id, self.status: callback.status}
        if self.payload is not None:
            # It may hold bytes that are no text: they do not matter.
            values[self.payload] = (callback.payload or b"").decode("utf-8", "replace")
        if self.finished is not None:
            # In UTC, without saying so.
            values[self.finished] = callback.received_at.replace(tzinfo=None)
        return values


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, and for each of its marks the column that the value is for."""

    text: str
    columns: tuple[str, ...] = ()


class Statements:
    """The statements in one dialect.

    They are made once for a connection: pyodbc prepares a text anew that is not the same object as
    the one before (pyodbc 5.5, `Prepare` in params.cpp).

    Attributes:
        update: Assigns the status, and the other columns that are set, by the key. Where there is a
            time of reception, a later one is not overwritten.
        update_without_payload: The same, but for the payload.
        probe: Needs all that `update` needs, and meets no row.
        read: Selects the status by the key and, where there is a time of reception, whether it is
            later than one that is given.
    """

    def __init__(self, table: RobotsTable, dialect: Dialect) -> None:
        quote = dialect.quote
        name, key = quote(table.name), quote(table.key)
        others = tuple(column for column in table.assigned if column != table.payload)
        self.update = _update(table, table.assigned, dialect)
        self.update_without_payload = _update(table, others, dialect)
        unchanged = ", ".join(f"{quote(column)} = {quote(column)}" for column in table.assigned)
        self.probe = Statement(
            f"UPDATE {name} SET {unchanged} WHERE {key} IS NULL AND 1 = 0"  # noqa: S608 - checked, quoted
        )
        wanted = quote(table.status)
        columns: tuple[str, ...] = (table.key,)
        if table.finished is not None:
            wanted += f", CASE WHEN {quote(table.finished)} > ? THEN 1 ELSE 0 END"
            columns = (table.finished, *columns)
        self.read = Statement(f"SELECT {wanted} FROM {name} WHERE {key} = ?", columns)  # noqa: S608 - checked, quoted
        self._repeated: dict[tuple[str, int], Statement] = {}

    def repeated(self, statement: Statement, times: int) -> Statement:
        """Return a statement so many times in one."""
        if times == 1:
            return statement
        if (repeated := self._repeated.get((statement.text, times))) is None:
            text = "; ".join([statement.text] * times)
            repeated = Statement(text, statement.columns * times)
            self._repeated[statement.text, times] = repeated
        return repeated


def _update(table: RobotsTable, assigned: tuple[str, ...], dialect: Dialect) -> Statement:
    quote = dialect.quote
    assignments = ", ".join(f"{quote(column)} = ?" for column in assigned)
    text = f"UPDATE {quote(table.name)} SET {assignments} WHERE {quote(table.key)} = ?"  # noqa: S608 - checked, quoted
    if table.finished is None:
        return Statement(text, (*assigned, table.key))
    finished = quote(table.finished)
    return Statement(
        f"{text} AND ({finished} IS NULL OR {finished} <= ?)",
        (*assigned, table.key, table.finished),
    )
