"""Whether the database takes callbacks. Down is: writes fail. Up is: a write was committed."""

import math
import time
from typing import Final

from sam.callback.inbox.backoff import Backoff
from sam.callback.logs import get_logger
from sam.callback.storage.errors import DatabaseUnavailableError, LoginRefusedError

PROBE: Final = Backoff(first=0.1, longest=2.0)
LOGIN_PROBE: Final = Backoff(first=1.0, longest=60.0)
"""Each refused login counts towards the locking of the account."""

SUSPICIOUS_UNMATCHED: Final = 20
"""So many callbacks without one match mean that this is the wrong database or table."""

_log = get_logger(__name__)


class Health:
    """What is known of the database, from what became of the writes.

    Until the first failure it counts as up: callbacks are tried.

    Attributes:
        is_up: Whether callbacks are to be tried in the database.
        is_wrong_database: Whether many callbacks met no row, and not one met its own.
        failures: How often it failed in a row.
        up_since: When it was last found up after an outage, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.is_wrong_database = False
        self._is_known = False
        self.failures = 0
        self.up_since = -math.inf
        self._refused_logins = 0
        self._probe_at = 0.0
        self._unmatched = 0
        self._has_matched = False

    @property
    def seconds_to_probe(self) -> float:
        """How long until the database may be tried again, while it is down."""
        return max(0.0, self._probe_at - time.monotonic())

    def failed(self, error: DatabaseUnavailableError) -> None:
        """A write failed for the database's reasons."""
        self.failures += 1
        if isinstance(error, LoginRefusedError):
            self._refused_logins += 1
            if self._refused_logins == 1:  # a cause that a person must mend, not an outage
                _log.critical("login_refused", reason=str(error))
            delay = LOGIN_PROBE.delay(self._refused_logins)
        else:
            delay = PROBE.delay(self.failures)
        self._probe_at = time.monotonic() + delay
        if self.is_up or not self._is_known:
            _log.critical(
                "database_down",
                reason=str(error),
                action="Callbacks are kept in the spool, and applied when a write succeeds.",
            )
        self._is_known = True
        self.is_up = False

    def committed(self) -> None:
        """A write was committed."""
        if not (self.is_up and self._is_known):
            _log.info("database_up")
        if not self.is_up:
            self.up_since = time.monotonic()
        self._is_known = True
        self.is_up = True
        self.failures = 0
        self._refused_logins = 0

    def matched(self) -> None:
        """A callback met its row."""
        self._has_matched = True
        self._unmatched = 0
        if self.is_wrong_database:
            self.is_wrong_database = False
            _log.info("rows_match")

    def missed(self) -> None:
        """A callback met no row."""
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
