"""Spool file: reads and writes entries in SQLite, a transaction per method, on one thread.

`synchronous=FULL` in WAL mode: a COMMIT returns after the fsync of the log (SQLite, "PRAGMA
synchronous"). A key has one entry at the most, and only a higher number replaces it.
"""

import math
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from sam.callback.inbox.sqlite.file_system import identity_of, restrict_to_owner
from sam.callback.inbox.sqlite.schedule import Schedule
from sam.callback.inbox.sqlite.schema import migrate, rekey, require_version
from sam.callback.inbox.sqlite.transaction import write_transaction
from sam.callback.inbox.store import DEAD, Due, Entry, Kind, Total

SHARES: Final = {DEAD: 0.25, (Kind.UNMATCHED,): 0.5}
"""The shares of the file that kinds may take together: neither dead letters nor callbacks without a
row take the room of what waits for the database."""

PAGE_BYTES: Final = 2**24
"""Size of a page of entries, but for a larger single one: payloads may be large."""

_BUSY_TIMEOUT_MS = 2_000  # the command line edits rows beside the service

_PUT = """
INSERT INTO entries
    (number, kind, key, deployment_id, status, payload, reason, size, attempts, due)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    number = excluded.number, kind = excluded.kind, deployment_id = excluded.deployment_id,
    status = excluded.status, payload = excluded.payload, reason = excluded.reason,
    size = excluded.size, attempts = excluded.attempts, due = excluded.due
WHERE excluded.number > entries.number
"""
_TOTALS = """
SELECT kind, entries, bytes,
    (SELECT min(number) FROM entries WHERE kind = totals.kind)
FROM totals
"""
_COLUMNS = "number, kind, coalesce(deployment_id, key), status, payload, reason, attempts, key"


class _Room:
    """What is left of the shares.

    Args:
        max_bytes: The largest size of the file.
        totals: What there is of each kind.
    """

    def __init__(self, max_bytes: int, totals: dict[Kind, Total]) -> None:
        self._left = {
            kinds: share_bytes(kinds, max_bytes) - sum(totals[kind].bytes for kind in kinds)
            for kinds in SHARES
        }

    def take(self, kind: Kind, size: int) -> bool:
        """Take so many bytes of the kind's share; say whether there were so many."""
        for kinds, left in self._left.items():
            if kind in kinds:
                if size > left:
                    return False
                self._left[kinds] = left - size
        return True


def share_bytes(kinds: tuple[Kind, ...], max_bytes: int) -> int:
    """Return the share of these kinds in a spool of this size."""
    return int(max_bytes * SHARES[kinds])


