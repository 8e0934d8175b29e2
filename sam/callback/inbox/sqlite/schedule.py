"""Retry schedule of entries: which are due, by a monotonic clock."""

import sqlite3
import time
from typing import Final

from sam.callback.inbox.backoff import RETRY

_NS: Final = 1_000_000_000

_LIVE: Final = "entries INDEXED BY entries_by_due WHERE kind IN ('queued', 'unmatched')"
# One search of the index for each number of attempts that there is.
_LINES: Final = f"""
WITH RECURSIVE line (attempts) AS (
    SELECT min(attempts) FROM {_LIVE}
    UNION ALL
    SELECT (SELECT min(attempts) FROM {_LIVE} AND attempts > line.attempts)
    FROM line WHERE line.attempts IS NOT NULL
)
SELECT attempts,
    (SELECT min(due) FROM {_LIVE} AND attempts = line.attempts),
    (SELECT max(due) FROM {_LIVE} AND attempts = line.attempts)
FROM line WHERE attempts IS NOT NULL
"""  # noqa: S608 - a constant
_FIRST_OF_LINE: Final = f"""
SELECT number FROM {_LIVE} AND attempts = ? AND due <= ? ORDER BY due, number LIMIT ?
"""  # noqa: S608 - a constant


class Schedule:
    """Tells when entries are due: 0.5, 1, 2, 4 ... 60 s after a try in vain.

    Those that were tried equally often wait in one line. Its clock is in ns: it begins at the time
    of day, or where the latest entry is due if that is later, and goes on steadily. So all entries
    are due when the file is opened, and no clock that is set puts one off.

    Args:
        connection: On the file.

    Raises:
        sqlite3.Error: If it cannot be read; so do the methods.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._turn = 0
        latest = max((latest for _, _, latest in self._lines()), default=0)
        self._offset = max(time.time_ns(), latest) - time.monotonic_ns()

    def line_and_due(self, attempts: int) -> tuple[int, int]:
        """Return the line of an entry that was tried so often in vain, and when it is due."""
        now = time.monotonic_ns() + self._offset
        if not attempts:
            return 0, now
        return min(attempts, RETRY.failures_to_longest), now + int(RETRY.delay(attempts) * _NS)

    def due(self, limit: int, *, retries: bool) -> tuple[list[int], float | None]:
        """Return which entries are due.

        Each call begins with another line, so that neither a flood of new entries nor a million old
        ones hold up the others.

        Args:
            limit: How many.
            retries: Whether those are wanted that were tried in vain before.

        Returns:
            Their numbers; and if there are none, in how many seconds one is due, or None if none
            waits.
        """
        now = time.monotonic_ns() + self._offset
        lines = [(line, first) for line, first, _ in self._lines() if retries or not line]
        ready = [line for line, first in lines if first <= now]
        if not ready:
            return [], min(((first - now) / _NS for _, first in lines), default=None)
        self._turn = (self._turn + 1) % len(ready)
        numbers: list[int] = []
        for line in ready[self._turn :] + ready[: self._turn]:
            found = self._connection.execute(_FIRST_OF_LINE, (line, now, limit - len(numbers)))
            numbers += [number for (number,) in found]
            if len(numbers) == limit:
                break
        return numbers, None

    def _lines(self) -> list[tuple[int, int, int]]:
        """Return the lines, with when the first and the last entry of each is due."""
        return self._connection.execute(_LINES).fetchall()
