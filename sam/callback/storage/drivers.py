"""The ODBC driver: which one, and why."""

import difflib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import pyodbc

from sam.callback.settings import SettingsError

_MICROSOFT_DRIVER = re.compile(r"ODBC Driver (\d+) for SQL Server")
_SQLITE_DRIVER = re.compile(r"SQLite3.*", re.IGNORECASE)
_SQLITE_LIBRARIES = (  # Homebrew registers no driver
    Path("/opt/homebrew/lib/libsqlite3odbc.dylib"),
    Path("/usr/local/lib/libsqlite3odbc.dylib"),
)

_HOW_TO_GET_ONE = (
    "Install Microsoft's ODBC Driver 18 for SQL Server, or this package's dependency "
    "mssql-python-odbc, or FreeTDS (Debian: tdsodbc), or name another in SQL_SAM_DRIVER."
)


class DriverNotFoundError(SettingsError):
    """There is no such ODBC driver. The message says which was looked for and how to get one."""


@dataclass(frozen=True, slots=True)
class Driver:
    """An ODBC driver.

    Attributes:
        name: Its registered name, or the path of its library.
        reason: Why it was chosen, for the start-up log.
    """

    name: str
    reason: str

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a driver for SQLite, by its name."""
        return "sqlite" in self.name.lower()

    @property
    def is_freetds(self) -> bool:
        """Whether it is FreeTDS, by its name or its library's."""
        return any(name in self.name.lower() for name in ("freetds", "tdsodbc"))


def find_driver(wanted: str | None = None) -> Driver:
    """Choose the driver for SQL Server.

    Args:
        wanted: A registered name or the path of a library. Without it: the newest of Microsoft's
            that is registered on this machine, else the one that the package mssql-python-odbc
            carries, else FreeTDS.

    Raises:
        DriverNotFoundError: If there is none, or not the one wanted.
    """
    if wanted is not None:
        return named_driver(wanted, "SQL_SAM_DRIVER")
    registered = pyodbc.drivers()
    if microsoft := [match for name in registered if (match := _MICROSOFT_DRIVER.fullmatch(name))]:
        newest = max(microsoft, key=lambda match: int(match[1]))
        return Driver(newest[0], "the newest of Microsoft's drivers on this machine")
    if bundled := _bundled_driver():
        return Driver(str(bundled), "carried by the package mssql-python-odbc")
    if "FreeTDS" in registered:
        return Driver("FreeTDS", "the only SQL Server driver on this machine")
    raise DriverNotFoundError(f"There is no ODBC driver for SQL Server. {_HOW_TO_GET_ONE}")


def named_driver(name: str, variable: str, *, may_be_secret: bool = False) -> Driver:
    """Return the driver that a variable names.

    Args:
        name: A registered name or the path of a library.
        variable: The environment variable that holds it.
        may_be_secret: Whether the message may not repeat the name: in a misspelt connection string
            a part of the password may be in it.

    Raises:
        DriverNotFoundError: If there is no such driver.
    """
    registered = pyodbc.drivers()
    if name in registered or _is_library(name):
        return Driver(name, f"named in {variable}")
    which = "The ODBC driver that it names" if may_be_secret else f"The ODBC driver '{name}'"
    meant = "".join(
        f" Is '{each}' meant?" for each in difflib.get_close_matches(name, registered, 1)
    )
    raise DriverNotFoundError(
        f"{variable}: {which} does not exist on this machine.{meant} "
        f"Registered: {', '.join(sorted(registered)) or 'none'}."
    )


def find_sqlite_driver() -> Driver:
    """Choose the driver for the embedded database.

    Raises:
        DriverNotFoundError: If there is none.
    """
    for name in pyodbc.drivers():
        if _SQLITE_DRIVER.fullmatch(name):
            return Driver(name, "registered on this machine")
    for library in _SQLITE_LIBRARIES:
        if library.is_file():
            return Driver(str(library), "installed by Homebrew")
    raise DriverNotFoundError(
        "There is no ODBC driver for SQLite, which the embedded database needs. "
        "Debian and Ubuntu: apt install libsqliteodbc. macOS: brew install sqliteodbc. "
        "Windows: the installer from the author's page, ch-werner.de/sqliteodbc."
    )


def _is_library(name: str) -> bool:
    return ("/" in name or "\\" in name) and Path(name).is_file()


def _bundled_driver() -> Path | None:
    try:
        import mssql_python_odbc  # noqa: PLC0415 - a dependency on Linux only
    except ImportError:
        return None
    libraries = Path(mssql_python_odbc.get_libs_dir())
    machine = platform.machine().lower().replace("aarch64", "arm64")
    found = sorted(libraries.glob(f"linux/{_distribution_family()}/{machine}/lib/libmsodbcsql*"))
    return found[-1] if found else None


def _distribution_family() -> str:
    """Name the package's folder whose driver is linked against this system's libraries."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "debian_ubuntu"
    names = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if names & {"rhel", "fedora", "centos"}:
        return "rhel"
    if names & {"suse", "opensuse", "sles"}:
        return "suse"
    return "alpine" if "alpine" in names else "debian_ubuntu"
