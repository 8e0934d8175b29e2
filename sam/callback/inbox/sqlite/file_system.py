"""File system of a spool: its kind, its free space, the identity of a file."""

import contextlib
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import psutil

_IN_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs"}
_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_ON_NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph"} | {
    "fuse.sshfs",
    "glusterfs",
}


@dataclass(frozen=True, slots=True)
class Risk:
    """Risk of keeping the spool on a file system.

    Attributes:
        kind: The file system's, as the system calls it.
        is_in_memory: Whether it is lost with the power; else it is on a network.
        action: What to do.
    """

    kind: str
    is_in_memory: bool
    action: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Its room in bytes; what is free, is free for this process."""

    free: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Look at the volume of a file; None if that fails.

        It is looked at after a durable write, which a failure here must not undo. A disk that does
        not answer blocks this, as any call.
        """
        try:
            usage = shutil.disk_usage(path.parent)
        except OSError:
            return None
        return cls(free=usage.free, size=usage.total)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return the device and the number of the file that a path leads to; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def kind_of(path: Path) -> str:
    """Return the file system that a path is on, as the system calls it; '' where it is not told."""
    path = path.resolve()  # a link may lead to another one
    partitions = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if path.is_relative_to(partition.mountpoint)
    ]
    if not partitions:
        return ""
    return max(partitions, key=lambda partition: len(partition.mountpoint)).fstype


def risk_of(path: Path) -> Risk | None:
    """Say what is wrong with the file system that a path is on."""
    kind = kind_of(path)
    if kind in _IN_MEMORY:
        action = "Set CALLBACK_SPOOL_PATH to a disk: this one forgets with the power."
        return Risk(kind, is_in_memory=True, action=action)
    if kind in _ON_NETWORK:
        action = "Set CALLBACK_SPOOL_PATH to a local disk: SQLite needs locks that work."
        return Risk(kind, is_in_memory=False, action=action)
    return None


def restrict_to_owner(path: Path) -> bool:
    """Take the rights of others on a spool, and on the files beside it.

    Returns:
        Whether they have none now; not where the files belong to another user.
    """
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            file = Path(f"{path}{suffix}")
            if file.stat().st_mode & _OF_OTHERS:
                try:
                    file.chmod(0o600)
                except PermissionError:
                    return False
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged file, with what belongs to it.

    Returns:
        Where it is now.

    Raises:
        OSError: If it cannot be renamed.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    for suffix in ("", "-wal", "-shm"):
        damaged = Path(f"{path}{suffix}")
        if damaged.exists():
            damaged.rename(f"{path}.corrupt-{stamp}{suffix}")
    return Path(f"{path}.corrupt-{stamp}")
