"""The shared inbox as the command line uses it: beside the instances, a call at a time."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.database import LONG_SECONDS
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sql.table import InboxTable
from sam.callback.inbox.store import DEAD, Entry, Kind, StoreUnavailableError, Total
from sam.callback.settings import SpoolSettings

T = TypeVar("T")


class InboxAccess:
    """Entries of the shared inbox, as `SpoolFile` gives those of a spool.

    Raises:
        StoreUnavailableError: All methods, if it does not answer.
    """

    def __init__(self, runner: asyncio.Runner, store: SharedStore) -> None:
        self._runner = runner
        self._store = store
        self.key_rule = store.key_rule

    @classmethod
    @contextmanager
    def open(cls, settings: SpoolSettings) -> Iterator[Self]:
        """Connect, for as long as the block takes.

        Raises:
            StoreUnavailableError: If it does not answer.
            DriverNotFoundError: If the ODBC driver does not exist.
            SettingsError: If the connection string is none.
        """
        with asyncio.Runner() as runner:
            store = SharedStore(settings, Sequence(), is_quiet=True)
            runner.run(store.open(patient=True))
            try:
                if not store.is_writable:
                    raise StoreUnavailableError(f"The shared inbox: {store.reason}")
                yield cls(runner, store)
            finally:
                runner.run(store.close())

    def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds with numbers above `after`, the lowest first."""
        return self._use(lambda table: table.page(kinds, after=after, limit=limit))

    def get(self, numbers: Collection[int]) -> list[Entry]:
        """Return the entries with these numbers."""
        return self._use(lambda table: table.get(numbers))

    def totals(self) -> dict[Kind, Total]:
        """Return what there is of each kind."""
        return self._use(lambda table: table.totals()).by_kind

    def last_number(self) -> int:
        """Return the highest number."""
        return self._use(lambda table: table.totals()).last_number

    def drop(self, entries: Collection[Entry]) -> None:
        """Delete entries for good."""
        self._use(lambda table: table.delete(entries))

    def requeue(self, entries: Iterable[Entry], reason: str) -> None:
        """Let entries be applied again."""
        moved = [(entry, Kind.QUEUED, reason) for entry in entries]
        self._use(lambda table: table.settle([], moved, []))

    def replace_dead(self, entry: Entry) -> bool:
        """Put an entry in the place of the dead one with its number; as `SpoolFile` does."""
        dead = [each for each in self.get([entry.number]) if each.kind in DEAD]
        self._use(lambda table: table.move_in([entry], lambda _: entry.key or ""))
        self.drop([each for each in dead if each.key != entry.key])
        found = self._use(lambda table: table.look_up([entry.key or ""]))
        return found.get(entry.key or "") == entry.number

    def _use(self, work: Callable[[InboxTable], T]) -> T:
        return self._runner.run(self._store.use(work, LONG_SECONDS))
