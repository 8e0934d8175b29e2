"""Domain model: a callback, and its outcome."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

KNOWN_STATUSES: Final = (
    "COMPLETED",
    "RUN_COMPLETED",
    "RUN_FAILED",
    "RUN_ABORTED",
    "RUN_TIMED_OUT",
    "DEPLOY_FAILED",
    "UNKNOWN",
)
"""Statuses that A360 has been seen to send; new ones appear without notice."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Outcome(StrEnum):
    """Outcome of a callback that was answered 200."""

    UPDATED = "updated"
    """Committed in the database: the row has this status."""

    SUPERSEDED = "superseded"
    """Not written, on purpose: the row has the status of a later callback."""

    QUEUED = "queued"
    """The database could not take it: on disk, will be applied."""

    UNMATCHED = "unmatched"
    """No row has this deployment yet: on disk, will be applied when one does."""

    DEAD_LETTER = "dead_letter"
    """The database refuses this value for good: on disk, for an operator."""


@dataclass(frozen=True, slots=True)
class Callback:
    """One accepted callback: the final status of one deployment.

    Attributes:
        number: Its sequence number: the time at which its body had been read, in ns since 1970
            UTC, but always higher than that of the callback before. For one deployment, the higher
            number wins.
        deployment_id: A360's ``deploymentId``, stripped, within limits.py.
        status: A360's ``status``, likewise; any value, as new ones appear without notice.
        payload: The body as A360 sent it, where a payload column wants it; else None.
    """

    number: int
    deployment_id: str
    status: str
    payload: bytes | None

    @property
    def received_at(self) -> datetime:
        """When it was received, UTC, to the microsecond."""
        return received_at(self.number)


def received_at(number: int) -> datetime:
    """Return the time of reception that a sequence number stands for."""
    return _EPOCH + timedelta(microseconds=number // 1000)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The outcome of a callback, and what it took.

    Attributes:
        outcome: Where it is now.
        reason: Why it is not in the database, if it is not.
        seconds: How long its batch took.
        batch_size: How many deployments were in its batch.
        status: What was written, where callbacks of one deployment went together.
    """

    outcome: Outcome
    reason: str
    seconds: float
    batch_size: int
    status: str = ""
