"""Makes conversations: well-formed requests, and then perhaps something that is none.

The same seed makes the same ones.
"""

from typing import Final

from tests.fuzz.conversation import Conversation
from tests.fuzz.malformed import Tails

_MAX_REQUESTS: Final = 5
_SHARE_OF_TAILS: Final = 0.6
_SHARE_OF_LAST_REQUESTS: Final = 0.5
_SHARE_IN_PIECES: Final = 0.6


class Grammar(Tails):
    """Makes one conversation after the other; as `Requests`."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self._made = 0

    def conversation(self) -> Conversation:
        """Make the next one."""
        self._made += 1
        pick = self._random
        requests = [self._request() for _ in range(pick.randint(0, _MAX_REQUESTS))]
        tail = None
        if not requests or pick.random() < _SHARE_OF_TAILS:
            tail = self._tail()
        elif pick.random() < _SHARE_OF_LAST_REQUESTS:
            requests.append(self._last_request())
        made = Conversation(str(self._made), requests, tail, [])
        size = len(made.data)
        if pick.random() < _SHARE_IN_PIECES:
            made.borders = sorted(pick.randint(0, size) for _ in range(pick.randint(1, 6)))
        return made
