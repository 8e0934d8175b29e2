"""The spool: callbacks on this machine's disk, until the database has them.

One process owns it, by a lock of the operating system on a file beside it, for as long as it lives.
The command line may edit rows beside the owner, in transactions, and needs no lock.
"""

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from sam.callback.inbox.disk import Disk
from sam.callback.inbox.entries import Entry, Kind, Total
from sam.callback.inbox.file_system import Risk, risk_of
from sam.callback.inbox.numbering import Numbering
from sam.callback.inbox.spool_file import SpoolFile
from sam.callback.logs import get_logger
from sam.callback.threads import DaemonThreadPool

IO_SECONDS: Final = 5
"""How long the disk may take. What is not safe by then is not acknowledged."""

CLOSE_SECONDS: Final = 2
LOOK_UP_SECONDS: Final = 0.5
LOOK_UP_PAUSE_SECONDS: Final = 1.0

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class SpoolUnavailableError(Exception):
    """The spool cannot be written or read now. The message says why."""


class Spool:
    """The owner of a spool file. Its calls run on one thread of its own, in their order.

    A spool that cannot be opened is tried again with each call: what fails is that call.

    Args:
        path: The file.
        max_bytes: Its largest size.
        numbering: Continues after what the file holds, and is remembered in it.
    """

    def __init__(self, path: Path, max_bytes: int, numbering: Numbering) -> None:
        self.path = path
        self.is_writable = False
        self.totals: dict[Kind, Total] = dict.fromkeys(Kind, Total())
        """As of the last call."""
        self.disk: Disk | None = None
        """As of the last call; None if it is not known."""
        self.max_bytes = max_bytes
        self._numbering = numbering
        self._is_failing = False
        self._failed_at = -math.inf
        self._was_read = False
        self._lock = FileLock(f"{path}.lock", mode=0o600, thread_local=False)
        self._thread = DaemonThreadPool(1, "spool")
        self._file: SpoolFile | None = None  # the thread's

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
        with contextlib.suppress(SpoolUnavailableError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.wrap_future(self._thread.submit(self._close))
        self._thread.shutdown()

    def counts(self) -> dict[str, int]:
        """Return how many entries there are of each kind, as of the last call."""
        return {kind.value: self.totals[kind].entries for kind in Kind}

    @property
    def may_have_entries(self) -> bool:
        """Whether any deployment may have an entry.

        No one but this process adds deployments, so a no is true now; a yes may be out of date.
        """
        return not self._was_read or any(
            self.totals[kind].entries for kind in Kind if kind is not Kind.INVALID
        )

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Store entries; as `SpoolFile.put`.

        Raises:
            SpoolUnavailableError: If they may not be safe.
        """
        stored = await self._do(SpoolFile.put, entries, self._numbering.last)
        self._written()
        self._tell_if_full(is_full=not all(stored))
        return stored

    async def recheck(self) -> None:
        """Find out whether it can be written: only a write shows that.

        Raises:
            SpoolUnavailableError: If it cannot.
        """
        await self._do(SpoolFile.try_room)
        self._written()

    async def settle(
        self, done: Sequence[int], moved: Sequence[tuple[int, Kind, str]]
    ) -> list[int]:
        """Delete and move entries; as `SpoolFile.settle`.

        Raises:
            SpoolUnavailableError: If it may not have been done.
        """
        not_moved = await self._do(SpoolFile.settle, done, moved)
        self._tell_if_full(is_full=bool(not_moved))
        return not_moved

    async def with_entries(self, deployment_ids: Collection[str]) -> set[str]:
        """Return those of the deployments that have an entry.

        Callbacks for a healthy database wait for this: it gives up soon, and for a second it does
        not try again.

        Raises:
            SpoolUnavailableError: If the spool cannot be read.
        """
        if time.monotonic() - self._failed_at < LOOK_UP_PAUSE_SECONDS:
            raise SpoolUnavailableError("It failed a moment ago.")
        async with self._limit(LOOK_UP_SECONDS):
            return await self._do(SpoolFile.with_entries, deployment_ids)

    async def page(self, kind: Kind, *, after: int, limit: int) -> list[Entry]:
        """Return entries of a kind; as `SpoolFile.page`.

        Raises:
            SpoolUnavailableError: If the spool cannot be read.
        """
        return await self._do(SpoolFile.page, [kind], after=after, limit=limit)

    async def get(self, numbers: Collection[int]) -> list[Entry]:
        """Return the entries with these numbers that are still there.

        Raises:
            SpoolUnavailableError: If the spool cannot be read.
        """
        return await self._do(SpoolFile.get, numbers)

    async def _do(
        self, call: Callable[Concatenate[SpoolFile, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def on_thread() -> tuple[T, dict[Kind, Total], Disk | None]:
            if self._file is not None and self._file.has_moved():
                _log.critical("spool_moved", path=str(self.path), action="A new one is begun.")
                self._let_go()
            try:
                if self._file is None:
                    self._file = self._open()
                result = call(self._file, *args, **kwargs)
                return result, self._file.totals(), Disk.of(self.path)
            except sqlite3.Error as error:
                self._recover(error)  # before the next call may use what is broken
                raise

        try:
            async with self._limit(IO_SECONDS):
                result, self.totals, self.disk = await asyncio.wrap_future(
                    self._thread.submit(on_thread)
                )
        except Timeout:  # the lock's own
            raise self._failed(
                "Another process owns the spool. Each instance needs a CALLBACK_SPOOL_PATH of its "
                "own; after a restart, the one before may still be ending."
            ) from None
        except sqlite3.Error as error:
            is_full = _code(error) == sqlite3.SQLITE_FULL
            raise self._failed(f"SQLite says: {error}.", is_readable=is_full) from error
        except OSError as error:
            raise self._failed(f"The system says: {error}.") from error
        self._was_read = True
        return result

    @contextlib.asynccontextmanager
    async def _limit(self, seconds: float) -> AsyncIterator[None]:
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except Timeout:
            raise
        except TimeoutError:
            # The thread may still do it: what is there is not known until a later call succeeds.
            raise self._failed(f"The disk did not answer within {seconds:g} s.") from None

    def _open(self) -> SpoolFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # It counts how often it was taken, and its file may have gone with the spool's.
        self._lock.release(force=True)
        self._lock.acquire(blocking=False)
        file = SpoolFile(self.path, self.max_bytes)
        self._numbering.continue_after(file.last_number())
        return file

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.put([], self._numbering.last)  # the next process continues after it
        self._let_go()
        self._lock.release(force=True)

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None

    def _recover(self, error: sqlite3.Error) -> None:
        """Let go of the file, so that the next call opens it anew.

        After a failed fsync the system may have dropped what it could not write and tell the next
        one that all is well: nothing of the old handle is believed. A file that SQLite calls
        corrupt is set aside, with what belongs to it.
        """
        if _code(error) == sqlite3.SQLITE_FULL:
            return  # nothing is wrong with what is there
        self._let_go()
        if _code(error) in _CORRUPT and self._lock.is_locked:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
            for suffix in ("", "-wal", "-shm"):
                damaged = Path(f"{self.path}{suffix}")
                if damaged.exists():
                    damaged.rename(f"{self.path}.corrupt-{stamp}{suffix}")
            _log.critical(
                "spool_corrupt",
                path=str(self.path),
                set_aside=f"{self.path}.corrupt-{stamp}",
                action="A new spool was begun. Recover what is left: sqlite3 FILE .recover",
            )

    def _tell_if_full(self, *, is_full: bool) -> None:
        if is_full:
            _log.critical(
                "dead_letters_full",
                action="Export dead letters, and drop them: see `sam-callback spool --help`.",
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
            self._failed_at = time.monotonic()
        return SpoolUnavailableError(reason)


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
