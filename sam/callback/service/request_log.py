"""One line per request, and the request's id."""

import os
import re
import time
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics
from sam.callback.model import Outcome
from sam.callback.reasons import RefusalReason
from sam.callback.service import paths

HEADER = "X-Request-ID"

PROBE = "probe"
"""The event of an answer that is no refusal, whatever its status. Its line is a ``request``."""

_HEADER_NAME = HEADER.lower().encode()
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LINE = "sam.callback.line"
_REFUSALS = frozenset({"refused", "disconnected"})
_REASONS = {404: RefusalReason.UNKNOWN_PATH, 405: RefusalReason.WRONG_METHOD}

_log = get_logger(__name__)


def line_of(scope: Scope) -> dict[str, Any]:
    """Return the fields of the request's log line, for whoever knows more of the request.

    With ``event`` the line is that of a callback, where the answer is no error. ``reason`` says
    why a request was refused, ``http_status`` what it was answered where that was not by the app.
    """
    fields: dict[str, Any] = scope.setdefault(_LINE, {})
    return fields


def request_id_of(scope: Scope) -> str:
    """Return the request's id: the sender's X-Request-ID where well formed, else one of ours."""
    request_id: str = scope[HEADER]
    return request_id


class RequestLogMiddleware:
    """Gives each request an id, sends it back; when the answer is sent, writes one line and counts.

    It is outermost, so it also catches what nobody else did: that is logged with its traceback and
    answered 500.

    Args:
        app: What the request goes to.
        metrics: Where to count.
        throttle: Bounds the lines of those who have no key.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, throttle: LogThrottle) -> None:
        self._app = app
        self._metrics = metrics
        self._throttle = throttle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope[HEADER] = _request_id(scope)
        structlog.contextvars.bind_contextvars(request_id=request_id)
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
            # And nobody is left to answer.
            line_of(scope).setdefault("reason", RefusalReason.SENDER_HUNG_UP)
        except Exception:  # noqa: BLE001 - the last stop before the server
            _log.exception("crash")
            line_of(scope)["reason"] = RefusalReason.CRASH
            if not http_status:
                answer = JSONResponse({"detail": "Internal error."}, status_code=500)
                await answer(scope, receive, send_with_id)
        finally:
            duration = time.perf_counter() - started
            http_status = line_of(scope).get("http_status", http_status)
            if http_status:
                self._metrics.answered(scope["path"], http_status, duration)
            event = _event(scope, http_status)
            if event in _REFUSALS:
                self._metrics.refused(_reason(scope, http_status))
            if "key" in line_of(scope) or self._is_to_be_written(scope, event, http_status):
                _write(scope, event, http_status, duration)

    def _is_to_be_written(self, scope: Scope, event: str, http_status: int) -> bool:
        """Bound the lines of those without a key, who can send as much as they like."""
        if event in _REFUSALS:
            return self._throttle.is_to_be_written(event, _reason(scope, http_status))
        return scope["path"] in paths.POLLED or self._throttle.is_to_be_written(
            event, RefusalReason.NO_KEY
        )


def _event(scope: Scope, http_status: int) -> str:
    event: str = line_of(scope).pop("event", "request")
    if not http_status:
        return "disconnected"
    if event == PROBE:
        return "request"
    return event if http_status < 400 else "refused"  # noqa: PLR2004 - where HTTP's errors begin


def _reason(scope: Scope, http_status: int) -> RefusalReason:
    reason = line_of(scope).get("reason")
    return RefusalReason(reason) if reason else _REASONS.get(http_status, RefusalReason.UNKNOWN)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER_NAME and _WELL_FORMED.fullmatch(value):
            return str(value, "ascii")
    return os.urandom(16).hex()


def _write(scope: Scope, event: str, http_status: int, duration: float) -> None:
    known = line_of(scope)
    known["http_status"] = http_status
    known["client"] = scope["client"][0] if scope.get("client") else None
    known["duration_ms"] = round(duration * 1000, 3)
    if event == "callback":
        write = _log.warning if known["outcome"] is Outcome.SUPERSEDED else _log.info
        write("callback", **known)
    elif event == "request":
        write = _log.debug if scope["path"] in paths.POLLED else _log.info
        write("request", method=scope["method"], path=scope["path"], **known)
    elif event == "disconnected":
        _log.warning("disconnected", method=scope["method"], path=scope["path"], **known)
    else:
        known["reason"] = _reason(scope, http_status)
        write = _log.error if http_status >= 500 else _log.warning  # noqa: PLR2004 - HTTP's
        write("refused", method=scope["method"], path=scope["path"], **known)
