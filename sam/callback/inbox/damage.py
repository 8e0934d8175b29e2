"""A damaged spool is set aside, never deleted."""

from datetime import UTC, datetime
from pathlib import Path


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
