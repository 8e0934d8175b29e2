"""ODBC connection string, written from the settings or read for its secrets."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sam.callback.settings import Settings, SettingsError
from sam.callback.storage.odbc.drivers import Driver, find_driver, named_driver

# keyword=value; where the value may stand in braces, a closing one inside them doubled.
_PAIR = re.compile(
    r"[;\s]*(?P<keyword>[A-Za-z][\w .-]*?)\s*="
    r"\s*(?:\{(?P<braced>(?:[^}]|\}\})*)\}\s*|(?P<plain>[^;]*))(?:;[;\s]*|\Z)"
)
_PLAIN_VALUE = re.compile(r"[\w.,:/\\-]*")
_SHORTEST_REDACTED = 4  # a shorter one would turn up by chance, and hide what the message says
_PASSWORD_KEYWORDS: Final = frozenset({"pwd", "password"})
_PUBLIC_KEYWORDS: Final = frozenset(
    {
        *("driver", "dsn", "server", "servername", "address", "addr", "port", "database"),
        *("uid", "user", "username", "app", "wsid", "encrypt", "sslmode"),
        *("trustservercertificate", "trusted_connection", "multisubnetfailover"),
        *("authentication", "applicationintent", "hostnameincertificate", "timeout"),
    }
)
_PUBLIC_VALUE = re.compile(r"[\w.,:/\\@-]*")
_YES_NO: Final = {True: "yes", False: "no", None: None}
_BRACKETS = re.compile(r"\[([0-9a-f:.]+(?:%\w+)?)\]", re.IGNORECASE)
_PORT_AFTER_A_COLON = re.compile(r"(?:[^:]*|\[.*\]):\d+")
_WORD = re.compile(r"[^\s,;:={}()'\"]+")


class ConnectionStringError(SettingsError):
    """The settings are no connection string. The message holds no secret."""


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What pyodbc is given. Its text is secret, so it does not show in ``repr``.

    Attributes:
        text: The string.
        driver: The driver that it names.
        secrets: What no message may repeat.
    """

    text: str
    driver: Driver
    secrets: frozenset[str]

    def __repr__(self) -> str:
        """Tell the driver only."""
        return f"ConnectionString(driver={self.driver!r})"

    def redact(self, message: str) -> str:
        """Take out of a driver's message what is secret, should it quote that."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_REDACTED:
                message = re.sub(re.escape(secret), "***", message, flags=re.IGNORECASE)
        return message


def connection_string(settings: Settings) -> ConnectionString:
    """Write the connection string, or take SQL_SAM_CONNECTION_STRING as it is.

    Its keywords are those of Microsoft's drivers ("DSN and connection string keywords").

    Raises:
        DriverNotFoundError: If the driver it needs is not on this machine.
        ConnectionStringError: If SQL_SAM_SERVER or SQL_SAM_CONNECTION_STRING cannot be read.
    """
    if settings.sql_sam_connection_string is not None:
        text = settings.sql_sam_connection_string.get_secret_value()
        return read_connection_string(text, "SQL_SAM_CONNECTION_STRING")
    driver = find_driver(settings.sql_sam_driver)
    password = settings.sql_sam_password.get_secret_value() if settings.sql_sam_password else ""
    keywords = {
        "DRIVER": driver.name,
        "SERVER": _server_address(settings.sql_sam_server or ""),
        "DATABASE": settings.sql_sam_database,
        "UID": settings.sql_sam_user,
        "PWD": password,
        "Encrypt": settings.sql_sam_encrypt,
        "TrustServerCertificate": _YES_NO[settings.sql_sam_trust_server_certificate],
        "MultiSubnetFailover": _YES_NO[settings.sql_sam_multi_subnet_failover],
        "APP": "sam-callback",
    }
    text = "".join(f"{name}={escape(value)};" for name, value in keywords.items() if value)
    return ConnectionString(text, driver, frozenset({password}))


def read_connection_string(text: str, variable: str) -> ConnectionString:
    """Take a connection string as it is.

    Args:
        text: The string.
        variable: The variable that it comes from.

    Raises:
        DriverNotFoundError: If the driver it names is not on this machine.
        ConnectionStringError: If it cannot be read.
    """
    pairs = _parse(text, variable)
    return ConnectionString(text, _driver_in(pairs, variable), frozenset(_secrets_in(pairs)))


def _server_address(text: str) -> str:
    r"""Return 'host', 'host,port' or 'host\instance' as Microsoft's drivers take it.

    They take an address of IPv6 without brackets only (18.6).
    """
    text = text.strip()
    if _PORT_AFTER_A_COLON.fullmatch(text):
        raise ConnectionStringError(
            "SQL_SAM_SERVER is wrong: a port stands after a comma, as in 'db.example,1433'."
        )
    return _BRACKETS.sub(r"\1", text)


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


def _parse(text: str, variable: str) -> list[tuple[str, str]]:
    """Read a connection string: its keywords in small letters, and their values, in order.

    Raises:
        ConnectionStringError: If it is no list of them. The message repeats nothing of it.
    """
    pairs: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise ConnectionStringError(
                f"{variable} is wrong: its part {len(pairs) + 1} is no "
                "keyword=value. Parts end with ';'. A value that holds one stands in braces, "
                "as in PWD={a;b}."
            )
        position = pair.end()
        braced = pair["braced"]
        value = pair["plain"].strip() if braced is None else braced.replace("}}", "}")
        pairs.append((pair["keyword"].lower(), value))
    return pairs


def _secrets_in(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Return what of a connection string is not known to be no secret.

    Where no password is found, it may be anywhere: a separator may be missing.
    """
    has_password = any(keyword in _PASSWORD_KEYWORDS and value for keyword, value in pairs)
    for keyword, value in pairs:
        is_public = keyword in _PUBLIC_KEYWORDS and _PUBLIC_VALUE.fullmatch(value) is not None
        if keyword == "driver" or (has_password and is_public):
            continue
        yield value
        yield from _WORD.findall(value)
        if keyword not in _PUBLIC_KEYWORDS | _PASSWORD_KEYWORDS:
            yield keyword


def _driver_in(pairs: Sequence[tuple[str, str]], variable: str) -> Driver:
    for keyword, value in pairs:
        if keyword == "driver":
            return named_driver(value, variable, may_be_secret=True)
    return Driver("", f"left to the DSN in {variable}")
