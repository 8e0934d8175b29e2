"""Circuit breaker for the database: open when writes fail, closed when one was committed."""

import math
import time
from enum import StrEnum
from typing import Final

from sam.callback.inbox.backoff import Backoff
from sam.callback.logs import get_logger
from sam.callback.storage.errors import (
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    LoginRefusedError,
    NoConnectionError,
)

PROBE: Final = Backoff(first=0.1, longest=2.0)
LOGIN_PROBE: Final = Backoff(first=1.0, longest=60.0)
"""Each refused login counts towards the locking of the account."""

SUSPICIOUS_UNMATCHED: Final = 20
"""So many callbacks without one match mean that this is the wrong database or table."""

_log = get_logger(__name__)


class CircuitState(StrEnum):
    """Whether writes go to the database."""

    UNKNOWN = "unknown"
    """Callbacks are written; no write has been committed since the start, and none has failed."""

    CLOSED = "closed"
    """Callbacks are written."""

    OPEN = "open"
    """Nothing is written until the next probe."""

    HALF_OPEN = "half_open"
    """A probe was committed: entries of the spool are written, callbacks not yet."""


_TAKES_CALLBACKS: Final = frozenset({CircuitState.CLOSED, CircuitState.UNKNOWN})


class CircuitBreaker:
    """State of the database, learnt from the outcome of writes.

    Attributes:
        state: The circuit's state.
        is_wrong_database: Whether many callbacks met no row, and not one met its own.
        failures: How often it failed in a row.
        closed_since: When it was last closed after an outage, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.state = CircuitState.UNKNOWN
        self.is_wrong_database = False
        self.failures = 0
        self.closed_since = -math.inf
        self._refused_logins = 0
        self._probe_at = 0.0
        self._committed_at = -math.inf
        self._first_late_at = math.inf
        self._unmatched = 0
        self._has_matched = False

    @property
    def takes_callbacks(self) -> bool:
        """Whether callbacks are to be written to the database."""
        return self.state in _TAKES_CALLBACKS

    @property
    def seconds_to_probe(self) -> float:
        """How long until the database may be tried again, while the circuit is open."""
        return max(0.0, self._probe_at - time.monotonic())

    def failed(
        self, error: DatabaseUnavailableError, begun: float, *, is_probe: bool = False
    ) -> None:
        """Learn that a write failed for the database's reasons.

        Args:
            error: Why. That there was no connection in time proves nothing.
            begun: When the write began, on the monotonic clock.
            is_probe: Whether it was a probe, which has the time for a connection to be made anew.
        """
        if isinstance(error, NoConnectionError):
            return
        if isinstance(error, DatabaseTimeoutError) and self._is_late_alone(begun, is_probe):
            return
        if self.state is CircuitState.OPEN and not is_probe:
            return  # it began before
        self.failures += 1
        if isinstance(error, LoginRefusedError):
            self._refused_logins += 1
            if self._refused_logins == 1:  # a cause that a person must mend, not an outage
                _log.critical("login_refused", reason=str(error))
            delay = LOGIN_PROBE.delay(self._refused_logins)
        else:
            delay = PROBE.delay(self.failures)
        self._probe_at = time.monotonic() + delay
        if self.takes_callbacks:
            _log.critical(
                "database_down",
                reason=str(error),
                action="Callbacks are kept in the spool, and applied when a write succeeds.",
            )
        self.state = CircuitState.OPEN

    def _is_late_alone(self, begun: float, is_probe: bool) -> bool:  # noqa: FBT001 - as above
        """Whether a time-out shows no outage, as it may be one connection alone that is slow.

        That is so where another write was committed meanwhile. Before the first commit it is so for
        all that began before the first was late: a server that has just started takes its time for
        its first connections, and what begins after that is the second try.
        """
        if self._committed_at > -math.inf:
            return self._committed_at >= begun
        if is_probe or self.state is not CircuitState.UNKNOWN:
            return False
        self._first_late_at = min(self._first_late_at, time.monotonic())
        return begun < self._first_late_at

    def connecting_failed(self, error: DatabaseUnavailableError, begun: float) -> None:
        """Learn that no connection could be made, where no write waited for it.

        Args:
            error: Why. Where a write was committed meanwhile, it is out of date.
            begun: When connecting began, on the monotonic clock.
        """
        if self._committed_at < begun:
            self.failed(error, begun, is_probe=True)

    def probed(self) -> None:
        """Learn that a probe was committed: it proves little, and entries are tried next."""
        if self.state is CircuitState.OPEN:
            self.state = CircuitState.HALF_OPEN

    def committed(self) -> None:
        """Learn that a write was committed."""
        self._committed_at = time.monotonic()
        if self.state is CircuitState.CLOSED:
            return
        _log.info("database_up")
        if self.state is not CircuitState.UNKNOWN:
            self.closed_since = self._committed_at
        self.state = CircuitState.CLOSED
        self.failures = 0
        self._refused_logins = 0

    def matched(self) -> None:
        """Learn that a callback met its row."""
        self._has_matched = True
        self._unmatched = 0
        if self.is_wrong_database:
            self.is_wrong_database = False
            _log.info("rows_match")

    def missed(self) -> None:
        """Learn that a callback met no row."""
        self._unmatched += 1
        if (
            not self._has_matched
            and not self.is_wrong_database
            and self._unmatched >= SUSPICIOUS_UNMATCHED
        ):
            self.is_wrong_database = True
            _log.critical(
                "no_row_matches",
                unmatched=self._unmatched,
                action="No callback has met its row since the start. Check SQL_SAM_DATABASE, "
                "SQL_SAM_TABLE and SQL_SAM_DEPLOYMENT_COLUMN.",
            )
