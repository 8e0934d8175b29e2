"""The shared inbox's table, as the thread of a connection uses it: entries to rows, and back."""

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from sam.callback.inbox.backoff import RETRY
from sam.callback.inbox.sql.schema import VERSION
from sam.callback.inbox.sql.statements import (
    APPLIED,
    APPLIED_KIND,
    FOR_OPERATOR,
    NEW,
    TRIED,
    SchemaError,
    inbox_statements,
)
from sam.callback.inbox.store import LIVE, Due, Entry, Kind, Total
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.statements import Statement

MAX_KEY_LENGTH: Final = 300
"""Of longer keys, which no id of A360's has, the rest is a hash: SQL Server's index takes 400."""

APPLIED_MS: Final = 3_600_000
"""How long an entry that is done is kept: a spool that comes back later has lost its order."""

STUCK_MS: Final = 120_000

_REKEY_PAGE: Final = 500


class Totals(NamedTuple):
    """What is seen from time to time.

    Attributes:
        by_kind: What there is of each kind.
        last_number: The highest number.
    """

    by_kind: dict[Kind, Total]
    last_number: int


class Replication(NamedTuple):
    """What the engine promises.

    Attributes:
        is_synchronous: Whether a COMMIT waits for another machine; None if it is not known.
        detail: What its catalogue tells.
    """

    is_synchronous: bool | None
    detail: str


