"""``POST /callback``: the hot path. Each thing is done once, and nothing that is not needed.

The body is read once and validated straight from its bytes; FastAPI documents the route, and is
spared the solving of dependencies that there are none of.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.recorder import NotSafeError, OverloadedError
from sam.callback.service import openapi
from sam.callback.service.limits import read_body
from sam.callback.service.request_log import line_of, request_id_of
from sam.callback.service.schemas import CallbackAnswer, CallbackPayload
from sam.callback.settings import Settings

PATH: Final = "/callback"
RETRY_AFTER_SECONDS: Final = 5

_Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]

_NOT_SAFE = (
    "The callback could not be made safe: neither the database nor the spool can take it. "
    "Send it again."
)
_TOO_MANY = "Too many callbacks wait to be made safe. Send it again."


class _Answer(Response):
    """A response whose fixed parts are ready."""

    _CONTENT_TYPE: Final = (b"content-type", b"application/json")

    def __init__(self, body: bytes) -> None:
        # Starlette's own would make the headers out of texts, and look for what is in them.
        self.status_code = 200
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), self._CONTENT_TYPE]


class _Route(APIRoute):
    """A route that FastAPI documents, and whose endpoint takes the request itself.

    FastAPI's own handler would solve dependencies, and hold exit stacks open for them.
    """

    def __init__(self, path: str, endpoint: _Endpoint, **documented: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(path, endpoint, **documented)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # What it raises is answered by the app's own handlers, one layer further out.
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app


def callback_route(inbox: Inbox, settings: Settings) -> APIRoute:
    """Return the route, with its entry in the OpenAPI document."""
    max_bytes = settings.callback_max_body_bytes
    timeout = settings.callback_body_timeout

    async def callback(request: Request) -> Response:
        body = await read_body(request, max_bytes=max_bytes, timeout=timeout)
        try:
            payload = CallbackPayload.model_validate_json(body)
        except ValidationError as error:
            raise await _refuse(request, inbox, body, error) from None
        return await _record(request, inbox, payload, body)

    return _Route(
        PATH,
        callback,
        methods=["POST"],
        tags=["Callbacks"],
        summary="A deployment has ended",
        response_model=CallbackAnswer,
        **openapi.CALLBACK_OPERATION,
    )


async def _refuse(
    request: Request, inbox: Inbox, body: bytes, error: ValidationError
) -> RequestValidationError:
    # Without the input: it may be large, or hold what JSON cannot (NaN).
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [f"{'.'.join(map(str, m['loc']))}: {m['msg']}".removeprefix(": ") for m in mistakes]
    line_of(request.scope).update(reason="invalid_body", mistakes=texts)
    await inbox.keep_invalid(body, "; ".join(texts))
    return RequestValidationError([{**m, "loc": ("body", *m["loc"])} for m in mistakes])


async def _record(
    request: Request, inbox: Inbox, payload: CallbackPayload, body: bytes
) -> Response:
    deployment_id, status = payload.deploymentId, payload.status
    line = line_of(request.scope)
    line["event"] = "callback"
    line["deployment_id"] = deployment_id
    line["status"] = status
    try:
        recorded = await inbox.record(deployment_id, status, body)
    except NotSafeError as error:
        line.update(reason=error.reason, error=str(error))
        raise HTTPException(
            503,
            _TOO_MANY if isinstance(error, OverloadedError) else _NOT_SAFE,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from None
    line["outcome"] = recorded.outcome
    line["db_ms"] = round(recorded.seconds * 1000, 3)
    line["batch_size"] = recorded.batch_size
    if recorded.reason:
        line["reason"] = recorded.reason
    answer = {
        "status": "ok",
        "outcome": recorded.outcome,
        "deploymentId": deployment_id,
        "requestId": request_id_of(request.scope),
    }
    return _Answer(orjson.dumps(answer))
