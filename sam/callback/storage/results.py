"""Results of a batch of UPDATEs."""

from dataclasses import dataclass
from enum import StrEnum

from sam.callback.storage.errors import DatabaseUnavailableError


class UpdateOutcome(StrEnum):
    """Outcome of the UPDATE of one callback."""

    UPDATED = "updated"
    """Its row has the status, committed."""

    SUPERSEDED = "superseded"
    """Its row has the status of a later callback, by the finished column."""

    UNMATCHED = "unmatched"
    """There is no such row."""

    REFUSED = "refused"
    """The value is refused for good."""

    FAILED = "failed"
    """It met a lock, a deadlock or an unknown error; another try may succeed."""

    UNKNOWN = "unknown"
    """It was not answered before the database failed; it may be committed or not."""


_COMMITTED = {UpdateOutcome.UPDATED, UpdateOutcome.SUPERSEDED, UpdateOutcome.UNMATCHED}


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The result for one callback.

    Attributes:
        outcome: The outcome.
        reason: The database's own words where it failed.
        is_payload_refused: Whether the status was written without the payload.
        is_transient: Whether it failed for what passes by itself: a lock, a deadlock.
    """

    outcome: UpdateOutcome
    reason: str = ""
    is_payload_refused: bool = False
    is_transient: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results for several callbacks, in their order, and what stopped the rest.

    Attributes:
        results: One for each callback.
        error: Why the database cannot take callbacks now, if it failed meanwhile.
    """

    results: list[UpdateResult]
    error: DatabaseUnavailableError | None = None

    @property
    def is_committed(self) -> bool:
        """Whether anything was committed, if only that there is no such row."""
        return any(applied.outcome in _COMMITTED for applied in self.results)
