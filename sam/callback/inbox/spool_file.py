"""The spool's file: a table in SQLite, and a handful of statements. One thread at a time.

`synchronous=FULL` in WAL mode: a COMMIT returns after the fsync of the log (SQLite, "PRAGMA
synchronous"). A deployment has one entry at the most, and only a higher number replaces it.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from sam.callback.inbox.entries import DEAD, Entry, Kind, Total

DEAD_LETTER_SHARE: Final = 0.25
"""The share of the file that dead letters may take; the rest is for what will be applied."""

_BUSY_TIMEOUT_MS = 2_000  # the command line edits rows beside the service

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number        INTEGER PRIMARY KEY,
    kind          TEXT NOT NULL,
    deployment_id TEXT UNIQUE,
    status        TEXT,
    payload       BLOB,
    reason        TEXT NOT NULL,
    size          INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_kind ON entries (kind, number);
CREATE TABLE IF NOT EXISTS totals (
    kind    TEXT PRIMARY KEY,
    entries INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS last_number (number INTEGER NOT NULL);
INSERT INTO last_number SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM last_number);
CREATE TRIGGER IF NOT EXISTS count_insert AFTER INSERT ON entries BEGIN
    INSERT INTO totals VALUES (NEW.kind, 1, NEW.size)
        ON CONFLICT (kind) DO UPDATE SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER IF NOT EXISTS count_delete AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size WHERE kind = OLD.kind;
END;
CREATE TRIGGER IF NOT EXISTS count_update AFTER UPDATE OF kind, size ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size WHERE kind = OLD.kind;
    INSERT INTO totals VALUES (NEW.kind, 1, NEW.size)
        ON CONFLICT (kind) DO UPDATE SET entries = entries + 1, bytes = bytes + NEW.size;
END;
"""
_PUT = """
INSERT INTO entries (number, kind, deployment_id, status, payload, reason, size)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (deployment_id) DO UPDATE SET
    number = excluded.number, kind = excluded.kind, status = excluded.status,
    payload = excluded.payload, reason = excluded.reason, size = excluded.size
WHERE excluded.number > entries.number
"""
_TOTALS = """
SELECT kind, entries, bytes,
    (SELECT min(number) FROM entries WHERE kind = totals.kind)
FROM totals
"""
_COLUMNS = "number, kind, deployment_id, status, payload, reason"


def dead_max_bytes(max_bytes: int) -> int:
    """Return the share of dead letters in a spool of this size."""
    return int(max_bytes * DEAD_LETTER_SHARE)


