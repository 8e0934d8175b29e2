"""What the protocol itself writes to a connection: its refusals, and the app's answers in one."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import orjson
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from sam.callback.reasons import RefusalReason

_ANY_STATUS: Final = b"HTTP/1.1 "
_CONTINUE: Final = b"HTTP/1.1 100 "


class Refusal(Exception):  # noqa: N818 - an answer, no error of ours
    """What is answered to a request that the app does not see.

    Attributes:
        status: HTTP's.
        reason: For the log and the metrics.
        detail: For the sender.
    """

    def __init__(self, status: int, reason: RefusalReason, detail: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.detail = detail

    def response(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the whole response, the last one of its connection, with these headers too."""
        body = orjson.dumps({"detail": self.detail})
        lines = [*headers, *_last_json(body)]
        return b"".join(
            [
                STATUS_LINE[self.status],
                *(b"%b: %b\r\n" % header for header in lines),
                b"\r\n",
                body,
            ]
        )


class Answers:
    """The transport as a request's cycle uses it, which writes a head and a body apart.

    Here the head waits for what comes next: one system call and one segment instead of two.

    Args:
        transport: Where the answers go.
        close: Closing is the protocol's business.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write a part of an answer; the cycle gives each head as a whole."""
        if self._head or data.startswith(_CONTINUE) or not data.startswith(_ANY_STATUS):
            self.flush(data)
        else:
            self._head = data

    def flush(self, more: bytes = b"") -> None:
        """Write what still waits, and `more` behind it."""
        data, self._head = self._head + more, b""
        # Uvloop's raises when it is closing, and nobody would read it.
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Let the connection end after this answer."""
        self.flush()
        self._close()

    def forget(self) -> None:
        """Let go of whoever closes: the connection is gone."""
        self._close = _nothing


def _nothing() -> None:
    """Close what is closed."""


async def bad_request(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer 400, in its turn, to a request whose body is broken."""
    body = b'{"detail":"The body is not valid HTTP/1.1."}'
    await send({"type": "http.response.start", "status": 400, "headers": _last_json(body)})
    await send({"type": "http.response.body", "body": body})


def _last_json(body: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
