"""Which file a path leads to, and whether it lasts: on a disk, and on one of this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_IN_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs"}
_ON_NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph"} | {
    "fuse.sshfs",
    "glusterfs",
}


@dataclass(frozen=True, slots=True)
class Risk:
    """What is wrong with a file system.

    Attributes:
        kind: The file system's, as the system calls it.
        is_in_memory: Whether it is lost with the power; else it is on a network.
        action: What to do.
    """

    kind: str
    is_in_memory: bool
    action: str


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
