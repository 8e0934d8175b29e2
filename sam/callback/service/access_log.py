"""Access log: request id, one line per request (routes add its fields), request metrics."""

import asyncio
import functools
import ipaddress
import logging
import os
import re
import time
from collections.abc import Collection
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics, RefusalReason
from sam.callback.model import Outcome, Recorded

HEADER = "X-Request-ID"

_HEADER_NAME = HEADER.lower().encode()
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_FIELDS = "sam.callback.log_fields"
_REASONS = {404: RefusalReason.UNKNOWN_PATH, 405: RefusalReason.WRONG_METHOD}

_log = get_logger(__name__)


def log_fields(scope: Scope) -> dict[str, Any]:
    """Return the fields of a request's log line, to be added to by those that learn more of it.

    ``request_id`` is there from the beginning, ``key`` once the request is authenticated. Some are
    for this module: ``event`` names the line, whatever the answer's status, ``reason`` says why a
    request was refused.
    """
    fields: dict[str, Any] = scope.setdefault(_FIELDS, {})
    return fields


def log_recorded(line: dict[str, Any], recorded: Recorded) -> None:
    """Make a request's log line that of a callback, with its outcome."""
    line["event"] = "callback"
    line["outcome"] = recorded.outcome
    line["db_ms"] = round(recorded.seconds * 1000, 3)
    line["batch_size"] = recorded.batch_size
    if recorded.reason:
        line["reason"] = recorded.reason


class AccessLogMiddleware:
    """Gives each request an id and sends it back; after the answer, writes one line and counts.

    It is outermost, so it also catches what was caught nowhere else: that is logged with its
    traceback and answered 500. What the server cancels when it ends is answered 503.

    Args:
        app: The next ASGI app.
        metrics: Counts the requests.
        throttle: Bounds the lines of requests without the key, and of crashes.
        polled: Paths that are asked every few seconds: their lines are at DEBUG.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, throttle: LogThrottle, polled: Collection[str] = ()
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._throttle = throttle
        self._polled = frozenset(polled)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        line = log_fields(scope)
        request_id = line["request_id"] = _request_id(scope)
        http_status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal http_status
            if message["type"] == "http.response.start":
                http_status = message["status"]
                # A new list: an answer that is sent more than once keeps its own.
                message["headers"] = [*message["headers"], (_HEADER_NAME, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            line.setdefault("reason", RefusalReason.SENDER_HUNG_UP)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the last stop before the server
            line["reason"], answer = self._failed(error, request_id)
            if not http_status:
                await answer(scope, receive, send_with_id)
        finally:
            duration = time.perf_counter() - started
            line["http_status"] = http_status
            line["client"] = _address(scope["client"][0]) if scope.get("client") else None
            line["duration_ms"] = round(duration * 1000, 3)
            if http_status:
                self._metrics.answered(scope["path"], http_status, duration)
            self._write(scope, line)

    def _failed(self, error: BaseException, request_id: str) -> tuple[RefusalReason, JSONResponse]:
        if isinstance(error, asyncio.CancelledError):  # by the server, whose time to end is up
            answer = JSONResponse({"detail": "The service is shutting down."}, status_code=503)
            return RefusalReason.SHUTDOWN, answer
        if self._throttle.is_to_be_written("crash", type(error).__name__):
            _log.exception("crash", request_id=request_id)
        return RefusalReason.CRASH, JSONResponse({"detail": "Internal error."}, status_code=500)

    def _write(self, scope: Scope, line: dict[str, Any]) -> None:
        http_status, event = line["http_status"], line.pop("event", None)
        if event == "callback":
            write = _log.warning if line["outcome"] is Outcome.SUPERSEDED else _log.info
            write("callback", **line)
        elif http_status and (event == "request" or http_status < 400):  # noqa: PLR2004 - HTTP's
            is_polled = scope["path"] in self._polled
            level = logging.DEBUG if is_polled else logging.INFO
            if _log.is_enabled_for(level) and self._is_to_be_written(
                "request", RefusalReason.NO_KEY, line
            ):
                write = _log.debug if is_polled else _log.info
                write("request", **line, method=scope["method"], path=scope["path"])
        else:
            unnamed = _REASONS.get(http_status, RefusalReason.UNKNOWN)
            reason = line["reason"] = line.get("reason", unnamed)
            self._metrics.refusals[reason].inc()
            if not http_status:
                if self._is_to_be_written("disconnected", reason, line):
                    _log.warning("disconnected", **line, method=scope["method"], path=scope["path"])
            elif self._is_to_be_written("refused", reason, line):
                write = _log.error if http_status >= 500 else _log.warning  # noqa: PLR2004 - HTTP's
                write("refused", **line, method=scope["method"], path=scope["path"])

    def _is_to_be_written(self, event: str, reason: RefusalReason, line: dict[str, Any]) -> bool:
        # With the key each may be a lost callback; without it there may be as many as one likes.
        return "key" in line or self._throttle.is_to_be_written(event, reason)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER_NAME and _WELL_FORMED.fullmatch(value):
            return str(value, "ascii")
    return os.urandom(16).hex()


@functools.lru_cache(maxsize=1024)
def _address(text: str) -> str | None:
    """Return an address; None for another text, which a proxy may pass on in X-Forwarded-For."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return text
