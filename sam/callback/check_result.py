"""Check results: subject, severity, detail, action."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity of a result."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check.

    Attributes:
        subject: The thing that was checked.
        level: Its severity.
        detail: What was found. No secret.
        action: What to do, where there is something to do.
    """

    subject: str
    level: Level
    detail: str
    action: str = ""
