"""Replay lock: a lock of a transaction in SAM's database; who has it replays.

A lock of a session would not do: an instance that was stopped for a while, or cut off, could commit
after another took over. This one ends with the transaction, and the transaction cannot outlive it.
"""

import hashlib
import time
from typing import Final

from sam.callback.storage.connection import AbandonedError, DatabaseConnection
from sam.callback.storage.odbc.dialects import POSTGRESQL, SQL_SERVER

PATIENCE_SECONDS: Final = 4.0
"""How long one is refused before it goes on without the lock.

PostgreSQL ends a transaction whose client is silent before that; SQL Server does not. The lock
keeps instances from doing the same work. What keeps an old status from being committed are the
locks of the rows, and that each entry is looked at once more while they are held."""


class ReplayLockedError(Exception):
    """Another instance replays. Nothing was written."""


class NotCurrentError(AbandonedError):
    """Entries were applied or replaced meanwhile: nothing may be committed.

    Attributes:
        numbers: Theirs.
    """

    def __init__(self, numbers: set[int]) -> None:
        super().__init__("It was applied or replaced meanwhile.")
        self.numbers = numbers


class ReplayLock:
    """The lock of one inbox.

    Args:
        inbox: The inbox's name. Two inboxes that fill the same table must not have the same name.
    """

    def __init__(self, inbox: str) -> None:
        self._name = f"sam_callback_replay:{inbox}"
        digest = hashlib.sha256(self._name.encode()).digest()
        self._number = int.from_bytes(digest[:8], signed=True)
        self._refused_since: float | None = None

    def take(self, connection: DatabaseConnection) -> None:
        """Take it until the end of the transaction, which this begins.

        Raises:
            ReplayLockedError: If another instance has it.
            pyodbc.Error: If it cannot be asked for.
        """
        if self._take(connection):
            self._refused_since = None
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if now - self._refused_since < PATIENCE_SECONDS:
            raise ReplayLockedError

    def _take(self, connection: DatabaseConnection) -> bool:
        if connection.dialect is POSTGRESQL:
            text = "SELECT CAST(pg_try_advisory_xact_lock(CAST(? AS bigint)) AS integer)"
            return bool(connection.cursor.execute(text, str(self._number)).fetchval())
        if connection.dialect is SQL_SERVER:
            cursor = connection.cursor.execute(
                # What reads a table begins a transaction; to execute a procedure does not.
                "DECLARE @result int; SELECT @result = count(*) FROM sys.types WHERE 1 = 0; "
                "EXECUTE @result = sp_getapplock @Resource = ?, @LockMode = 'Exclusive', "
                "@LockOwner = 'Transaction', @LockTimeout = 0; SELECT @result",
                self._name,
            )
            while cursor.description is None and cursor.nextset():
                pass
            return int(cursor.fetchone()[0]) >= 0
        return True  # SQLite has one lock for the whole file
