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
    def of(cls, path: Path) -> Self:
        """Look at the volume of a file. A disk that does not answer blocks this, as any call.

        Raises:
            OSError: If its directory cannot be looked at.
        """
        usage = shutil.disk_usage(path.parent)
        return cls(free=usage.free, size=usage.total)