class SpoolFile:
    """An open spool. Every method is one transaction; a method that returns has been fsynced.

    Args:
        path: The file; made if it is missing, readable by its owner alone.
        max_bytes: Its largest size; what would be over it raises.
        may_migrate: Whether a file of an older release is migrated. Only the owner
            of the spool may migrate it.

    Attributes:
        key_rule: The name of the rule that the keys follow; '' is for the ids themselves.
        is_private: Whether its owner alone may read and write it. An older file is made so.

    Raises:
        OSError: If the file cannot be made.
        SpoolVersionError: If it is of another version, and not to be migrated.
        sqlite3.Error: If it cannot be opened; so do all methods if they fail.
    """

    def __init__(self, path: Path, max_bytes: int, *, may_migrate: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives the files beside it the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.is_private = restrict_to_owner(path)
        self._path = path
        self._identity = identity_of(path)
        self._max_bytes = max_bytes
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(max_bytes, may_migrate=may_migrate)
            self._schedule = Schedule(self._connection)
            [self.key_rule] = self._connection.execute("SELECT key_rule FROM meta").fetchone()
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self, max_bytes: int, *, may_migrate: bool) -> None:
        execute = self._connection.execute
        execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk
        if may_migrate:
            migrate(self._connection, self._path)
        else:
            require_version(self._connection, self._path)
        [page_size] = execute("PRAGMA page_size").fetchone()
        execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_size)}")

    def has_moved(self) -> bool:
        """Whether the path leads elsewhere by now: what is written here would not be found."""
        return identity_of(self._path) != self._identity

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def put(self, entries: Iterable[Entry], last_number: int) -> list[bool]:
        """Store entries with one fsync.

        Args:
            entries: What to store. Where a key has an entry with a higher number, that one stays,
                and stands for both.
            last_number: The highest number that was given out.

        Returns:
            For each whether it is durable; False where there is no room for it, though there was
            for another, or where the share of its kind is used up.
        """
        with write_transaction(self._connection):
            room = _Room(self._max_bytes, self.totals())
            stored = []
            full = None
            for entry in entries:
                if not room.take(entry.kind, entry.size):
                    stored.append(False)
                    continue
                error = self._insert(entry)
                stored.append(error is None)
                full = full or error
            if full is not None and not any(stored):
                raise full
            self._connection.execute(
                "UPDATE meta SET last_number = max(last_number, ?)", (last_number,)
            )
            return stored

    def try_room(self) -> None:
        """Store something and delete it again, with one fsync: whether there is room shows."""
        with write_transaction(self._connection):
            self._connection.execute(
                "INSERT INTO entries (number, kind, payload, reason, size)"
                " VALUES (-1, 'invalid', zeroblob(8192), '', 0)"
            )
            self._connection.execute("DELETE FROM entries WHERE number = -1")

    def settle(
        self,
        done: Iterable[Entry] = (),
        moved: Iterable[tuple[Entry, Kind, str]] = (),
        put_off: Iterable[tuple[Entry, int]] = (),
    ) -> list[Entry]:
        """Delete, move and put off entries, with one fsync; as `Store.settle`."""
        with write_transaction(self._connection):
            self._connection.executemany(
                "DELETE FROM entries WHERE number = ?", [(entry.number,) for entry in done]
            )
            room = _Room(self._max_bytes, self.totals())
            not_moved = []
            for entry, kind, reason in moved:
                if not room.take(kind, self._size_of(entry.number)):
                    not_moved.append(entry)
                    continue
                self._connection.execute(
                    "UPDATE entries SET kind = ?, reason = ?, attempts = 0, due = 0"
                    " WHERE number = ?",
                    (kind, reason, entry.number),
                )
            self._connection.executemany(
                "UPDATE entries SET attempts = ?, due = ?"
                " WHERE number = ? AND kind IN ('queued', 'unmatched')",
                [
                    (*self._schedule.line_and_due(attempts), entry.number)
                    for entry, attempts in put_off
                ],
            )
            return not_moved

    def due(self, limit: int, *, retries: bool = True) -> Due:
        """Return live entries whose time has come; as `Schedule.due`."""
        numbers, seconds_to_next = self._schedule.due(limit, retries=retries)
        return Due(self._entries(*_are(numbers), max_bytes=PAGE_BYTES), seconds_to_next)

    def with_entries(self, keys: Collection[str]) -> set[str]:
        """Return those of the keys that have an entry."""
        marks = ", ".join("?" * len(keys))
        return {
            key
            for (key,) in self._connection.execute(
                f"SELECT key FROM entries WHERE key IN ({marks})",  # noqa: S608 - only marks
                tuple(keys),
            )
        }

    def deployment_ids(self) -> Iterator[str]:
        """Yield the deployments' ids, as they were sent."""
        for (deployment_id,) in self._connection.execute(
            "SELECT coalesce(deployment_id, key) FROM entries WHERE key IS NOT NULL"
        ):
            yield deployment_id

    def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds with numbers above `after`, the lowest first.

        There may be fewer than the limit, as they are no more than `PAGE_BYTES`; none is the end.
        """
        marks = ", ".join("?" * len(kinds))
        return self._entries(
            f"kind IN ({marks}) AND number > ? ORDER BY number LIMIT ?",
            (*kinds, after, limit),
            max_bytes=PAGE_BYTES,
        )

    def get(self, numbers: Collection[int]) -> list[Entry]:
        """Return the entries with these numbers that are still there."""
        return self._entries(*_are(numbers))

    def drop(self, entries: Iterable[Entry]) -> None:
        """Delete entries for good, with one fsync."""
        self.settle(entries)

    def requeue(self, entries: Iterable[Entry], reason: str) -> None:
        """Let entries be applied again, with one fsync."""
        self.settle(moved=[(entry, Kind.QUEUED, reason) for entry in entries])

    def replace_dead(self, entry: Entry) -> bool:
        """Put an entry in the place of the dead one with its number, with one fsync.

        Returns:
            Whether it is there: not if its key has a later one, which stays. The dead one is
            deleted all the same.
        """
        with write_transaction(self._connection):
            self._connection.execute(
                "DELETE FROM entries WHERE number = ? AND kind IN ('dead_letter', 'invalid')",
                (entry.number,),
            )
            if error := self._insert(entry):
                raise error
            return bool(self._size_of(entry.number))

    def totals(self) -> dict[Kind, Total]:
        """Return what there is, for every kind."""
        found = {
            Kind(kind): Total(entries, size, oldest)
            for kind, entries, size, oldest in self._connection.execute(_TOTALS)
        }
        return {kind: found.get(kind, Total()) for kind in Kind}

    def last_number(self) -> int:
        """Return the highest sequence number that is known here."""
        [last] = self._connection.execute(
            "SELECT max((SELECT last_number FROM meta),"
            " coalesce((SELECT max(number) FROM entries), 0))"
        ).fetchone()
        return int(last)

    def rekey(self, rule: str, key_of: Callable[[str], str]) -> None:
        """Compute all keys anew, unless they follow the rule already.

        Of entries that become one, the one with the highest number stays.

        Args:
            rule: The rule's name.
            key_of: The rule: what the database takes a deployment's id for.
        """
        if rule == self.key_rule:
            return
        with write_transaction(self._connection):
            rekey(self._connection, key_of)
            self._connection.execute("UPDATE meta SET key_rule = ?", (rule,))
        self.key_rule = rule

    def _insert(self, entry: Entry) -> sqlite3.Error | None:
        """Store an entry within a transaction; return the error if there is no room for it."""
        # Stored from beside the service, it must not be due by a clock that is ahead of that one's.
        line, due = self._schedule.line_and_due(entry.attempts) if entry.attempts else (0, 0)
        try:
            self._connection.execute(
                _PUT,
                (
                    entry.number,
                    entry.kind,
                    entry.key,
                    entry.spelling,
                    entry.status,
                    entry.payload,
                    entry.reason,
                    entry.size,
                    line,
                    due,
                ),
            )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL and self._connection.in_transaction:
                return error  # this statement alone was undone
            raise
        return None

    def _size_of(self, number: int) -> int:
        """Return the size of an entry; 0 if there is none."""
        found = self._connection.execute("SELECT size FROM entries WHERE number = ?", (number,))
        [size] = found.fetchone() or [0]
        return int(size)

    def _entries(
        self, condition: str, parameters: tuple[object, ...], *, max_bytes: float = math.inf
    ) -> list[Entry]:
        found: list[Entry] = []
        for number, kind, *others in self._connection.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE {condition}",  # noqa: S608 - conditions of this class
            parameters,
        ):
            entry = Entry(number, Kind(kind), *others)
            max_bytes -= entry.size
            if found and max_bytes < 0:
                break
            found.append(entry)
        return found


def _are(numbers: Collection[int]) -> tuple[str, tuple[int, ...]]:
    """Return the condition that entries have these numbers, and its parameters."""
    marks = ", ".join("?" * len(numbers))
    return f"number IN ({marks}) ORDER BY number", tuple(numbers)
