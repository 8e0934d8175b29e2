"""What the whole service speaks of: a callback, and what became of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a callback that was answered 200."""

    UPDATED = "updated"
    """Committed in the database."""


@dataclass(frozen=True, slots=True)
class Callback:
    """One accepted callback: the final status of one deployment.

    Attributes:
        deployment_id: A360's ``deploymentId``, 1 to 128 characters, stripped.
        status: A360's ``status``, 1 to 64 characters, stripped; any value, as new ones appear
            without notice.
        payload: The body as A360 sent it.
        received_at: When the body had been read; aware, UTC.
    """

    deployment_id: str
    status: str
    payload: bytes
    received_at: datetime
