"""The machine of a run, without which no figure can be judged."""

import importlib.metadata
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from pydantic import BaseModel

LIBRARIES: Final = (
    "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "orjson", "structlog",
    "aioodbc", "pyodbc",
)  # fmt: skip
_PACKAGES = ("wrk", "libsqliteodbc", "odbc-postgresql", "postgresql", "unixodbc")
_CHECKOUT = Path(__file__).parents[2]


class Machine(BaseModel):
    """A machine, the software on it, and the commit that was measured."""

    date: str
    commit: str
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    system: str
    file_system: str
    python: str
    libraries: dict[str, str]
    packages: dict[str, str]


def this_machine() -> Machine:
    """Look at this machine."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        cpu=_cpu(),
        cores=psutil.cpu_count() or 0,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        kernel=f"{platform.system()} {platform.release()}",
        system=_system(),
        file_system=_file_system(Path(tempfile.gettempdir())),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        packages={name: version for name in _PACKAGES if (version := _package(name))},
    )


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=20
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _commit() -> str:
    commit = _run("git", "describe", "--always", "--abbrev=10", "--dirty")
    return commit or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.platform()


def _file_system(path: Path) -> str:
    """Tell the file system of a path: an fsync on one in memory costs nothing."""
    partitions = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if path.resolve().is_relative_to(partition.mountpoint)
    ]
    nearest = max(partitions, key=lambda partition: len(partition.mountpoint), default=None)
    return nearest.fstype if nearest else "unknown"


def _package(name: str) -> str:
    return _run("dpkg-query", "--show", "--showformat=${Version}", name)
