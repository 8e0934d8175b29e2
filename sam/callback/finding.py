"""What `check` finds out, a line each."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        level: How bad it is.
        detail: What was found. No secret.
        action: What to do, where there is something to do.
    """

    subject: str
    level: Level
    detail: str
    action: str = ""
