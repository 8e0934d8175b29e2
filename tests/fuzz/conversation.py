"""Conversations on one connection, and the answers that a strict reading allows."""

from dataclasses import dataclass, field
from enum import Enum, auto


class End(Enum):
    """The required end of a connection once all has been sent."""

    OPEN = auto()
    """It stays open for the next request, unless the last one asked for the contrary."""

    CLOSED = auto()
    """The service closes it by itself, at once."""

    LATE = auto()
    """The service closes it by itself, when its time limits have passed."""

    OURS = auto()
    """Not decidable: the test closes it, and the service follows."""


@dataclass(slots=True)
class Request:
    """A well-formed request.

    Attributes:
        data: Its bytes.
        statuses: What may be answered.
        deployment_id: The deployment in its body, which nothing else names.
        status: The status in its body.
        is_taken: Whether it is a callback with the key: recorded exactly once, else never.
        is_head: Whether the answer has no body.
        closes: Whether the answer is the last on its connection.
        may_end_early: Whether the answer may come before the body, and is then the last.
    """

    data: bytes
    statuses: frozenset[int]
    deployment_id: str
    status: str
    is_taken: bool = False
    is_head: bool = False
    closes: bool = False
    may_end_early: bool = False


@dataclass(slots=True)
class Tail:
    """The malformed end of a conversation, after its last well-formed request.

    Attributes:
        kind: What is wrong with it.
        data: Its bytes.
        statuses: What may be answered; empty where anything below 500 may.
        end: How the connection must end.
        never: Deployments that may not be recorded.
        maybe: Deployments that may be recorded, as often as 200 is answered at the least.
    """

    kind: str
    data: bytes
    statuses: frozenset[int]
    end: End
    never: list[str] = field(default_factory=list)
    maybe: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    """One connection.

    Attributes:
        name: Its number, to find it again.
        requests: Each gets one answer, in their order.
        tail: What comes after them, if anything.
        borders: Where a packet ends.
    """

    name: str
    requests: list[Request]
    tail: Tail | None
    borders: list[int]

    @property
    def data(self) -> bytes:
        """All that is sent."""
        tail = self.tail.data if self.tail else b""
        return b"".join(request.data for request in self.requests) + tail

    @property
    def size(self) -> int:
        """The number of its requests, malformed ones included."""
        return len(self.requests) + (self.tail is not None)
