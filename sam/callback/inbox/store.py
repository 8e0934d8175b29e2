"""Entries of a store, of four kinds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_ENTRY_OVERHEAD = 150  # bytes of a row and its indexes beside its texts; 134 to 166 over 50,000


class Kind(StrEnum):
    """Kind of an entry, by what it waits for."""

    QUEUED = "queued"
    """The database."""

    UNMATCHED = "unmatched"
    """Its row."""

    DEAD_LETTER = "dead_letter"
    """An operator: the database refuses the value, or its row never came."""

    INVALID = "invalid"
    """An operator: a body that was not understood, and answered 422."""


LIVE: Final = (Kind.QUEUED, Kind.UNMATCHED)
DEAD: Final = (Kind.DEAD_LETTER, Kind.INVALID)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the spool.

    Attributes:
        number: The callback's sequence number.
        kind: What it waits for.
        deployment_id: The deployment, as it was sent; None for an invalid body.
        status: Its status; None for an invalid body.
        payload: The body, where a payload column wants it or the body is invalid.
        reason: Why it is here, for a person.
        attempts: How often it was tried in vain; 0 is due at once.
        key: What the database takes the deployment's id for: there is one entry of a key. If it is
            not given, the id itself; None for an invalid body.
    """

    number: int
    kind: Kind
    deployment_id: str | None
    status: str | None
    payload: bytes | None = None
    reason: str = ""
    attempts: int = 0
    key: str | None = None

    def __post_init__(self) -> None:
        """Let a deployment's id be its own key, where there is no other."""
        if self.key is None:
            object.__setattr__(self, "key", self.deployment_id)

    @property
    def spelling(self) -> str | None:
        """The deployment's id, where its key is another text."""
        return None if self.deployment_id == self.key else self.deployment_id

    @property
    def size(self) -> int:
        """Its size on disk, in bytes, roughly."""
        texts = (self.key, self.spelling, self.status, self.reason)
        return (
            _ENTRY_OVERHEAD
            + sum(len(text.encode()) for text in texts if text)
            + len(self.payload or b"")
        )


@dataclass(frozen=True, slots=True)
class Total:
    """Totals of a kind.

    Attributes:
        entries: How many entries.
        bytes: Their size, roughly.
        oldest: The lowest number; None if there is none.
    """

    entries: int = 0
    bytes: int = 0
    oldest: int | None = None
