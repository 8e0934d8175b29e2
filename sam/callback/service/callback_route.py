"""``POST /callback``: the hot path. Each thing is done once, and nothing that is not needed.

The common body is validated straight from its bytes.
"""

from typing import Final

import orjson
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.recorder import NotSafeError, OverloadedError
from sam.callback.reasons import RefusalReason
from sam.callback.service import openapi, paths
from sam.callback.service.callback_body import BodyDecoder, charset_of, decode_common
from sam.callback.service.direct_route import DirectRoute
from sam.callback.service.request_body import read_body
from sam.callback.service.request_log import line_of, request_id_of
from sam.callback.service.schemas import CallbackAnswer, CallbackPayload
from sam.callback.settings import Settings

RETRY_AFTER_SECONDS: Final = 5

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


def callback_route(inbox: Inbox, decoder: BodyDecoder, settings: Settings) -> DirectRoute:
    """Return the route, with its entry in the OpenAPI document."""
    max_bytes = settings.callback_max_body_bytes
    timeout = settings.callback_body_timeout

    async def callback(request: Request) -> Response:
        body = await read_body(request, max_bytes=max_bytes, timeout=timeout)
        payload = decode_common(body, request.scope)
        if payload is None:
            try:
                payload, body = await decoder.decode(body, charset_of(request.scope))
            except ValidationError as error:
                raise await _refuse(request, inbox, body, error) from None
        return await _record(request, inbox, payload, body)

    return DirectRoute(
        paths.CALLBACK,
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
    line_of(request.scope).update(reason=RefusalReason.INVALID_BODY, mistakes=texts)
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
