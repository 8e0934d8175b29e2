"""Spool ownership: an operating system lock on a file beside it."""

from pathlib import Path

from filelock import FileLock, Timeout

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.file_system import identity_of
from sam.callback.inbox.sqlite.schema import OlderSpoolError


class OwnedByAnotherError(Exception):
    """Another process owns the spool. The message says what to do."""


class Ownership:
    """The right of one process to a spool; held without a gap from `hold` to `release`.

    Args:
        path: The spool's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}.lock")
        self._lock: FileLock | None = None
        self._identity: tuple[int, int] | None = None

    def hold(self) -> None:
        """Own the spool, or go on to own it.

        Where the lock's file was deleted or replaced, the path's new one is locked first, and the
        old one is let go of only then.

        Raises:
            OwnedByAnotherError: If another process owns what the path leads to now.
            OSError: If the lock's file cannot be made.
        """
        if self._lock is not None and identity_of(self._path) == self._identity:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._path, mode=0o600, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise OwnedByAnotherError(
                "Another process owns the spool. Each instance needs a CALLBACK_SPOOL_PATH of its "
                "own; after a restart, the one before may still be ending."
            ) from None
        self.release()
        self._lock, self._identity = lock, identity_of(self._path)

    def release(self) -> None:
        """Give it up."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def open_beside(path: Path, max_bytes: int) -> SpoolFile:
    """Open a spool without owning it, beside the service that does or while none does.

    A file of an older release is migrated, unless a service has it.

    Raises:
        SpoolVersionError: If this release cannot use it now.
        sqlite3.Error: If it cannot be opened.
        OSError: If it cannot be opened.
    """
    try:
        return SpoolFile(path, max_bytes, may_migrate=False)
    except OlderSpoolError:
        ownership = Ownership(path)
        try:
            ownership.hold()
        except OwnedByAnotherError:
            pass  # the owner must be of that release
        else:
            SpoolFile(path, max_bytes).close()
        finally:
            ownership.release()
        return SpoolFile(path, max_bytes, may_migrate=False)
