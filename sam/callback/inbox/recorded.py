"""What became of a callback: its outcome, and the reasons why it is not in the database."""

from dataclasses import dataclass
from typing import Final

from sam.callback.inbox.store import Kind
from sam.callback.model import Outcome
from sam.callback.storage.verdicts import Applied, Verdict

DATABASE_DOWN: Final = "The database is down."
NOT_ANSWERED: Final = "The database did not answer in time."
NO_ROW_YET: Final = "No row has this deployment yet."
OLDER_IN_SPOOL: Final = "An older callback of the deployment is in the spool."
LATER_IN_ROW: Final = "The row has a later time in the finished column: it was not written."
LATER_IN_BATCH: Final = "A later callback of the deployment came with it, and was written instead."
WAITED_TOO_LONG: Final = "It waited too long for its turn."


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a callback, and what it took.

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


def spooled_as(applied: Applied) -> tuple[Kind, str, int]:
    """Return as what a callback goes into the spool, why, and how often it was tried in vain."""
    match applied.verdict:
        case Verdict.UNMATCHED:
            return Kind.UNMATCHED, NO_ROW_YET, 1
        case Verdict.REFUSED:
            return Kind.DEAD_LETTER, applied.reason, 0
        case Verdict.FAILED:
            return Kind.QUEUED, applied.reason, 1
        case _:
            return Kind.QUEUED, applied.reason, 0
