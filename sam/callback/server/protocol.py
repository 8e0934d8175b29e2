"""HTTP protocol of a connection: uvicorn's, with the limits that it lacks."""

import math
from itertools import chain
from typing import Any, Final

import httptools
import orjson
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from sam.callback import http_scope
from sam.callback.http_scope import Refusal
from sam.callback.metrics import CutReason, RefusalReason
from sam.callback.server.connections import Connections
from sam.callback.settings import Settings

MAX_PIPELINED: Final = 16
"""How many requests may wait on one connection for the answers to those before them."""

LINGER_SECONDS: Final = 2.0
"""How long the other end may take to fetch a last answer; what it sends meanwhile is dropped."""


class HttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, with bounds on what a connection may send, hold and leave unread.

    An answer that comes before the end of a request's body ends the connection: nothing more is
    read of it, and it is closed in `LINGER_SECONDS` at most.

    The body of a request that asks for an upgrade is kept, and the upgrade ignored (RFC 9110,
    7.8). Java's own client asks for HTTP/2 in this way with the first request of a connection, and
    httptools takes all that follows the headers for the other protocol.

    It depends on uvicorn's internals: docs/decisions/0012 lists them, and
    tests/server/test_uvicorn_internals.py fails if a release of uvicorn moves one.

    Args:
        connections: The table that it is in.
        settings: The limits.
        uvicorn: The arguments of uvicorn's own protocol.
    """

    def __init__(
        self,
        connections: Connections,
        settings: Settings,
        **uvicorn: Any,  # noqa: ANN401 - uvicorn's own
    ) -> None:
        super().__init__(**uvicorn)
        self._connections = connections
        self._settings = settings
        self._max_head_bytes: int = settings.callback_max_header_bytes
        # What `Connections` looks at; times are the event loop's, infinite while there is none.
        self.opened = math.inf
        self.deadline = math.inf  # when it expires
        self.idle_since = math.inf  # since when nothing of a request is here
        self.is_authenticated = False  # whether a request with a valid key came over it
        # What is being read.
        self.is_in_handshake = False
        self._is_in_head = self._is_in_body = False
        self._is_ignored = False  # all that still comes
        self._is_half_closed = False  # by the other end
        self._has_progressed = False
        self._unfinished_bytes = 0  # of a head, or since a piece of the body
        # What is being written.
        self._is_kept_alive = False  # after this request, once its body is here
        self._response_head = b""

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's
        super().connection_made(transport)
        self.opened = self.loop.time()
        self.deadline = self.opened + self._settings.callback_header_timeout

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)
        # What holds on to each other would wait for the garbage collector, 10 KB a connection. A
        # request that is still at work has all that it needs.
        self.pipeline.clear()
        self.cycle = self.scope = None  # type: ignore[assignment]  # as before the first request

    def data_received(self, data: bytes) -> None:
        # In slices, so that what is not yet a header cannot hold more than headers may.
        for start in range(0, len(data), self._max_head_bytes):
            if self._is_ignored:
                return
            self._feed(data[start : start + self._max_head_bytes])

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio's
        """Keep the connection until what was sent is answered (shutdown(SHUT_WR))."""
        if self._is_answered or (self._is_in_body and not self._is_ignored):
            return None
        self._is_half_closed = True
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline = self.loop.time() + self._settings.callback_body_timeout

    def resume_writing(self) -> None:
        super().resume_writing()
        self._restart_clock()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refusal(400, RefusalReason.TOO_MANY_PIPELINED, "Too many requests at once.")
        super().on_message_begin()
        self.scope[http_scope.ON_AUTHENTICATED] = self._authenticate  # type: ignore[typeddict-unknown-key]  # ours
        self._is_in_head = self._has_progressed = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, without the blanks and tabs round its value (RFC 9110, 5.5).

        Instead of uvicorn's: httptools leaves those behind it.
        """
        name, value = name.lower(), value.strip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._check_head(len(self.url) + sum(map(len, chain.from_iterable(self.headers))))
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise Refusal(400, RefusalReason.BAD_REQUEST, "This is no proxy.")
            return
        super().on_headers_complete()
        cycle = self.cycle
        cycle.transport = self  # type: ignore[assignment]  # all that it uses: write, close, is_closing
        # An answer that comes before the end of the body says "Connection: close".
        self._is_kept_alive, cycle.keep_alive = cycle.keep_alive, False
        # What comes behind a chunked body is no header, or a key there would be one (RFC 9110,
        # 6.5.1).
        self.headers = []
        self._is_in_head, self._is_in_body = False, True
        self._restart_clock()

    def on_body(self, body: bytes) -> None:
        """Add a piece of the body.

        Instead of uvicorn's, which wakes the request for each: a thousand senders of a byte a
        second would cost a good part of a core.
        """
        self._has_progressed = True
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._is_in_body = False
        self.scope[http_scope.BODY_END] = None  # type: ignore[typeddict-unknown-key]  # ours
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._is_kept_alive

    # What a request's cycle calls, whose transport this is.

    def write(self, data: bytes) -> None:
        """Write a part of an answer; its head waits for what comes behind it.

        Uvicorn writes them apart: two system calls and two segments.
        """
        is_head = data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100 ")
        if is_head and not self._response_head:
            self._response_head = data
        else:
            self._flush(data)

    def close(self) -> None:
        """End the connection behind this answer: one way at first, for more may come.

        What meets a closed socket brings about a reset, and that takes the answer from a sender
        that has not read it yet (RFC 9112, 9.6).
        """
        self._flush()
        self._is_ignored = True
        self.pipeline.clear()
        if self._is_half_closed or self.transport.is_closing():
            self.transport.close()
        else:
            self.transport.write_eof()
            self.flow.resume_reading()
        self._restart_clock()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self.transport.is_closing()

    def on_response_complete(self) -> None:
        """Go on with what waits.

        Instead of uvicorn's, which sets a timer for each request, and cancels it for good with any
        byte that comes then.
        """
        self._flush()  # a head without a body
        if self.transport.is_closing():
            return
        if self._is_answered:
            self.cycle.body.clear()  # what was not asked for
            if self._is_ignored:
                return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._restart_clock()

    # What the server calls.

    def shutdown(self) -> None:
        """Answer what is here, and close."""
        self._is_kept_alive = False
        super().shutdown()

    def expire(self) -> None:
        """Close the connection, with an answer where HTTP has one."""
        if self.flow.write_paused:
            self.cut(CutReason.ANSWER_NOT_FETCHED)
        elif self._is_ignored:
            self.abort()  # it had the time to fetch its last answer
        elif self._is_in_head:
            seconds = self._settings.callback_header_timeout
            detail = f"The headers took more than {seconds:g} seconds."
            self._refuse(Refusal(408, RefusalReason.HEADERS_TOO_SLOW, detail))
        elif self.is_in_handshake:
            self.cut(CutReason.HANDSHAKE_TOO_SLOW)
        elif self._newest is None:
            self.cut(CutReason.NOTHING_SENT)
        else:
            self.close()  # it is idle

    def cut(self, reason: CutReason, **details: str) -> None:
        """Close the connection without an answer, and log that."""
        self._connections.cut(self, reason, **details)

    def abort(self) -> None:
        """Close the connection at once, whatever was not yet sent."""
        self._is_ignored = True
        self.transport.abort()

    # Implementation.

    @property
    def _newest(self) -> RequestResponseCycle | None:
        return self.cycle  # uvicorn's own type forgets that it is None at first

    @property
    def _is_answered(self) -> bool:
        newest = self._newest
        return newest is None or newest.response_complete

    def _authenticate(self) -> None:
        if not self.is_authenticated:
            self._connections.authenticate(self)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
            self._check_progress(len(data))
        except httptools.HttpParserUpgrade as upgrade:
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + data[upgrade.args[0] :])
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if not isinstance(cause, Refusal):
                detail = "This is not a valid HTTP/1.1 request."
                cause = Refusal(400, RefusalReason.BAD_REQUEST, detail)
            self._refuse(cause)

    def _check_progress(self, size: int) -> None:
        self._unfinished_bytes = 0 if self._has_progressed else self._unfinished_bytes + size
        if self._is_in_head or self._is_in_body:
            if self._is_in_head and self._has_progressed and self._newest is not None:
                self._restart_clock()  # of the first request it runs since the connection opened
            self._check_head(self._unfinished_bytes)
        if self._is_in_body and not self.is_authenticated:
            self.flow.pause_reading()  # until the app asks for it
        self._has_progressed = False

    def _check_head(self, size: int) -> None:
        """Refuse what is too large of a head, or of trailers and the like behind a body's piece.

        Args:
            size: Bytes of it that were received.
        """
        max_bytes, max_headers = self._max_head_bytes, self._settings.callback_max_headers
        if len(self.url) > max_bytes // 2:
            raise Refusal(414, RefusalReason.URL_TOO_LONG, "The URL is too long.")
        if size > max_bytes:
            detail = f"The headers are larger than {max_bytes} bytes."
            raise Refusal(431, RefusalReason.HEADERS_TOO_LARGE, detail)
        if len(self.headers) > max_headers:
            detail = f"There are more than {max_headers} headers."
            raise Refusal(431, RefusalReason.TOO_MANY_HEADERS, detail)

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = (b"%b: %b" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version), *lines, b"", b""])

    def _refuse(self, refusal: Refusal) -> None:
        self._is_ignored = True
        if self._is_in_body:
            # The app answers, in this request's turn, and writes its line.
            self.cycle.scope[http_scope.BODY_END] = refusal  # type: ignore[typeddict-unknown-key]  # ours
            self.cycle.waiting_for_100_continue = self.cycle.more_body = False
            self.cycle.message_event.set()
            return
        self._connections.report_refusal(self, refusal)
        if not self._is_answered:
            self.cycle.keep_alive = False  # those before it are answered first
            return
        body = orjson.dumps({"detail": str(refusal)})
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.write(b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body]))
        self.close()

    def _flush(self, data: bytes = b"") -> None:
        data, self._response_head = self._response_head + data, b""
        # Uvloop's raises when it is closing.
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def _restart_clock(self) -> None:
        """Set the deadline for what the connection waits for now."""
        if self.flow.write_paused:
            return  # until something of the answer is fetched
        now = self.loop.time()
        self.idle_since = math.inf
        if self._is_ignored and self._is_answered:
            seconds = LINGER_SECONDS
        elif self._is_in_head:
            seconds = self._settings.callback_header_timeout
        elif not self._is_answered:
            seconds = math.inf  # the app itself bounds how long it takes
        else:
            self.idle_since = now
            seconds = (
                self._settings.callback_keep_alive_timeout
                if self.is_authenticated
                else self._settings.callback_header_timeout
            )
        self.deadline = now + seconds
