"""HTTP by hand, for requests that no client library would send."""

import socket
import ssl
from typing import Final, Self

from tests.support.conditions import LIMIT_SECONDS
from tests.support.service import KEY, Service

KEY_HEADER: Final = f"X-API-KEY: {KEY}\r\n".encode()


def request(
    target: bytes = b"/callback",
    content: bytes = b"",
    *,
    method: bytes = b"POST",
    headers: bytes = KEY_HEADER,
    length: int | None = None,
) -> bytes:
    """A request; `length` is what Content-Length says, if that is not the truth."""
    said = len(content) if length is None else length
    return b"%b %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (
        method,
        target,
        headers,
        said,
        content,
    )


class Wire:
    """A connection to the service, on which nothing waits longer than a minute."""

    def __init__(self, service: Service, *, tls: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: If the service has closed the connection.
        """
        self._socket.sendall(data)

    def send_until_full(self, data: bytes) -> int:
        """Send as much as can be sent without waiting; return how much."""
        self._socket.settimeout(0)
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        finally:
            self._socket.settimeout(LIMIT_SECONDS)

    def half_close(self) -> None:
        """Say that nothing more is sent; answers are still read."""
        self._socket.shutdown(socket.SHUT_WR)

    def send_until_cut_off(self, data: bytes, times: int) -> bool:
        """Send it again and again; say whether the service closed the connection meanwhile."""
        try:
            for _ in range(times):
                self._socket.sendall(data)
        except OSError:
            return True
        return False

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer: its status, and its headers (names in small letters).

        Raises:
            EOFError: If the connection was closed instead.
        """
        line = self._file.readline()
        if not line:
            raise EOFError
        headers = {}
        while (header := self._file.readline().strip().decode()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer: its status, its headers (names in small letters) and its body.

        Raises:
            EOFError: If the connection was closed instead.
        """
        status, headers = self.head()
        return status, headers, self._file.read(int(headers.get("content-length", "0")))

    def status(self) -> int:
        """Read one answer; return its status."""
        return self.answer()[0]

    def rest(self) -> bytes:
        """Read until the service closes the connection; a reset counts as that."""
        try:
            return self._file.read()
        except ConnectionError:
            return b""

    def hears_nothing(self, seconds: float) -> bool:
        """Whether nothing comes, not even the end of the connection, for so long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        finally:
            self._socket.settimeout(LIMIT_SECONDS)
        return False

    def is_open(self) -> bool:
        """Whether the service has not closed it yet."""
        self._socket.settimeout(0)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self._socket.settimeout(LIMIT_SECONDS)
