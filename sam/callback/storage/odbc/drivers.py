"""ODBC driver selection, with its reason."""

import difflib
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import pyodbc

from sam.callback.settings import SettingsError

_MICROSOFT_DRIVER = re.compile(r"ODBC Driver (\d+) for SQL Server")
_MICROSOFT_LIBRARY = re.compile(r".*msodbcsql[^/\\]*", re.IGNORECASE)
_SQLITE_DRIVER = re.compile(r"SQLite3.*", re.IGNORECASE)
_SQLITE_LIBRARIES = (  # Homebrew registers no driver
    Path("/opt/homebrew/lib/libsqlite3odbc.dylib"),
    Path("/usr/local/lib/libsqlite3odbc.dylib"),
)


class DriverNotFoundError(SettingsError):
    """No such ODBC driver. The message says which was looked for and how to get one."""


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


def find_driver(wanted: str | None = None) -> Driver:
    """Choose one of Microsoft's drivers, whose keywords the connection string has.

    Args:
        wanted: A registered name or the path of a library. Without it: the newest that is
            registered on this machine, else the one that the package mssql-python-odbc carries.

    Raises:
        DriverNotFoundError: If there is none, or not the one wanted, or that one is another's: it
            would ignore keywords that it does not know, such as `Encrypt`.
    """
    if wanted is not None:
        driver = named_driver(wanted, "SQL_SAM_DRIVER")
        if not (_MICROSOFT_DRIVER.fullmatch(wanted) or _MICROSOFT_LIBRARY.fullmatch(wanted)):
            raise DriverNotFoundError(
                f"SQL_SAM_DRIVER: '{wanted}' is not one of Microsoft's drivers for SQL Server. "
                "Another driver may ignore settings, such as SQL_SAM_ENCRYPT. Leave it out, or "
                "write what that driver needs into SQL_SAM_CONNECTION_STRING."
            )
        return driver
    if registered := list(filter(None, map(_MICROSOFT_DRIVER.fullmatch, pyodbc.drivers()))):
        newest = max(registered, key=lambda match: int(match[1]))
        return Driver(newest[0], "the newest of Microsoft's drivers on this machine")
    if bundled := _bundled_driver():
        return Driver(str(bundled), "carried by the package mssql-python-odbc")
    raise DriverNotFoundError(
        "There is no ODBC driver for SQL Server. Install Microsoft's ODBC Driver 18 for SQL "
        "Server, or this package's dependency mssql-python-odbc (Linux)."
    )


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
    is_library = ("/" in name or "\\" in name) and Path(name).is_file()
    if name in registered or is_library:
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
    for name in filter(_SQLITE_DRIVER.fullmatch, pyodbc.drivers()):
        return Driver(name, "registered on this machine")
    for library in filter(Path.is_file, _SQLITE_LIBRARIES):
        return Driver(str(library), "installed by Homebrew")
    raise DriverNotFoundError(
        "There is no ODBC driver for SQLite, which the embedded database needs. "
        "Debian and Ubuntu: apt install libsqliteodbc. macOS: brew install sqliteodbc. "
        "Windows: the installer from the author's page, ch-werner.de/sqliteodbc."
    )


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
