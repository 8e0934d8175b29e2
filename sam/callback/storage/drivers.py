"""From the settings to an ODBC connection string, and the driver that it names."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path

import pyodbc

from sam.callback.settings import Settings

_MICROSOFT_DRIVER = re.compile(r"ODBC Driver (\d+) for SQL Server")
_VALUE = r"\s*=\s*(?:\{(?P<braced>(?:[^}]|\}\})*)\}|(?P<plain>[^;]*))"
_DRIVER_IN_STRING = re.compile(rf"(?:^|;)\s*driver{_VALUE}", re.IGNORECASE)
_PASSWORD_IN_STRING = re.compile(rf"(?:^|;)\s*(?:pwd|password){_VALUE}", re.IGNORECASE)

_SQLITE_DRIVER = re.compile(r"SQLite3.*", re.IGNORECASE)
_SQLITE_LIBRARIES = (  # Homebrew registers no driver
    Path("/opt/homebrew/lib/libsqlite3odbc.dylib"),
    Path("/usr/local/lib/libsqlite3odbc.dylib"),
)

_HOW_TO_GET_ONE = (
    "Install Microsoft's ODBC Driver 18 for SQL Server, or this package's dependency "
    "mssql-python-odbc, or FreeTDS (Debian: tdsodbc), or name another in SQL_SAM_DRIVER."
)


class DriverNotFoundError(Exception):
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


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What pyodbc is given. Its text is secret, so it does not show in ``repr``."""

    text: str
    driver: Driver

    def __repr__(self) -> str:
        """Tell the driver only."""
        return f"ConnectionString(driver={self.driver!r})"

    def redact(self, message: str) -> str:
        """Take the password out of a driver's message, should one ever quote it."""
        for match in _PASSWORD_IN_STRING.finditer(self.text):
            password = (match["braced"] or "").replace("}}", "}") or (match["plain"] or "").strip()
            if password:
                message = message.replace(password, "***")
        return message


def connection_string(settings: Settings) -> ConnectionString:
    """Build the connection string, or take SQL_SAM_CONNECTION_STRING as it is.

    Raises:
        DriverNotFoundError: If the driver it needs is not on this machine.
    """
    if settings.sql_sam_connection_string is not None:
        text = settings.sql_sam_connection_string.get_secret_value()
        return ConnectionString(text, _driver_named_in(text))
    driver = find_driver(settings.sql_sam_driver)
    password = settings.sql_sam_password
    parts = {
        "DRIVER": driver.name,
        "SERVER": settings.sql_sam_server or "",
        "DATABASE": settings.sql_sam_database or "",
        "UID": settings.sql_sam_user or "",
        "PWD": password.get_secret_value() if password else "",
        "Encrypt": settings.sql_sam_encrypt,
        "TrustServerCertificate": settings.sql_sam_trust_server_certificate,
        "APP": "sam-callback",
    }
    return ConnectionString(
        "".join(f"{keyword}={escape(value)};" for keyword, value in parts.items()), driver
    )


def escape(value: str) -> str:
    """Write a value as ODBC wants it in a connection string.

    In braces any character may stand, a closing brace doubled (ODBC, SQLDriverConnect, "Comments").
    A value of letters, digits and harmless signs is left plain.

    Raises:
        ValueError: If the value holds NUL, which ends a connection string.
    """
    if "\0" in value:
        raise ValueError("a value of the connection string holds the character NUL")
    if re.fullmatch(r"[\w.,:/\\-]*", value):
        return value
    return "{" + value.replace("}", "}}") + "}"


def find_driver(wanted: str | None = None) -> Driver:
    """Choose the driver for SQL Server.

    Args:
        wanted: A registered name or the path of a library. Without it: the newest of Microsoft's
            that is registered on this machine, else the one that the package mssql-python-odbc
            carries, else FreeTDS.

    Raises:
        DriverNotFoundError: If there is none, or not the one wanted.
    """
    registered = pyodbc.drivers()
    if wanted is not None:
        if wanted in registered or _is_library(wanted):
            return Driver(wanted, "named in SQL_SAM_DRIVER")
        raise DriverNotFoundError(
            f"The ODBC driver '{wanted}' of SQL_SAM_DRIVER does not exist on this machine. "
            f"Registered: {_listed(registered)}."
        )
    if microsoft := [match for name in registered if (match := _MICROSOFT_DRIVER.fullmatch(name))]:
        newest = max(microsoft, key=lambda match: int(match[1]))
        return Driver(newest[0], "the newest of Microsoft's drivers on this machine")
    if bundled := _bundled_driver():
        return Driver(str(bundled), "carried by the package mssql-python-odbc")
    if "FreeTDS" in registered:
        return Driver("FreeTDS", "the only SQL Server driver on this machine")
    raise DriverNotFoundError(f"There is no ODBC driver for SQL Server. {_HOW_TO_GET_ONE}")


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


def _driver_named_in(text: str) -> Driver:
    match = _DRIVER_IN_STRING.search(text)
    if match is None:  # a DSN names its driver elsewhere
        return Driver("", "left to the DSN in SQL_SAM_CONNECTION_STRING")
    name = (match["braced"] or "").replace("}}", "}") or (match["plain"] or "").strip()
    registered = pyodbc.drivers()
    if name in registered or _is_library(name):
        return Driver(name, "named in SQL_SAM_CONNECTION_STRING")
    raise DriverNotFoundError(
        f"The ODBC driver '{name}' of SQL_SAM_CONNECTION_STRING does not exist on this machine. "
        f"Registered: {_listed(registered)}."
    )


def _is_library(name: str) -> bool:
    return ("/" in name or "\\" in name) and Path(name).is_file()


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names)) or "none"


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