class SpoolFile:
    """An open spool. Every method is one transaction; a method that returns has been fsynced.

    Args:
        path: The file; made if it is missing, readable by its owner alone.
        max_bytes: Its largest size; what would be over it raises.

    Raises:
        OSError: If the file cannot be made.
        sqlite3.Error: If it cannot be opened; so do all methods if they fail.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives the files beside it the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._path = path
        self._identity = _identity(path)
        self._max_dead_bytes = dead_max_bytes(max_bytes)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(max_bytes)
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self, max_bytes: int) -> None:
        execute = self._connection.execute
        execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk
        [page_size] = execute("PRAGMA page_size").fetchone()
        execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_size)}")
        self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    def has_moved(self) -> bool:
        """Whether the path leads elsewhere by now: what is written here would not be found."""
        return _identity(self._path) != self._identity

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def put(self, entries: Sequence[Entry], last_number: int) -> list[bool]:
        """Store entries with one fsync.

        Args:
            entries: What to store. Where a deployment has an entry with a higher number, that one
                stays, and stands for both.
            last_number: The highest number that was given out.

        Returns:
            For each whether it is safe; False only where dead letters have used up their share.
        """
        with self._transaction():
            room = self._room_for_dead()
            stored = []
            for entry in entries:
                if entry.kind in DEAD:
                    if entry.size > room:
                        stored.append(False)
                        continue
                    room -= entry.size
                self._connection.execute(
                    _PUT,
                    (
                        entry.number,
                        entry.kind,
                        entry.deployment_id,
                        entry.status,
                        entry.payload,
                        entry.reason,
                        entry.size,
                    ),
                )
                stored.append(True)
            self._connection.execute(
                "UPDATE last_number SET number = max(number, ?)", (last_number,)
            )
            return stored

    def try_room(self) -> None:
        """Store something and delete it again, with one fsync: whether there is room shows."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO entries VALUES (-1, 'invalid', NULL, NULL, zeroblob(8192), '', 0)"
            )
            self._connection.execute("DELETE FROM entries WHERE number = -1")

    def settle(self, done: Iterable[int], moved: Iterable[tuple[int, Kind, str]]) -> list[int]:
        """Delete entries, and move others to another kind, with one fsync.

        Args:
            done: Numbers of entries to delete. One that was replaced has another number, and stays.
            moved: Numbers, with the new kind and the reason.

        Returns:
            The numbers that were not moved, as dead letters have used up their share.
        """
        with self._transaction():
            self._connection.executemany(
                "DELETE FROM entries WHERE number = ?", [(number,) for number in done]
            )
            room = self._room_for_dead()
            not_moved = []
            for number, kind, reason in moved:
                if kind in DEAD:
                    size = self._size_of(number)
                    if size > room:
                        not_moved.append(number)
                        continue
                    room -= size
                self._connection.execute(
                    "UPDATE entries SET kind = ?, reason = ? WHERE number = ?",
                    (kind, reason, number),
                )
            return not_moved

    def with_entries(self, deployment_ids: Collection[str]) -> set[str]:
        """Return those of the deployments that have an entry."""
        marks = ", ".join("?" * len(deployment_ids))
        return {
            deployment_id
            for (deployment_id,) in self._connection.execute(
                f"SELECT deployment_id FROM entries WHERE deployment_id IN ({marks})",  # noqa: S608 - only marks
                tuple(deployment_ids),
            )
        }

    def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds with numbers above `after`, the lowest first."""
        marks = ", ".join("?" * len(kinds))
        return self._entries(
            f"kind IN ({marks}) AND number > ? ORDER BY number LIMIT ?", (*kinds, after, limit)
        )

    def get(self, numbers: Collection[int]) -> list[Entry]:
        """Return the entries with these numbers that are still there."""
        marks = ", ".join("?" * len(numbers))
        return self._entries(f"number IN ({marks}) ORDER BY number", tuple(numbers))

    def totals(self) -> dict[Kind, Total]:
        """Return what there is, for every kind."""
        found = {
            Kind(kind): Total(entries, size, oldest)
            for kind, entries, size, oldest in self._connection.execute(_TOTALS)
        }
        return {kind: found.get(kind, Total()) for kind in Kind}

    def _size_of(self, number: int) -> int:
        """Return the size of an entry; 0 if there is none."""
        found = self._connection.execute("SELECT size FROM entries WHERE number = ?", (number,))
        [size] = found.fetchone() or [0]
        return int(size)

    def _room_for_dead(self) -> int:
        totals = self.totals()
        return self._max_dead_bytes - sum(totals[kind].bytes for kind in DEAD)

    def last_number(self) -> int:
        """Return the highest number that is known here."""
        [last] = self._connection.execute(
            "SELECT max((SELECT number FROM last_number),"
            " coalesce((SELECT max(number) FROM entries), 0))"
        ).fetchone()
        return int(last)

    def _entries(self, condition: str, parameters: tuple[object, ...]) -> list[Entry]:
        return [
            Entry(number, Kind(kind), *others)
            for number, kind, *others in self._connection.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE {condition}",  # noqa: S608 - conditions of this class
                parameters,
            )
        ]

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._connection)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Transaction:
    """Takes the write lock at once, so that what was read is still so when it is written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:  # SQLite has ended it itself after some errors
                self._connection.execute("ROLLBACK")


def check_that_it_is_a_spool(path: Path) -> None:
    """Look into a file, and change nothing.

    Raises:
        sqlite3.Error: If it is none.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM entries WHERE number < 0")
