"""``POST /callback``: the hot path. Each thing is done once, and nothing that is not needed.

The common body is validated straight from its bytes.
"""

import contextlib
from http import HTTPStatus
from typing import Final

import orjson
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from sam.callback.inbox.admission import NotDurableError, OverloadedError
from sam.callback.inbox.inbox import Inbox
from sam.callback.reasons import RefusalReason
from sam.callback.service import openapi, paths
from sam.callback.service.body_budget import BodyBudget, BodyShare
from sam.callback.service.callback_body import BodyDecoder, charset_of, decode_common, mistakes_in
from sam.callback.service.direct_route import DirectRoute
from sam.callback.service.request_body import HEAD_BYTES, BodyNotReadError, BodyReader
from sam.callback.service.request_log import line_of, request_id_of
from sam.callback.service.schemas import CallbackAnswer, CallbackPayload
from sam.callback.settings import Settings

RETRY_AFTER_SECONDS: Final = 5

_NOT_DURABLE = (
    "The callback could not be made durable: neither the database nor the spool can take it. "
    "Send it again."
)
_TOO_MANY = "Too many callbacks are in flight. Send it again."


class _Answer(Response):
    """A response whose fixed parts are ready."""

    _CONTENT_TYPE: Final = (b"content-type", b"application/json")

    def __init__(self, body: bytes) -> None:
        # Starlette's own would make the headers out of texts, and look for what is in them.
        self.status_code = 200
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), self._CONTENT_TYPE]


class _Endpoint:
    """Reads a callback, has it recorded, and answers.

    Args:
        inbox: Records it.
        decoder: Decodes a body that is not common.
        settings: The limits.
    """

    def __init__(self, inbox: Inbox, decoder: BodyDecoder, settings: Settings) -> None:
        self._inbox = inbox
        self._decoder = decoder
        self._reader = BodyReader(settings)
        self._budget = BodyBudget(
            settings.callback_max_bodies_bytes, settings.callback_max_body_bytes
        )

    async def answer(self, request: Request) -> Response:
        with BodyShare(self._budget) as share:
            try:
                body = await self._reader.read(request, share)
            except BodyNotReadError as error:
                raise await self._not_read(request, error) from None
            payload = decode_common(body, request.scope)
            if payload is None:
                try:
                    payload, body = await self._decoder.decode(body, charset_of(request.scope))
                except ValidationError as error:
                    raise await self._not_understood(request, body, error) from None
            return await _record(request, self._inbox, payload, body)

    async def _not_read(self, request: Request, error: BodyNotReadError) -> HTTPException:
        await self._name(request, error.head)
        line_of(request.scope)["reason"] = error.reason
        # More of it may come, or never come.
        headers = {"Connection": "close"}
        if error.http_status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            line_of(request.scope)["error"] = (
                "There was no room for its body: CALLBACK_MAX_BODIES_BYTES were taken by others."
            )
        elif error.head and error.http_status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            with contextlib.suppress(NotDurableError):  # to send it again would not help
                await self._inbox.keep_invalid(error.head, f"{error} This is how it begins.")
        return HTTPException(error.http_status, str(error), headers=headers)

    async def _not_understood(
        self, request: Request, body: bytes, error: ValidationError
    ) -> RequestValidationError:
        await self._name(request, body[:HEAD_BYTES])
        # Without the input: it may be large, or hold what JSON cannot (NaN).
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        texts = mistakes_in(error)
        line_of(request.scope).update(reason=RefusalReason.INVALID_BODY, mistakes=texts)
        await self._inbox.keep_invalid(body, "; ".join(texts))
        return RequestValidationError([{**m, "loc": ("body", *m["loc"])} for m in mistakes])

    async def _name(self, request: Request, head: bytes) -> None:
        """Have the log line say which callback is lost, as far as that can be read."""
        fields = await self._decoder.readable_fields(head, charset_of(request.scope))
        line = line_of(request.scope)
        for field, name in (("deploymentId", "deployment_id"), ("status", "status")):
            if field in fields:
                line[name] = fields[field]


def callback_route(inbox: Inbox, decoder: BodyDecoder, settings: Settings) -> DirectRoute:
    """Return the route, with its entry in the OpenAPI document."""
    return DirectRoute(
        paths.CALLBACK,
        _Endpoint(inbox, decoder, settings).answer,
        methods=["POST"],
        name="callback",  # in the document's operationId, which clients are generated from
        tags=["Callbacks"],
        summary="A deployment has ended",
        response_model=CallbackAnswer,
        **openapi.CALLBACK_OPERATION,
    )


async def not_durable(request: Request, error: NotDurableError) -> Response:
    """Answer 503 where a callback, or a body that was not understood, could not be made durable."""
    line_of(request.scope).update(reason=error.reason, error=str(error))
    return JSONResponse(
        {"detail": _TOO_MANY if isinstance(error, OverloadedError) else _NOT_DURABLE},
        status_code=503,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


async def _record(
    request: Request, inbox: Inbox, payload: CallbackPayload, body: bytes
) -> Response:
    deployment_id, status = payload.deploymentId, payload.status
    line = line_of(request.scope)
    line["event"] = "callback"
    line["deployment_id"] = deployment_id
    line["status"] = status
    recorded = await inbox.record(deployment_id, status, body)
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
