"""Store: durable entries, of four kinds, behind one interface."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

_ENTRY_OVERHEAD = 150  # bytes of a row and its indexes beside its texts; 134 to 166 over 50,000


class Kind(StrEnum):
    """Kind of an entry, by what it waits for; an `Outcome` has the same word for it."""

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
    """One row of a store.

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


class Due(NamedTuple):
    """Entries to be tried now.

    Attributes:
        entries: The entries.
        seconds_to_next: If there are none, how long until one is due; None if none waits.
    """

    entries: list[Entry]
    seconds_to_next: float | None


class StoreUnavailableError(Exception):
    """The store cannot be written or read now. The message says why.

    Attributes:
        found: Of a look-up: the deployments' ids that have an entry for sure; others may have one.
    """

    def __init__(self, reason: str, found: Collection[str] = ()) -> None:
        super().__init__(reason)
        self.found = found


def internal_error(error: Exception) -> str:
    """Return the reason for an operator, where an error of this code kept a callback from a place.

    Its text may quote what was sent, and so is in the log alone.
    """
    return f"{type(error).__name__}: internal error, please report."


class Store(Protocol):
    """Entries that survive this process. A key has one at the most.

    All methods raise `StoreUnavailableError` if they may not have been carried out.
    """

    @property
    def key_rule(self) -> str:
        """The name of the rule that its keys follow, as of the last call."""

    def may_have_entry(self, key: str) -> bool:
        """Whether a deployment may have an entry, by the coarsest key of its id."""

    async def put(self, entries: Collection[Entry]) -> list[bool]:
        """Store entries; say of each whether it is durable, or there is no room for its kind."""

    async def settle(self, done: Collection[Entry] = ()) -> list[Entry]:
        """Delete entries. One that was replaced meanwhile has another number, and stays."""

    async def with_entries(self, deployment_ids: Collection[str]) -> set[str]:
        """Return those of the deployments' ids that have an entry, by `key_rule` as it is then."""

    async def rekey(self, rule: str, key_of: Callable[[str], str]) -> None:
        """Let the keys follow a rule, of this name, from now on."""


class ReplayableStore(Store, Protocol):
    """A store whose entries are applied from where they are."""

    @property
    def is_writable(self) -> bool:
        """Whether the last write succeeded, and no read failed since."""

    async def settle(
        self,
        done: Collection[Entry] = (),
        moved: Collection[tuple[Entry, Kind, str]] = (),
        put_off: Collection[tuple[Entry, int]] = (),
    ) -> list[Entry]:
        """Delete entries, move others to another kind, and put off others.

        An entry that was replaced meanwhile has another number, and stays as it is.

        Args:
            done: Entries to delete.
            moved: Entries, with the new kind and the reason. They are due at once, unless they are
                put off.
            put_off: Live entries, with how often each was tried in vain: it is due after that one's
                delay, or if that is 0 now, though after all others.

        Returns:
            Those that were not moved, as the new kind's share is used up.
        """

    async def due(self, limit: int, *, retries: bool = True) -> Due:
        """Return live entries whose time has come; those tried before only if `retries`."""

    async def recheck(self) -> None:
        """Find out whether it can be written: only a write shows that."""
