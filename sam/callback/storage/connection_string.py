"""From the settings to an ODBC connection string."""

import re
from dataclasses import dataclass

from sam.callback.settings import Settings
from sam.callback.storage.drivers import Driver, find_driver, named_driver

# keyword=value; where the value may stand in braces, a closing one inside them doubled.
_PAIR = re.compile(
    r"\s*(?P<keyword>[^=;]*?)\s*="
    r"\s*(?:\{(?P<braced>(?:[^}]|\}\})*)\}\s*|(?P<plain>[^;]*))(?:;|\Z)"
)
_PLAIN_VALUE = re.compile(r"[\w.,:/\\-]*")
_SHORTEST_REDACTED = 4  # a shorter one would turn up by chance, and hide what the message says
_PASSWORD_KEYWORDS = {"pwd", "password"}


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
        for keyword, value in parse(self.text):
            if keyword in _PASSWORD_KEYWORDS and len(value) >= _SHORTEST_REDACTED:
                message = message.replace(value, "***")
        return message


def connection_string(settings: Settings) -> ConnectionString:
    """Build the connection string, or take SQL_SAM_CONNECTION_STRING as it is.

    Raises:
        DriverNotFoundError: If the driver it needs is not on this machine.
    """
    if settings.sql_sam_connection_string is not None:
        text = settings.sql_sam_connection_string.get_secret_value()
        return ConnectionString(text, _driver_in(text))
    driver = find_driver(settings.sql_sam_driver)
    password = settings.sql_sam_password
    pairs = {
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
        "".join(f"{keyword}={escape(value)};" for keyword, value in pairs.items()), driver
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
    if _PLAIN_VALUE.fullmatch(value):
        return value
    return "{" + value.replace("}", "}}") + "}"


def parse(text: str) -> list[tuple[str, str]]:
    """Read a connection string: its keywords in small letters, and their values, in order."""
    return [
        (
            pair["keyword"].lower(),
            pair["plain"].strip() if pair["braced"] is None else pair["braced"].replace("}}", "}"),
        )
        for pair in _PAIR.finditer(text)
    ]


def _driver_in(text: str) -> Driver:
    for keyword, value in parse(text):
        if keyword == "driver":
            return named_driver(value, "SQL_SAM_CONNECTION_STRING")
    return Driver("", "left to the DSN in SQL_SAM_CONNECTION_STRING")
