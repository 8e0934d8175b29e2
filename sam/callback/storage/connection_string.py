"""From the settings to an ODBC connection string."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sam.callback.settings import Settings, SettingsError
from sam.callback.storage.drivers import Driver, find_driver, named_driver
from sam.callback.storage.server_address import ServerAddress

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
        *("uid", "user", "username", "app", "wsid", "encrypt", "encryption", "sslmode"),
        *("trustservercertificate", "trusted_connection", "multisubnetfailover", "tds_version"),
        *("authentication", "applicationintent", "hostnameincertificate", "timeout"),
    }
)
_PUBLIC_VALUE = re.compile(r"[\w.,:/\\@-]*")
_YES_NO: Final = {True: "yes", False: "no", None: None}
_WORD = re.compile(r"[^\s,;:={}()'\"]+")


class ConnectionStringError(SettingsError):
    """The settings are right one by one, but this driver cannot be told them."""


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What pyodbc is given. Its text is secret, so it does not show in ``repr``.

    Attributes:
        text: The string.
        driver: The driver that it names.
        secrets: What no message may repeat.
        caveat: What of the settings the driver does not do; '' if it does all.
    """

    text: str
    driver: Driver
    secrets: frozenset[str]
    caveat: str = ""

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
    """Build the connection string, or take SQL_SAM_CONNECTION_STRING as it is.

    Raises:
        DriverNotFoundError: If the driver it needs is not on this machine.
        ConnectionStringError: If this driver cannot be told the settings.
    """
    if settings.sql_sam_connection_string is not None:
        text = settings.sql_sam_connection_string.get_secret_value()
        pairs = parse(text)
        return ConnectionString(text, _driver_in(pairs), frozenset(_secrets_in(pairs)))
    driver = find_driver(settings.sql_sam_driver)
    try:
        server = ServerAddress.parse((settings.sql_sam_server or "").strip())
    except ValueError as error:
        raise ConnectionStringError(f"SQL_SAM_SERVER is wrong: {error}.") from None
    if driver.is_freetds:
        return _for_freetds(driver, server, settings)
    return _for_microsoft(driver, server, settings)


def _for_microsoft(driver: Driver, server: ServerAddress, settings: Settings) -> ConnectionString:
    """Write the keywords of Microsoft's drivers ("DSN and connection string keywords")."""
    password = settings.sql_sam_password
    pairs = {
        "DRIVER": driver.name,
        "SERVER": str(server),
        "DATABASE": settings.sql_sam_database,
        "UID": settings.sql_sam_user,
        "PWD": password.get_secret_value() if password else None,
        "Encrypt": settings.sql_sam_encrypt,
        "TrustServerCertificate": _YES_NO[settings.sql_sam_trust_server_certificate],
        "MultiSubnetFailover": _YES_NO[settings.sql_sam_multi_subnet_failover],
        "APP": "sam-callback",
    }
    return ConnectionString(
        "".join(f"{name}={escape(value)};" for name, value in pairs.items() if value),
        driver,
        frozenset({pairs["PWD"] or ""}),
    )


# "no" may encrypt too, as it does with Microsoft's driver, which never sends a password in the open
# to a server that knows encryption.
_FREETDS_ENCRYPTION = {
    "yes": "require",
    "mandatory": "require",
    "no": "request",
    "optional": "request",
    "strict": "strict",
}


def _for_freetds(driver: Driver, server: ServerAddress, settings: Settings) -> ConnectionString:
    """Write FreeTDS' own keywords (its user guide, "ODBC connection attributes").

    It ignores those it does not know, and with them what they ask for.
    """
    password = settings.sql_sam_password
    encryption = _FREETDS_ENCRYPTION[settings.sql_sam_encrypt]
    pairs = {
        "SERVER": server.host if server.port or not server.instance else server.with_instance,
        "PORT": server.port or ("" if server.instance else "1433"),
        "DATABASE": settings.sql_sam_database,
        "UID": settings.sql_sam_user,
        "PWD": password.get_secret_value() if password else None,
        "Encryption": encryption,
        # The first with all types that are bound here; "strict" implies a version of its own.
        "TDS_Version": "" if encryption == "strict" else "7.4",
        "APP": "sam-callback",
    }
    text = f"DRIVER={escape(driver.name)};" + "".join(
        f"{name}={_escape_for_freetds(value, name)};" for name, value in pairs.items() if value
    )
    checks = not settings.sql_sam_trust_server_certificate and encryption != "request"
    return ConnectionString(
        text,
        driver,
        frozenset({pairs["PWD"] or ""}),
        "FreeTDS encrypts, but checks the server's certificate only against a 'ca file' of its "
        "freetds.conf. Microsoft's driver checks it."
        if checks
        else "",
    )


def _escape_for_freetds(value: str, name: str) -> str:
    """Write a value as FreeTDS reads it.

    Its releases differ on a closing brace: 1.3 knows no doubled one. Without braces a value may
    hold anything but a semicolon, so they are for values with one, or that would be misread.

    Raises:
        ConnectionStringError: If it cannot be written.
    """
    if ";" not in value and not value.startswith("{") and value.strip() == value:
        return value
    if "}" in value:
        raise ConnectionStringError(
            f"FreeTDS cannot be told a value ({name}) that holds '}}' together with ';', or with a "
            "'{' or a space at an end. Change it, or install Microsoft's ODBC driver."
        )
    return "{" + value + "}"


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
                f"SQL_SAM_CONNECTION_STRING is wrong: its part {len(pairs) + 1} is no "
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


def _driver_in(pairs: Sequence[tuple[str, str]]) -> Driver:
    for keyword, value in pairs:
        if keyword == "driver":
            return named_driver(value, "SQL_SAM_CONNECTION_STRING", may_be_secret=True)
    return Driver("", "left to the DSN in SQL_SAM_CONNECTION_STRING")
