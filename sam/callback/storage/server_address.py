"""Where a SQL Server is: what SQL_SAM_SERVER says, taken apart."""

import re
from dataclasses import dataclass
from typing import Self

_ADDRESS = re.compile(
    r"(?P<protocol>[a-z]+:(?!:))?"
    r"(?P<host>\[[0-9a-f:.%\w]+\]|[^\\,\[\]]+)"
    r"(?:\\(?P<instance>[^\\,]+))?"
    r"(?:\s*,\s*(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)
_PORT_AFTER_A_COLON = re.compile(r"(?:[^:]*|\[.*\]):\d+")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's address.

    Attributes:
        host: A name, or an address. One of IPv6 has no brackets here: neither Microsoft's driver
            (18.6) nor FreeTDS (1.3) takes them.
        instance: A named instance, or ''. Where there is a port too, drivers go by the port.
        port: The port, or ''.
        protocol: ``tcp:`` or another prefix of Microsoft's drivers, or ''.
    """

    host: str
    instance: str = ""
    port: str = ""
    protocol: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Read 'host', 'host,port' or 'host\instance'; the host may be an IPv6 address.

        What is none of these, a named pipe say, is taken for a host, and left to the driver.

        Raises:
            ValueError: If it is 'host:port', which no driver takes, or tells why.
        """
        if _PORT_AFTER_A_COLON.fullmatch(text):
            raise ValueError("a port stands after a comma, as in 'db.example,1433'")
        match = _ADDRESS.fullmatch(text)
        if match is None:
            return cls(text)
        host, instance, port, protocol = match.group("host", "instance", "port", "protocol")
        return cls(host.strip("[]"), instance or "", port or "", protocol or "")

    @property
    def with_instance(self) -> str:
        """The host and the instance."""
        return f"{self.host}\\{self.instance}" if self.instance else self.host

    def __str__(self) -> str:
        """Write it as Microsoft's drivers take it."""
        port = f",{self.port}" if self.port else ""
        return f"{self.protocol}{self.with_instance}{port}"
