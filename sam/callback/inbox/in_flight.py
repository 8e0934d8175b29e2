"""Register of deployments in flight: each is in one place at a time."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from sam.callback.storage.key_rule import COARSEST

MAX_WRITTEN_PAST: Final = 100_000


class InFlight:
    """Where callbacks of which deployments are under way, by the coarsest keys of their ids.

    Attributes:
        in_batch: Keys that are in a batch for the database.
        written_past_spool: Keys, by the database's rule, of deployments that were written to the
            database while the store could not be read, with the sequence numbers: an older entry
            that turns up there later is not to be applied.
        stored: Set when there is a new entry to apply.
    """

    def __init__(self) -> None:
        self.in_batch: set[str] = set()
        self.written_past_spool: dict[str, int] = {}
        self.stored = asyncio.Event()
        self._storing: Counter[str] = Counter()
        self._replaying: set[str] = set()

    def is_busy(self, deployment_id: str) -> bool:
        """Whether a callback of a deployment is under way, which its entry must wait for."""
        key = COARSEST.key(deployment_id)
        return key in self.in_batch or key in self._storing

    def has_entry(self, key: str) -> bool:
        """Whether a deployment has an entry for sure, without a look; else it may have one."""
        return key in self._storing or key in self._replaying

    @contextlib.contextmanager
    def replaying(self, deployment_ids: Iterable[str]) -> Iterator[None]:
        """Let callbacks of deployments go into the store, while entries of theirs are applied.

        They are applied after those then.
        """
        keys = set(map(COARSEST.key, deployment_ids))
        self._replaying |= keys
        try:
            yield
        finally:
            self._replaying -= keys

    def enter_store(self, deployment_id: str | None) -> None:
        """Note that an entry is on its way into the store, or out of it again."""
        if deployment_id is not None:
            self._storing[COARSEST.key(deployment_id)] += 1

    def leave_store(self, deployment_id: str | None) -> None:
        """Note that it has arrived."""
        if deployment_id is not None:
            key = COARSEST.key(deployment_id)
            self._storing[key] -= 1
            if not self._storing[key]:
                del self._storing[key]

    def noted(self, numbers: dict[str, int]) -> None:
        """Forget of `written_past_spool` what the shared store was told."""
        for key, number in numbers.items():
            if self.written_past_spool.get(key) == number:
                del self.written_past_spool[key]

    def wrote_past_spool(self, key: str, number: int) -> None:
        """Note a deployment for `written_past_spool`; the oldest of too many are forgotten."""
        self.written_past_spool[key] = number
        while len(self.written_past_spool) > MAX_WRITTEN_PAST:
            del self.written_past_spool[next(iter(self.written_past_spool))]
