"""Fallback store: the shared store, or the spool while that does not answer."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Final

from sam.callback.inbox.in_flight import InFlight
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.inbox.store import Entry, Kind, StoreUnavailableError, internal_error
from sam.callback.logs import get_logger
from sam.callback.settings import SpoolSettings
from sam.callback.storage.key_rule import COARSEST, KeyRule

POLL_SECONDS: Final = 0.25
"""How often to look whether there is anything to move."""

PAGE: Final = 500
"""How many entries are moved at a time."""

RETURN_SECONDS: Final = 2.0
"""How long nothing is replayed after the shared store was away: so long the instances have to say
what they wrote past it."""

_log = get_logger(__name__)


class FallbackStore:
    """Puts entries into the shared store or, if that does not answer, into the spool.

    `run` moves what is in the spool, once it can be.

    Args:
        shared: The shared store.
        spool: The spool.
        in_flight: Knows what was written to the database while the shared store did not answer.
    """

    def __init__(self, shared: SharedStore, spool: Spool, in_flight: InFlight) -> None:
        self._shared = shared
        self._spool = spool
        self._in_flight = in_flight

    @property
    def key_rule(self) -> str:
        """The name of the rule that the keys follow in the store that is used now."""
        return self._shared.key_rule if self._shared.is_writable else self._spool.key_rule

    def may_have_entry(self, key: str) -> bool:
        """Return true: another instance may have put one into the shared store."""
        return self._shared.may_have_entry(key)

    @property
    def may_replay(self) -> bool:
        """Whether what is in the shared store may be applied: all instances had time to speak."""
        away = time.monotonic() - self._shared.available_since < RETURN_SECONDS
        return self._shared.is_writable and not away and not self._has_to_move()

    async def put(self, entries: Collection[Entry]) -> list[bool]:
        """Store entries in the one or in the other.

        Raises:
            StoreUnavailableError: If neither takes them.
        """
        try:
            return await self._shared.put(entries)
        except StoreUnavailableError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - an error of this code must not lose callbacks
            _log.exception("batch_failed")
            reason = f"The shared inbox: {internal_error(error)}"
        try:
            return await self._spool.put(entries)
        except StoreUnavailableError as error:
            raise StoreUnavailableError(f"{reason} {error}") from None

    async def settle(self, done: Collection[Entry] = ()) -> list[Entry]:
        """Delete entries from both: one whose storing was not answered may be in both.

        Raises:
            StoreUnavailableError: If it may not have been done.
        """
        if any(total.entries for total in self._spool.totals.values()):
            await self._spool.settle(done)
        return await self._shared.settle(done)

    async def with_entries(self, deployment_ids: Collection[str]) -> set[str]:
        """Return those of the deployments' ids that have an entry in either.

        Raises:
            StoreUnavailableError: If one of them cannot be read. It has what the other one told.
        """
        found: set[str] = set()
        reasons = []
        in_spool = [
            each for each in deployment_ids if self._spool.may_have_entry(COARSEST.key(each))
        ]
        for store, wanted in ((self._spool, in_spool), (self._shared, deployment_ids)):
            if wanted:
                try:
                    found |= await store.with_entries(wanted)
                except StoreUnavailableError as error:
                    reasons.append(str(error))
        if reasons:
            raise StoreUnavailableError(" ".join(reasons), found)
        return found

    async def rekey(self, rule: str, key_of: Callable[[str], str]) -> None:
        """Let the keys follow a rule in both.

        Raises:
            StoreUnavailableError: If that could not be done in one.
        """
        await self._spool.rekey(rule, key_of)
        await self._shared.rekey(rule, key_of)

    async def run(self) -> None:
        """Move entries into the shared store whenever there are any, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailableError):  # it has been logged
                if self._shared.is_writable and self._has_to_move():
                    await self.move()
            await asyncio.sleep(POLL_SECONDS)

    def _has_to_move(self) -> bool:
        return bool(self._in_flight.written_past_spool) or (
            self._spool.is_writable and any(each.entries for each in self._spool.totals.values())
        )

    async def move(self) -> int:
        """Move what is in the spool into the shared store; return how many entries.

        Raises:
            StoreUnavailableError: If one of them cannot be used.
        """
        # First what is done: no older entry is to be applied on top of it.
        past = dict(self._in_flight.written_past_spool)
        if past:
            await self._shared.note_applied(past)
            self._in_flight.noted(past)
        if self._spool.key_rule != self._shared.key_rule:
            rule = KeyRule.named(self._shared.key_rule)
            await self._spool.rekey(rule.name, rule.key)
        moved = 0
        while page := await self._spool.page(list(Kind), after=0, limit=PAGE):
            await self._shared.move_in(page)
            await self._spool.settle(page)
            moved += len(page)
        if moved:
            _log.info("spool_moved_to_inbox", entries=moved)
        return moved


async def move_spool(settings: SpoolSettings) -> int:
    """Move a spool that no service owns into the shared inbox; return how many entries.

    Raises:
        StoreUnavailableError: If one of them cannot be used.
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If the connection string is none.
    """
    sequence = Sequence()
    spool = Spool(settings.callback_spool_path, settings.callback_spool_max_bytes, sequence)
    shared = SharedStore(settings, sequence, is_quiet=True)
    await spool.open()
    await shared.open(patient=True)
    try:
        return await FallbackStore(shared, spool, InFlight()).move()
    finally:
        await shared.close()
        await spool.close()
