"""Whether a file is where it lasts: on a disk, and on one of this machine."""

from dataclasses import dataclass
from pathlib import Path

import psutil

_RISKS = (
    (
        "spool_in_memory",
        {"tmpfs", "ramfs", "devtmpfs"},
        "Set CALLBACK_SPOOL_PATH to a disk: this one forgets with the power.",
    ),
    (
        "spool_on_network",
        {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"},
        "Set CALLBACK_SPOOL_PATH to a local disk: SQLite needs locks that work.",
    ),
)


@dataclass(frozen=True, slots=True)
class Risk:
    """What is wrong with a file system.

    Attributes:
        event: Its name in the log.
        kind: The file system's, as the system calls it.
        action: What to do.
    """

    event: str
    kind: str
    action: str


def kind_of(path: Path) -> str:
    """Return the file system that a path is on, as the system calls it; '' where it is not told."""
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
    for event, kinds, action in _RISKS:
        if kind in kinds:
            return Risk(event, kind, action)
    return None
