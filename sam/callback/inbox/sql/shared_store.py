"""The shared store: the inbox's table, within a time limit, and whether it answers."""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from sam.callback.inbox.backoff import Backoff
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.database import LONG_SECONDS, connection_settings
from sam.callback.inbox.sql.statements import NEW, TRIED, SchemaError
from sam.callback.inbox.sql.table import InboxTable
from sam.callback.inbox.store import Due, Entry, Kind, StoreUnavailableError, Total
from sam.callback.logs import get_logger
from sam.callback.model import Callback
from sam.callback.settings import SpoolSettings
from sam.callback.storage.connection import AbandonedError, DatabaseConnection
from sam.callback.storage.connector import DatabaseConnector, PoolStats
from sam.callback.storage.errors import DatabaseUnavailableError, NoConnectionError, TransientError
from sam.callback.storage.key_rule import KeyRule
from sam.callback.tasks import Supervisor

PROBE: Final = Backoff(first=0.1, longest=1.0)
"""When an inbox that was away is tried again."""

LOOK_UP_SHARE: Final = 1 / 3
"""A look-up has this share of CALLBACK_INBOX_TIMEOUT: callbacks for a healthy database wait for it.
"""

REFRESH_SECONDS: Final = 5.0
"""How often to read what there is, if that takes a fiftieth of it at most."""

REFRESH_SHARE: Final = 0.02
TIDY_SECONDS: Final = 60.0

_RETRY_SECONDS: Final = 0.02
_GRACE_SECONDS: Final = 1.0  # for an event loop that is busy

_log = get_logger(__name__)

T = TypeVar("T")


