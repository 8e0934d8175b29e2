"""HTTP on one connection: uvicorn's protocol, with the limits that it lacks."""

import enum
import math
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics
from sam.callback.reasons import CutReason, RefusalReason
from sam.callback.service.access_log import log_fields
from sam.callback.service.connections import SCOPE_KEY, Connection
from sam.callback.service.http_answers import Answers, Refusal, bad_request
from sam.callback.service.http_head import HeadLimits, size_of, without_upgrade
from sam.callback.service.request_body import BODY_IS_HERE
from sam.callback.settings import Settings

MAX_PIPELINED: Final = 16
"""How many requests may wait on one connection for the answers to those before them."""

MAX_DISCARDED_BYTES: Final = 2**20
"""So much is read of the body of a request without the key, which was answered before it came."""

LINGER_SECONDS: Final = 2.0
"""How long the other end may take to fetch a last answer."""

_log = get_logger(__name__)


class _Awaited(enum.Enum):
    """What of a request is still to come."""

    NOTHING = enum.auto()
    HEADERS = enum.auto()
    BODY = enum.auto()


class HttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, with bounds on what a connection may send, hold and leave unread.

    Besides, the body of a request that asks for an upgrade is kept. Java's own client asks for
    HTTP/2 in this way with the first request of a connection, and httptools takes all that follows
    the headers for the other protocol. The wish is ignored, as RFC 9110 (7.8) lets a server do.

    What it reaches into is listed in docs/decisions, with a test that notices if a release of
    uvicorn moves it.

    Args:
        connection: The place of this connection among all.
        settings: The limits.
        metrics: Where to count.
        throttle: Bounds the lines that are written.
        uvicorn: The arguments of uvicorn's own protocol.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        settings: Settings,
        metrics: Metrics,
        throttle: LogThrottle,
        **uvicorn: Any,  # noqa: ANN401 - uvicorn's own
    ) -> None:
        super().__init__(**uvicorn)
        self._connection = connection
        self._settings = settings
        self._metrics = metrics
        self._throttle = throttle
        self._head_limits = HeadLimits(settings)
        self._awaited = _Awaited.NOTHING
        self._timed = _Awaited.HEADERS  # since the connection was accepted
        self._header_bytes = 0
        self._has_body_grown = False
        self._discarded_bytes = 0
        self._is_deaf = False

    # What the transport calls.

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401, D102 - asyncio's
        super().connection_made(transport)
        self._connection.owner = self
        self._answers = Answers(transport, self._close_after_answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102 - asyncio's
        self._connection.leave()
        super().connection_lost(exc)
        # What holds on to each other would wait for the garbage collector, 10 KB a connection. A
        # request that is still at work has all that it needs.
        self._connection.owner = None
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        self._answers.forget()

    def data_received(self, data: bytes) -> None:  # noqa: D102 - asyncio's
        # In slices, so that a slice alone cannot hold more than headers may.
        size = self._head_limits.max_bytes
        for start in range(0, len(data), size):
            if self._is_deaf:
                self._ignore(len(data) - start)
                return
            self._feed(data[start : start + size])

    def pause_writing(self) -> None:  # noqa: D102 - asyncio's
        super().pause_writing()
        self._restart_clock()

    def resume_writing(self) -> None:  # noqa: D102 - asyncio's
        super().resume_writing()
        self._restart_clock()

    # What the parser calls.

    def on_message_begin(self) -> None:  # noqa: D102 - httptools'
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refusal(400, RefusalReason.TOO_MANY_PIPELINED, "Too many requests at once.")
        super().on_message_begin()
        self._awaited = _Awaited.HEADERS
        self.scope[SCOPE_KEY] = self._connection  # type: ignore[typeddict-unknown-key]  # ours

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, without the blanks and tabs round its value (RFC 9110, 5.5).

        Instead of uvicorn's: httptools leaves those behind it.
        """
        name, value = name.lower(), value.strip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:  # noqa: D102 - httptools'
        self._head_limits.check(self.url, self.headers, size_of(self.url, self.headers))
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise Refusal(400, RefusalReason.BAD_REQUEST, "This is no proxy.")
            return
        super().on_headers_complete()
        self.cycle.transport = self._answers  # type: ignore[assignment]  # all that it uses
        # What comes behind a chunked body is no header, or a key there would be one (RFC 9110,
        # 6.5.1).
        self.headers = []
        self._header_bytes = 0
        self._awaited = self._timed = _Awaited.BODY
        self._connection.deadline = self._connection.idle_since = math.inf

    def on_body(self, body: bytes) -> None:  # noqa: D102 - httptools'
        self._has_body_grown = True
        if self.cycle.response_complete:
            self._discard(len(body))
            return
        # Uvicorn's would wake the request for each piece: a thousand senders of a byte a second
        # would cost a good part of a core.
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:  # noqa: D102 - httptools'
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self.scope[BODY_IS_HERE] = True  # type: ignore[typeddict-unknown-key]  # ours
        self._awaited = _Awaited.NOTHING
        if self.cycle.response_complete:
            self._discarded_bytes = 0
            self._restart_clock()

    # What a request's cycle calls.

    def on_response_complete(self) -> None:
        """Go on with what waits.

        Instead of uvicorn's, which sets a timer for each request, and cancels it for good with any
        byte that comes then.
        """
        self._answers.flush()  # a head without a body
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.cycle.response_complete:
                self.cycle.body.clear()  # what was not asked for: as much as one read brings
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
                return
            if not self._is_deaf:
                if self._awaited is _Awaited.BODY and self.expect_100_continue:
                    # Whether the body will come, nobody can tell (RFC 9110, 10.1.1).
                    self._close()
                else:
                    self._restart_clock()
                return
        self._connection.deadline = self.loop.time() + LINGER_SECONDS

    # What the table of connections calls.

    def expire(self) -> None:
        """Close the connection, with an answer where HTTP has one."""
        if self._is_deaf or self.transport.is_closing():
            self.transport.abort()  # it had the time to fetch its last answer
        elif self.flow.write_paused:
            self._connection.cut(CutReason.ANSWER_NOT_FETCHED)
        elif self._awaited is _Awaited.HEADERS:
            seconds = self._settings.callback_header_timeout
            self._refuse(
                Refusal(
                    408,
                    RefusalReason.HEADERS_TOO_SLOW,
                    f"The headers took more than {seconds:g} seconds.",
                )
            )
        elif self._awaited is _Awaited.BODY:
            self._connection.cut(CutReason.REST_OF_BODY_TOO_SLOW)
        elif self._newest_cycle is None:
            self._connection.cut(CutReason.NOTHING_SENT)
        else:
            self.transport.close()  # idle

    def abort(self) -> None:
        """Close the connection at once, whatever was not yet sent."""
        self.transport.abort()

    # How it is done.

    @property
    def _newest_cycle(self) -> RequestResponseCycle | None:
        return self.cycle  # uvicorn's own type forgets that it is None at first

    @property
    def _is_answered(self) -> bool:
        cycle = self._newest_cycle
        return cycle is None or cycle.response_complete

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
            if self._awaited is _Awaited.NOTHING:
                return
            if self._awaited is _Awaited.HEADERS and self._timed is _Awaited.HEADERS:
                self._header_bytes += len(data)
            elif self._timed is not self._awaited:
                self._restart_clock()
            if self._awaited is _Awaited.BODY:
                # Trailers and the like: all that is no body, as long as none of it comes.
                grown, self._has_body_grown = self._has_body_grown, False
                self._header_bytes = 0 if grown else self._header_bytes + len(data)
            self._head_limits.check(self.url, self.headers, self._header_bytes)
        except httptools.HttpParserUpgrade as upgrade:
            head = without_upgrade(self.parser, self.url, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + data[upgrade.args[0] :])
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause
                if isinstance(cause, Refusal)
                else Refusal(
                    400, RefusalReason.BAD_REQUEST, "This is not a valid HTTP/1.1 request."
                )
            )

    def _refuse(self, refusal: Refusal) -> None:
        is_in_body = self._awaited is _Awaited.BODY
        self._awaited = _Awaited.NOTHING
        self._is_deaf = True
        cycle = self.cycle
        if is_in_body and not (self._is_answered or self.pipeline or cycle.response_started):
            self._answer(refusal)
            # The request is told, writes its own line and counts it; what it answers goes nowhere.
            line = log_fields(cycle.scope)  # type: ignore[arg-type]  # Starlette's type
            line["reason"] = refusal.reason
            line["http_status"] = refusal.status
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False  # it may not have begun: nothing more is sent
            cycle.message_event.set()
            return
        if self._throttle.is_to_be_written("refused_early", refusal.reason):
            _log.warning(
                "refused_early",
                reason=refusal.reason,
                http_status=refusal.status,
                client=self.client[0] if self.client else None,
                has_key=self._connection.has_key,
            )
        self._metrics.refused(refusal.reason)
        if self._is_answered and not is_in_body:
            self._answer(refusal)
        elif self._is_answered or (is_in_body and not self.pipeline):
            self._close()  # it has its answer, or a part of it
        elif self.pipeline and is_in_body:
            self.pipeline[0] = (cycle, bad_request)  # type: ignore[assignment]  # Starlette's types
        else:
            cycle.keep_alive = False  # those before it are answered first

    def _answer(self, refusal: Refusal) -> None:
        self.transport.write(refusal.response(self.server_state.default_headers))
        self._close()

    def _close_after_answer(self) -> None:
        if self.pipeline or not (self._is_deaf or self._awaited is _Awaited.BODY):
            self.transport.close()
        else:
            self._close()

    def _close(self) -> None:
        # Only one way at first, for more may come: what meets a closed socket brings about a reset,
        # and that takes the answer from whoever has not read it yet (RFC 9112, 9.6).
        self._answers.flush()
        self._is_deaf = True
        self._connection.deadline = self.loop.time() + LINGER_SECONDS
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _ignore(self, size: int) -> None:
        if self._is_answered:
            self._discard(size)
        else:
            self.flow.pause_reading()  # and let it have its answer

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self.transport.is_closing():
            return
        limit: int = self._settings.callback_max_body_bytes
        if not self._connection.has_key:
            limit = min(limit, MAX_DISCARDED_BYTES)
        if self._discarded_bytes > limit:
            self._connection.cut(CutReason.BODY_NOT_WANTED)

    def _restart_clock(self) -> None:
        """Set the deadline for what the connection waits for now."""
        limits = self._settings
        now = self.loop.time()
        self._timed = self._awaited
        self._header_bytes = 0
        self._connection.idle_since = math.inf
        if self.flow.write_paused:
            seconds = limits.callback_body_timeout
        elif self._awaited is _Awaited.HEADERS:
            seconds = limits.callback_header_timeout
        elif not self._is_answered:
            seconds = math.inf  # the app itself bounds how long it takes
        elif self._awaited is _Awaited.BODY:
            seconds = limits.callback_body_timeout
        else:
            self._connection.idle_since = now
            seconds = (
                limits.callback_keep_alive_timeout
                if self._connection.has_key
                else limits.callback_header_timeout
            )
        self._connection.deadline = now + seconds
