"""The volume that the spool is on."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Disk:
    """Its room in bytes; what is free, is free for this process."""

    free: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Look at the volume of a file; None if that fails.

        It is looked at after a write that is safe: what the system says here must not undo that. A
        disk that does not answer blocks this, as any call.
        """
        try:
            usage = shutil.disk_usage(path.parent)
        except OSError:
            return None
        return cls(free=usage.free, size=usage.total)