class SharedStore:
    """Entries in a table that all instances share.

    While it does not answer, all calls fail at once, until `watch` finds that it does.

    Args:
        settings: Of the inbox, which has a connection string.
        sequence: Continues after what the table holds: the clocks of instances differ.
        supervisor: Runs the task that connects; its failures go unnoticed, unless given.
        size: The most connections.
        is_quiet: Whether nothing is logged, as a command says it otherwise.

    Attributes:
        is_writable: Whether it answers.
        available_since: When it did last after it did not, on the monotonic clock; or since ever.
        reason: Why it does not answer; '' if it does.
        totals: What there is of each kind, as of some seconds ago.
        key_rule: The name of the rule that its keys follow, likewise.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If the connection string is none.
    """

    def __init__(
        self,
        settings: SpoolSettings,
        sequence: Sequence,
        supervisor: Supervisor | None = None,
        *,
        size: int = 1,
        is_quiet: bool = False,
    ) -> None:
        self.is_writable = False
        self.available_since = -math.inf
        self.reason = "It was not tried yet."
        self.totals: dict[Kind, Total] = dict.fromkeys(Kind, Total())
        self.key_rule = ""
        self._is_quiet = is_quiet
        self._sequence = sequence
        self._table_name = settings.callback_inbox_table
        self._timeout = settings.callback_inbox_timeout
        self._connector = DatabaseConnector(
            connection_settings(settings, size), supervisor=supervisor
        )
        self._was_available = False
        self._failures = 0
        self._probe_at = 0.0
        self._turn = 0
        self._lost = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, *, patient: bool = False) -> None:
        """Begin to connect, and find out whether it answers; that takes no longer than a call.

        Args:
            patient: Whether it may take as long as connecting to all hosts does.
        """
        self._loop = asyncio.get_running_loop()
        await self._connector.open()
        await self._probe(LONG_SECONDS if patient else self._timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._connector.close()

    def stats(self) -> PoolStats:
        """Return how busy its connections are."""
        return self._connector.stats()

    def counts(self) -> dict[str, int]:
        """Return how many entries there are of each kind, as of some seconds ago."""
        return {kind.value: self.totals[kind].entries for kind in Kind}

    async def watch(self) -> None:
        """Find out whether it answers, and what there is, until cancelled."""
        refresh_at, tidy_at = 0.0, time.monotonic() + TIDY_SECONDS
        while True:
            now = time.monotonic()
            if not self.is_writable:
                await asyncio.sleep(max(0.0, self._probe_at - now))
                await self._probe(self._timeout)
                continue
            try:
                if now >= refresh_at:
                    await self._refresh(LONG_SECONDS)
                    took = time.monotonic() - now
                    refresh_at = now + max(REFRESH_SECONDS, took / REFRESH_SHARE)
                if now >= tidy_at:
                    tidy_at = now + TIDY_SECONDS
                    await self.use(lambda table: table.tidy(), LONG_SECONDS)
                async with asyncio.timeout(max(0.0, refresh_at - time.monotonic())):
                    await self._lost.wait()
            except (StoreUnavailableError, TimeoutError):
                pass

    async def put(self, entries: Collection[Entry]) -> list[bool]:
        """Store new callbacks; each gets a number above that of the entry it replaces.

        Raises:
            StoreUnavailableError: If they may not be durable.
        """
        await self.use(lambda table: table.put(entries, self._key_of))
        return [True] * len(entries)

    async def move_in(self, entries: Collection[Entry]) -> None:
        """Store what a local spool had; of one key the higher number stays.

        Raises:
            StoreUnavailableError: If they may not be durable.
        """
        await self.use(lambda table: table.move_in(entries, self._key_of))

    async def note_applied(self, numbers: dict[str, int]) -> None:
        """Note what was written to the database while this did not answer, by its key.

        Raises:
            StoreUnavailableError: If it may not be noted.
        """
        await self.use(lambda table: table.note_applied(numbers))

    async def settle(
        self,
        done: Collection[Entry] = (),
        moved: Collection[tuple[Entry, Kind, str]] = (),
        put_off: Collection[tuple[Entry, int]] = (),
    ) -> list[Entry]:
        """Change entries by their keys and numbers; there is room for every kind.

        Raises:
            StoreUnavailableError: If it may not have been done.
        """
        await self.use(lambda table: table.settle(done, moved, put_off))
        return []

    def may_have_entry(self, key: str) -> bool:
        """Return true: another instance may have added one."""
        return bool(key)

    async def with_entries(self, deployment_ids: Collection[str]) -> set[str]:
        """Return those of the deployments' ids that have an entry.

        Raises:
            StoreUnavailableError: If it cannot be read, or not soon enough.
        """
        return set(await self._numbers(deployment_ids, self._timeout * LOOK_UP_SHARE))

    async def _numbers(self, deployment_ids: Collection[str], timeout: float) -> dict[str, int]:
        key_of = self._key_of
        keys = {deployment_id: key_of(deployment_id) for deployment_id in deployment_ids}
        found = await self.use(lambda table: table.look_up(set(keys.values())), timeout)
        return {each: found[key] for each, key in keys.items() if key in found}

    def stale(self, callbacks: Iterable[Callback]) -> set[int]:
        """Return the numbers of the callbacks that are no more in it so; for other threads.

        Raises:
            AbandonedError: If it cannot be read.
        """
        wanted = {each.deployment_id: each.number for each in callbacks}
        if self._loop is None:
            raise AbandonedError("The shared inbox is not open.")
        call = asyncio.run_coroutine_threadsafe(self._numbers(wanted, self._timeout), self._loop)
        try:
            found = call.result(self._timeout + _GRACE_SECONDS)
        except (StoreUnavailableError, TimeoutError) as error:
            raise AbandonedError(str(error)) from None
        return {number for each, number in wanted.items() if found.get(each) != number}

    async def due(self, limit: int, *, retries: bool = True) -> Due:
        """Return live entries whose time has come, new ones and others first by turns.

        Raises:
            StoreUnavailableError: If it cannot be read.
        """
        self._turn += 1
        lines = (TRIED, NEW) if self._turn % 2 else (NEW, TRIED)
        return await self.use(lambda table: table.due(limit, lines if retries else (NEW,)))

    async def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds with numbers above `after`, the lowest first.

        Raises:
            StoreUnavailableError: If it cannot be read.
        """
        return await self.use(lambda table: table.page(kinds, after=after, limit=limit))

    async def rekey(self, rule: str, key_of: Callable[[str], str]) -> None:
        """Let the keys follow a rule, of this name, from now on.

        Raises:
            StoreUnavailableError: If that could not be done.
        """
        if rule != self.key_rule:
            await self.use(lambda table: table.rekey(rule, key_of), LONG_SECONDS)
            self.key_rule = rule

    async def recheck(self) -> None:
        """Leave it to `watch` to find out whether it answers."""

    @property
    def _key_of(self) -> Callable[[str], str]:
        return KeyRule.named(self.key_rule).key

    async def _probe(self, timeout: float) -> None:
        try:
            await self._run(lambda table: table.touch(), timeout)
            await self._refresh(timeout)
        except StoreUnavailableError:
            return
        if self._was_available:
            self.available_since = time.monotonic()
        self._was_available = True
        self.is_writable, self.reason, self._failures = True, "", 0
        self._lost.clear()
        if not self._is_quiet:
            _log.info("inbox_available", **self.counts())

    async def _refresh(self, timeout: float) -> None:
        rule, totals = await self._run(lambda table: (table.key_rule(), table.totals()), timeout)
        self.key_rule, self.totals = rule, totals.by_kind
        self._sequence.continue_after(totals.last_number)

    async def use(self, work: Callable[[InboxTable], T], timeout: float | None = None) -> T:
        """Run work on a connection's thread, unless it is known that nothing answers.

        Raises:
            StoreUnavailableError: If it may not have been done.
        """
        if not self.is_writable:
            raise StoreUnavailableError(f"The shared inbox: {self.reason}")
        return await self._run(work, timeout or self._timeout)

    async def _run(self, work: Callable[[InboxTable], T], timeout: float) -> T:
        deadline = time.monotonic() + timeout

        def on_thread(connection: DatabaseConnection) -> T:
            return work(InboxTable(connection, self._table_name))

        while True:
            try:
                return await self._connector.run(on_thread, timeout=deadline - time.monotonic())
            except TransientError as error:
                if time.monotonic() + _RETRY_SECONDS >= deadline:
                    raise StoreUnavailableError(f"The shared inbox: {error}") from None
                await asyncio.sleep(_RETRY_SECONDS)
            except (DatabaseUnavailableError, SchemaError) as error:
                raise self._failed(error) from None

    def _failed(self, error: Exception) -> StoreUnavailableError:
        reason = str(error)
        # That all connections are busy says nothing of the server.
        if not isinstance(error, NoConnectionError) or not self.is_writable:
            self._failures += 1
            self._probe_at = time.monotonic() + PROBE.delay(self._failures)
            if (self.is_writable or self._failures == 1) and not self._is_quiet:
                _log.critical(
                    "inbox_unavailable",
                    reason=reason,
                    action="Callbacks are kept in the local spool, and moved when it answers.",
                )
            self.is_writable, self.reason = False, reason
            self._lost.set()
        return StoreUnavailableError(f"The shared inbox: {reason}")
