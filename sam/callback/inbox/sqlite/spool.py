"""Spool: callbacks on this machine's disk, until the database has them.

One process owns it, by a lock of the operating system on a file beside it, for as long as it lives.
The command line may edit rows beside the owner, in transactions, and needs no lock.
"""

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sqlite.disk_thread import DiskHangsError, DiskThread
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.file_system import Disk, Risk, risk_of, set_aside
from sam.callback.inbox.sqlite.key_filter import KeyFilter
from sam.callback.inbox.sqlite.ownership import OwnedByAnotherError, Ownership
from sam.callback.inbox.sqlite.schema import SpoolVersionError
from sam.callback.inbox.store import DEAD, Due, Entry, Kind, StoreUnavailableError, Total
from sam.callback.logs import get_logger
from sam.callback.storage.key_rule import COARSEST, KeyRule

IO_SECONDS: Final = 5
"""Time limit of a call on the disk. What is not durable by then is not acknowledged."""

CLOSE_SECONDS: Final = 2
LOOK_UP_SECONDS: Final = 0.5
LOOK_UP_PAUSE_SECONDS: Final = 1.0

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_INTACT = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
"""Nothing is wrong with what is there, and it can be read."""

_log = get_logger(__name__)

T = TypeVar("T")


class SpoolUnavailableError(StoreUnavailableError):
    """The spool cannot be written or read now. The message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The spool: {reason}")


class _Snapshot(NamedTuple):
    """State of the file, as of a call."""

    totals: dict[Kind, Total]
    disk: Disk | None
    last_number: int
    key_rule: str


class Spool:
    """The owner of a spool file. Its calls run on one thread of its own, in their order.

    A spool that cannot be opened is tried again with each call: what fails is that call.

    Args:
        path: The file.
        max_bytes: Its largest size.
        sequence: Continues after what the file holds, and is remembered in it.

    Attributes:
        is_writable: Whether the last write succeeded, and no read failed since.
        totals: What there is of each kind, as of the last call.
        disk: Its volume, as of the last call; None if it is not known.
        key_rule: The name of the rule that its keys follow, as of the last call.
    """

    def __init__(self, path: Path, max_bytes: int, sequence: Sequence) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.is_writable = False
        self.totals: dict[Kind, Total] = dict.fromkeys(Kind, Total())
        self.disk: Disk | None = None
        self.key_rule = ""
        self._sequence = sequence
        self._is_failing = False
        self._was_read = self._has_entries = False
        self._filter = KeyFilter()
        self._look_up_at = -math.inf
        self._rule: tuple[str, Callable[[str], str]] | None = None
        self._thread = DiskThread("spool")
        # The thread's own:
        self._ownership = Ownership(path)
        self._file: SpoolFile | None = None
        self._last_number = 0  # as of when it was opened

    async def open(self) -> None:
        """Open the file; make it if it is missing. If that fails, it is logged."""
        with contextlib.suppress(SpoolUnavailableError):
            await self.recheck()
            _log.info("spool_open", path=str(self.path), **self.counts())
            self._warn_of(risk_of(self.path))

    def _warn_of(self, risk: Risk | None) -> None:
        path = str(self.path)
        if risk is None:
            return
        if risk.is_in_memory:
            _log.critical("spool_in_memory", path=path, file_system=risk.kind, action=risk.action)
        else:
            _log.critical("spool_on_network", path=path, file_system=risk.kind, action=risk.action)

    async def close(self) -> None:
        """Close the file, and give up its ownership."""
        with contextlib.suppress(DiskHangsError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._thread.run(partial(self._close, self._sequence.last), None)
        self._thread.shutdown()

    def counts(self) -> dict[str, int]:
        """Return how many entries there are of each kind, as of the last call."""
        return {kind.value: self.totals[kind].entries for kind in Kind}

    def may_have_entry(self, key: str) -> bool:
        """Whether a deployment may have an entry, without a look; a no is true now.

        Only this process adds deployments. What an operator applies by hand, from beside, is
        seen with the replayer's next look.

        Args:
            key: The coarsest key of its id.
        """
        return not self._was_read or (self._has_entries and key in self._filter)

    async def put(self, entries: Collection[Entry]) -> list[bool]:
        """Store entries, under the keys that their deployments have here; as `SpoolFile.put`.

        Raises:
            SpoolUnavailableError: If they may not be durable.
        """
        last = self._sequence.last
        self._remember(entries)
        stored = await self._use(lambda file: file.put(self._with_keys(entries, file), last))
        self._written()
        self._warn_if_full(
            entry.kind for entry, is_stored in zip(entries, stored, strict=True) if not is_stored
        )
        return stored

    async def recheck(self) -> None:
        """Find out whether it can be written: only a write shows that.

        Raises:
            SpoolUnavailableError: If it cannot.
        """
        await self._use(lambda file: file.try_room())
        self._written()

    async def settle(
        self,
        done: Collection[Entry] = (),
        moved: Collection[tuple[Entry, Kind, str]] = (),
        put_off: Collection[tuple[Entry, int]] = (),
    ) -> list[Entry]:
        """Delete, move and put off entries; as `Store.settle`.

        Raises:
            SpoolUnavailableError: If it may not have been done.
        """
        not_moved = await self._use(lambda file: file.settle(done, moved, put_off))
        self._warn_if_full(kind for entry, kind, _ in moved if entry in not_moved)
        return not_moved

    async def with_entries(self, deployment_ids: Collection[str]) -> set[str]:
        """Return those of the deployments' ids that have an entry, by `key_rule` as it is then.

        Callbacks for a healthy database wait for this: it gives up soon, and for a second it does
        not try again.

        Raises:
            SpoolUnavailableError: If the spool cannot be read, or not soon enough.
        """
        if time.monotonic() < self._look_up_at:
            raise SpoolUnavailableError("It failed a moment ago.")
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                return await self._use(partial(self._look_up, deployment_ids))
        except TimeoutError:  # which may be the fault of what was before it
            self._look_up_at = time.monotonic() + LOOK_UP_PAUSE_SECONDS
            raise SpoolUnavailableError(f"It took more than {LOOK_UP_SECONDS:g} s.") from None

    async def due(self, limit: int, *, retries: bool = True) -> Due:
        """Return entries to be tried now; as `SpoolFile.due`.

        Raises:
            SpoolUnavailableError: If the spool cannot be read.
        """
        due = await self._use(lambda file: file.due(limit, retries=retries))
        self._remember(due.entries)  # an operator may have made some, from beside
        return due

    async def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds; as `SpoolFile.page`.

        Raises:
            SpoolUnavailableError: If the spool cannot be read.
        """
        return await self._use(lambda file: file.page(kinds, after=after, limit=limit))

    async def rekey(self, rule: str, key_of: Callable[[str], str]) -> None:
        """Let the keys follow a rule, now and in whatever file is opened later.

        It may take long: a minute for a million entries that all get another key.

        Args:
            rule: The rule's name.
            key_of: The rule: what the database takes a deployment's id for.

        Raises:
            SpoolUnavailableError: If that could not be done yet; it is tried with each call.
        """
        self._rule = rule, key_of
        await self._use(lambda _: None, is_long=True)

    async def _use(self, work: Callable[[SpoolFile], T], *, is_long: bool = False) -> T:
        """Use the file on its thread, within `IO_SECONDS` unless it is long work."""
        try:
            result, snapshot = await self._thread.run(
                partial(self._on_thread, work), None if is_long else IO_SECONDS
            )
        except DiskHangsError:
            # The thread may still do it: what is there is not known until a later call succeeds.
            raise self._failed(f"The disk did not answer within {IO_SECONDS:g} s.") from None
        except (OwnedByAnotherError, SpoolVersionError) as error:
            raise self._failed(str(error)) from None
        except sqlite3.Error as error:
            is_readable = _code(error) in _INTACT
            raise self._failed(f"SQLite says: {error}.", is_readable=is_readable) from error
        except OSError as error:
            raise self._failed(f"The system says: {error}.") from error
        self.totals, self.disk, self.key_rule = snapshot.totals, snapshot.disk, snapshot.key_rule
        self._sequence.continue_after(snapshot.last_number)
        self._has_entries = any(
            total.entries for kind, total in snapshot.totals.items() if kind is not Kind.INVALID
        )
        self._was_read = True
        return result

    def _on_thread(self, work: Callable[[SpoolFile], T]) -> tuple[T, _Snapshot]:
        if self._file is not None and self._file.has_moved():
            _log.critical("spool_moved", path=str(self.path), action="A new one is begun.")
            self._let_go()
        self._ownership.hold()
        try:
            if self._file is None:
                self._file = SpoolFile(self.path, self.max_bytes)
                self._last_number = self._file.last_number()
                self._filter.add(map(COARSEST.key, self._file.deployment_ids()))
            file = self._file
            if self._rule is not None:
                file.rekey(*self._rule)
            result = work(file)
            snapshot = _Snapshot(
                file.totals(), Disk.of(self.path), self._last_number, file.key_rule
            )
        except sqlite3.Error as error:
            self._recover(error)  # before the next call may use what is broken
            raise
        return result, snapshot

    def _key_of(self, file: SpoolFile) -> Callable[[str], str]:
        return KeyRule.named(file.key_rule).key if self._rule is None else self._rule[1]

    def _with_keys(self, entries: Collection[Entry], file: SpoolFile) -> Collection[Entry]:
        if not file.key_rule:
            return entries
        key_of = self._key_of(file)
        return [
            entry
            if entry.deployment_id is None
            else replace(entry, key=key_of(entry.deployment_id))
            for entry in entries
        ]

    def _look_up(self, deployment_ids: Collection[str], file: SpoolFile) -> set[str]:
        keys = dict(zip(deployment_ids, map(self._key_of(file), deployment_ids), strict=True))
        found = file.with_entries(set(keys.values()))
        return {deployment_id for deployment_id, key in keys.items() if key in found}

    def _close(self, last_number: int) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.put([], last_number)  # the next process continues after it
        self._let_go()
        self._ownership.release()

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None

    def _recover(self, error: sqlite3.Error) -> None:
        """Let go of the file, so that the next call opens it anew.

        After a failed fsync the system may have dropped what it could not write and report
        success to the next one: the old handle is not trusted. A file that SQLite calls
        corrupt is set aside, with what belongs to it.
        """
        if _code(error) in _INTACT:
            return
        self._let_go()
        if _code(error) in _CORRUPT:
            _log.critical(
                "spool_corrupt",
                path=str(self.path),
                set_aside=str(set_aside(self.path)),
                action="A new spool was begun. Recover what is left: sqlite3 FILE .recover",
            )

    def _remember(self, entries: Iterable[Entry]) -> None:
        ids = (entry.deployment_id for entry in entries if entry.deployment_id is not None)
        self._filter.add(map(COARSEST.key, ids))

    def _warn_if_full(self, refused: Iterable[Kind]) -> None:
        kinds = set(refused)
        if not kinds.isdisjoint(DEAD):
            _log.critical(
                "dead_letters_full",
                action="Export dead letters, and drop them: see `sam-callback spool --help`.",
            )
        if Kind.UNMATCHED in kinds:
            _log.critical(
                "unmatched_full",
                action="See which deployments have no row: `sam-callback spool list`.",
            )

    def _written(self) -> None:
        if self._is_failing:
            _log.info("spool_available", path=str(self.path))
        self._is_failing = False
        self.is_writable = True

    def _failed(self, reason: str, *, is_readable: bool = False) -> SpoolUnavailableError:
        if not self._is_failing:
            _log.critical("spool_unavailable", path=str(self.path), reason=reason)
        self._is_failing = True
        self.is_writable = False
        if not is_readable:
            self._was_read = False
            self._look_up_at = time.monotonic() + LOOK_UP_PAUSE_SECONDS
        return SpoolUnavailableError(reason)


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