class InboxTable:
    """The table on one connection, within one transaction.

    Args:
        connection: The connection.
        name: The table's.

    Raises:
        SchemaError: If the inbox does not know the database's dialect.
    """

    def __init__(self, connection: DatabaseConnection, name: str) -> None:
        self._connection = connection
        self._statements = inbox_statements(name, connection.dialect)

    def key_rule(self) -> str:
        """Return the name of the key rule.

        Raises:
            SchemaError: If the table is of another version.
        """
        row = self._connection.cursor.execute(self._statements.version).fetchone()
        version = row[0] if row else 0
        if version != VERSION:
            raise SchemaError(
                f"The shared inbox's table is of version {version}, and this release knows "
                f"{VERSION}. "
                + (
                    "Run the release that made it."
                    if version > VERSION
                    else "Run `python -m sam.callback inbox init`."
                )
            )
        return str(row[1])

    def touch(self) -> None:
        """Write, and change nothing."""
        self._connection.cursor.execute(self._statements.touch)
        self._connection.commit()

    def try_rights(self) -> None:
        """Do all that an instance does, and undo it."""
        row = _change(" check", 0, NEW, kind=Kind.INVALID, r="", z=0)
        for text in (self._statements.put, self._statements.settle, self._statements.delete):
            self._execute(text, [row])
        self._connection.cursor.execute(self._statements.touch)
        self._connection.rollback()

    def replication(self) -> Replication:
        """Ask the catalogue whether a COMMIT waits for another machine."""
        row = self._connection.cursor.execute(self._statements.replication).fetchone()
        if row is None:
            return Replication(None, "The catalogue does not tell.")
        mode, names = (str(value or "") for value in row)
        if self._statements.is_postgresql:
            waits = bool(names) and mode in {"on", "remote_write", "remote_apply"}
            return Replication(
                waits, f"synchronous_standby_names is '{names}', synchronous_commit is {mode}."
            )
        return Replication(int(mode) > 0, f"{mode} synchronous replicas take part in a COMMIT.")

    def put(self, entries: Iterable[Entry], key_of: Callable[[str], str]) -> None:
        """Store new callbacks, in one round trip and a COMMIT."""
        self._write(self._statements.put, entries, key_of)

    def move_in(self, entries: Iterable[Entry], key_of: Callable[[str], str]) -> None:
        """Store what was in a local spool."""
        self._write(self._statements.move_in, entries, key_of)

    def note_applied(self, numbers: dict[str, int]) -> None:
        """Note what was written past the inbox, by key: nothing older is to be applied."""
        rows = [
            _change(key, number, APPLIED, kind=APPLIED_KIND, r="", z=0, w=0)
            for key, number in sorted(numbers.items())
        ]
        self._execute(self._statements.move_in, rows)
        self._connection.commit()

    def look_up(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the keys that have an entry, and its number."""
        wanted = {_bounded(key): key for key in keys}
        rows = json.dumps([{"k": key} for key in wanted])
        found = self._connection.read(_of_json(self._statements.look_up), [rows])
        return {wanted[key]: number for key, number in found if key in wanted}

    def settle(
        self,
        done: Iterable[Entry],
        moved: Iterable[tuple[Entry, Kind, str]],
        put_off: Iterable[tuple[Entry, int]],
    ) -> None:
        """Change entries, in one round trip and a COMMIT."""
        changes: dict[str, dict[str, object]] = {}
        for entry in done:
            changes[_key(entry)] = _change(
                _key(entry), entry.number, APPLIED, kind=APPLIED_KIND, w=0
            )
        for entry, kind, reason in moved:
            line = NEW if kind in LIVE else FOR_OPERATOR
            changes[_key(entry)] = _change(
                _key(entry), entry.number, line, kind=kind, r=_text(reason)
            )
        for entry, attempts in put_off:
            change = changes.setdefault(_key(entry), _change(_key(entry), entry.number, NEW))
            if change["line"] != FOR_OPERATOR:
                wait = RETRY.delay(attempts) if attempts else 0
                change |= {
                    "line": TRIED if attempts else NEW,
                    "a": min(attempts, RETRY.failures_to_longest),
                    "w": int(wait * 1000),
                }
        self._execute(self._statements.settle, [changes[key] for key in sorted(changes)])
        self._connection.commit()

    def delete(self, entries: Iterable[Entry]) -> None:
        """Delete entries for good."""
        rows = [{"k": _key(entry), "n": entry.number} for entry in entries]
        self._execute(self._statements.delete, rows)
        self._connection.commit()

    def due(self, limit: int, lines: tuple[int, ...]) -> Due:
        """Return what is due in these lines, the first one first."""
        parameters = [value for line in lines for value in (line, limit)]
        text = self._statements.due(len(lines))
        rows = self._connection.cursor.execute(text, *parameters, lines[0], limit).fetchall()
        if rows:
            return Due(list(map(_entry, rows)), None)
        [ms] = self._connection.cursor.execute(self._statements.next_due).fetchone()
        return Due([], None if ms is None else max(0, int(ms)) / 1000)

    def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds with numbers above `after`, the lowest first."""
        parameters = [value for kind in kinds for value in (str(kind), after, limit)]
        text = self._statements.page(len(kinds))
        return list(map(_entry, self._connection.cursor.execute(text, *parameters, limit)))

    def get(self, numbers: Iterable[int]) -> list[Entry]:
        """Return the entries with these numbers."""
        rows = [{"n": number} for number in numbers]
        return list(map(_entry, self._execute(self._statements.get, rows).fetchall()))

    def totals(self) -> Totals:
        """Return what there is; put right what a clock that was set has put off."""
        by_kind, last = dict.fromkeys(Kind, Total()), 0
        rows = self._connection.cursor.execute(self._statements.totals).fetchall()
        for kind, entries, size, first, latest in rows:
            last = max(last, latest)
            if kind != APPLIED_KIND:
                by_kind[Kind(kind)] = Total(entries, int(size), first)
        return Totals(by_kind, last)

    def tidy(self) -> None:
        """Forget what was applied long ago; make due what a clock that was set has put off."""
        self._connection.cursor.execute(self._statements.purge, APPLIED_MS)
        self._connection.cursor.execute(self._statements.unstick, STUCK_MS)
        self._connection.commit()

    def rekey(self, rule: str, key_of: Callable[[str], str]) -> None:
        """Let the keys follow a rule. Of entries that become one the highest number stays."""
        rows = self._connection.cursor.execute(self._statements.ids).fetchall()
        wrong = sorted(key for key, deployment in rows if _bounded(key_of(deployment)) != key)
        for start in range(0, len(wrong), _REKEY_PAGE):
            keys = [{"k": key} for key in wrong[start : start + _REKEY_PAGE]]
            found = self._execute(self._statements.get_by_key, keys).fetchall()
            renamed: dict[object, dict[str, object]] = {}
            for *columns, line in found:
                entry = _entry(columns)
                row = _row(replace(entry, key=key_of(entry.deployment_id or "")))
                row["line"] = line
                older = renamed.get(row["k"])
                if older is None or row["n"] > older["n"]:  # type: ignore[operator]
                    renamed[row["k"]] = row
            old = [{"k": columns[7], "n": columns[0]} for columns in found]
            self._execute(self._statements.delete, old)
            self._execute(self._statements.move_in, list(renamed.values()))
        self._connection.cursor.execute(self._statements.set_key_rule, rule)
        self._connection.commit()

    def _write(self, text: str, entries: Iterable[Entry], key_of: Callable[[str], str]) -> None:
        rows: dict[object, dict[str, object]] = {}
        for entry in entries:
            own = entry.deployment_id
            row = _row(entry if own is None else replace(entry, key=key_of(own)))
            older = rows.get(row["k"])
            if older is None or entry.number > older["n"]:  # type: ignore[operator]
                rows[row["k"]] = row
        # In one order, so that no two instances wait for one another.
        self._execute(text, sorted(rows.values(), key=lambda row: str(row["k"])))
        self._connection.commit()

    def _execute(self, text: str, rows: Sequence[Mapping[str, object]]):  # type: ignore[no-untyped-def]  # noqa: ANN202 - pyodbc's
        return self._connection.execute(_of_json(text), [json.dumps(rows)])


def _of_json(text: str) -> Statement:
    return Statement(text, ("json",))


def _row(entry: Entry) -> dict[str, object]:
    live = entry.kind in LIVE
    row = _change(
        _key(entry),
        entry.number,
        (TRIED if entry.attempts else NEW) if live else FOR_OPERATOR,
        kind=entry.kind,
        d=entry.deployment_id,
        s=entry.status,
        r=_text(entry.reason),
        z=entry.size,
        a=entry.attempts,
    )
    if entry.payload is not None:
        row["p"] = base64.b64encode(entry.payload).decode()
    if entry.attempts:
        row["w"] = int(RETRY.delay(entry.attempts) * 1000)
    return row


def _change(key: str, number: int, line: int, **others: object) -> dict[str, object]:
    return {"k": key, "n": number, "line": line, "a": 0, **others}


def _key(entry: Entry) -> str:
    if entry.key is not None:
        return _bounded(entry.key)
    # An invalid body has no deployment, whose id would not begin with a blank.
    return f" {entry.number} {hashlib.sha256(entry.payload or b'').hexdigest()}"


def _bounded(key: str) -> str:
    # To SQL Server, one that ends with a blank is the same as without it.
    if len(key) <= MAX_KEY_LENGTH and not key.endswith(" "):
        return key
    return key[:200] + hashlib.sha256(key.encode()).hexdigest()


def _text(text: str) -> str:
    return text.replace("\0", " ")


def _entry(row: Iterable[object]) -> Entry:
    number, kind, deployment, status, payload, reason, attempts, key = row
    return Entry(
        int(number),  # type: ignore[call-overload]
        Kind(str(kind)),
        deployment,  # type: ignore[arg-type]
        status,  # type: ignore[arg-type]
        None if payload is None else bytes(payload),  # type: ignore[call-overload]
        str(reason),
        int(attempts),  # type: ignore[call-overload]
        str(key),
    )
