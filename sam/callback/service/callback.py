"""``POST /callback``: reads the body, has it recorded, adds its log fields, and answers."""

import contextlib
from typing import Final

import orjson
from fastapi import APIRouter, HTTPException, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.types import Scope

from sam.callback.http_scope import Refusal
from sam.callback.inbox.admission import NotDurableError, OverloadedError
from sam.callback.inbox.inbox import Inbox
from sam.callback.metrics import RefusalReason
from sam.callback.model import Outcome
from sam.callback.service import CALLBACK_PATH, access_log
from sam.callback.service.access_log import log_fields, log_recorded
from sam.callback.service.api_key import SCHEME, UNAUTHORIZED_RESPONSE
from sam.callback.service.body_budget import BodyBudget, BodyShare
from sam.callback.service.callback_body import (
    BodyDecoder,
    decode,
    decode_common,
    mistakes_in,
    readable_fields,
)
from sam.callback.service.direct import DirectRoute
from sam.callback.service.request_body import BODY_START_BYTES, read_body
from sam.callback.service.schemas import (
    CallbackAnswer,
    CallbackPayload,
    ErrorAnswer,
    InvalidAnswer,
    InvalidField,
    example_response,
)
from sam.callback.settings import Settings

RETRY_AFTER_SECONDS: Final = 5

NOT_DURABLE: Final = ErrorAnswer(
    detail="The callback could not be made durable: neither the database nor the spool can take "
    "it. Send it again."
)
OVERLOADED: Final = ErrorAnswer(detail="Too many callbacks are in flight. Send it again.")


router = APIRouter(tags=["Callbacks"], route_class=DirectRoute)


class CallbackReceiver:
    """Reads callbacks and has them recorded.

    Args:
        inbox: Records them.
        settings: The limits.
    """

    def __init__(self, inbox: Inbox, settings: Settings) -> None:
        self._inbox = inbox
        self._decoder = BodyDecoder()
        self._max_bytes: int = settings.callback_max_body_bytes
        self._timeout = settings.callback_body_timeout
        self._budget = BodyBudget(
            settings.callback_max_bodies_bytes, self._max_bytes, self._timeout
        )

    async def receive(self, request: Request) -> CallbackAnswer:
        """Make a request's callback durable.

        Raises:
            HTTPException: If its body was too large, too slow, or there was no room for it.
            RequestValidationError: If its body was not understood.
            NotDurableError: If it could not be made durable.
            starlette.requests.ClientDisconnect: If the sender hung up.
        """
        scope = request.scope
        with BodyShare(self._budget) as share:
            try:
                body = await read_body(request, share, self._max_bytes, self._timeout)
            except Refusal as refusal:
                raise await self._not_read(scope, refusal) from None
            payload = decode_common(body, scope)
            if payload is None:
                try:
                    decoded = await self._decoder.run(decode, body, scope)
                except ValidationError as error:
                    raise await self._not_understood(scope, body, error) from None
                payload, body = decoded
            line = log_fields(scope)
            line["deployment_id"] = payload.deploymentId
            line["status"] = payload.status
            recorded = await self._inbox.record(payload.deploymentId, payload.status, body)
        log_recorded(line, recorded)
        return CallbackAnswer(
            outcome=recorded.outcome,
            deploymentId=payload.deploymentId,
            requestId=line["request_id"],
        )

    def close(self) -> None:
        """Let its thread end."""
        self._decoder.close()

    async def _not_read(self, scope: Scope, refusal: Refusal) -> HTTPException:
        line = log_fields(scope)
        await self._name(scope, refusal.body_start)
        line["reason"] = refusal.reason
        # More of it may come, or never come.
        headers = {"Connection": "close"}
        if refusal.reason is RefusalReason.OVERLOADED:
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
            line["error"] = (
                "There was no room for its body: CALLBACK_MAX_BODIES_BYTES were taken by others."
            )
        elif refusal.body_start and refusal.reason is RefusalReason.BODY_TOO_LARGE:
            with contextlib.suppress(NotDurableError):  # to send it again would not help
                await self._inbox.keep_invalid(
                    refusal.body_start, f"{refusal} This is how it begins."
                )
        return HTTPException(refusal.status, str(refusal), headers=headers)

    async def _not_understood(
        self, scope: Scope, body: bytes, error: ValidationError
    ) -> RequestValidationError:
        await self._name(scope, body[:BODY_START_BYTES])
        # Without the input: it may be large, or hold what JSON cannot (NaN).
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        texts = mistakes_in(error)
        log_fields(scope).update(reason=RefusalReason.INVALID_BODY, mistakes=texts)
        await self._inbox.keep_invalid(body, "; ".join(texts))
        return RequestValidationError([{**m, "loc": ("body", *m["loc"])} for m in mistakes])

    async def _name(self, scope: Scope, body_start: bytes) -> None:
        """Have the log line say which callback is lost, as far as that can be read."""
        fields = await self._decoder.run(readable_fields, body_start, scope)
        line = log_fields(scope)
        for field, name in (("deploymentId", "deployment_id"), ("status", "status")):
            if field in fields:
                line[name] = fields[field]


@router.post(
    CALLBACK_PATH,
    summary="A deployment has ended",
    dependencies=[Security(SCHEME)],
    response_model=CallbackAnswer,
    responses={
        200: example_response(
            "The callback is durable: `updated`, committed in the database; `superseded`, not "
            "written, as the row has the status of a later callback; or on disk here, as `queued` "
            "(the database could not take it), `unmatched` (no such row yet) or `dead_letter` (the "
            "database refuses it for good).",
            CallbackAnswer(
                outcome=Outcome.UPDATED,
                deploymentId="f6d30428-15d1-41e9-a952-0742eaaa5a31",
                requestId="0f6f2a3d9b1c4e5f8a7b6c5d4e3f2a1b",
            ),
        ),
        401: UNAUTHORIZED_RESPONSE,
        408: example_response(
            "Request Timeout: the body came too slowly.",
            ErrorAnswer(detail="The body took more than 10 seconds."),
        ),
        413: example_response(
            "Request Entity Too Large: the body is too large.",
            ErrorAnswer(detail="The body is larger than 16777216 bytes."),
        ),
        422: example_response(
            "Unprocessable: the body is no JSON object, or a required field is missing, empty, too "
            "long, or holds a control character or what is no character.",
            InvalidAnswer(
                detail=[
                    InvalidField(type="missing", loc=["body", "deploymentId"], msg="Field required")
                ]
            ),
        ),
        503: example_response(
            "Service Unavailable: the callback could not be made durable, or there was no room for "
            "its body. Send it again.",
            NOT_DURABLE,
            {"Retry-After": "Seconds to wait before the next try."},
        ),
    },
    openapi_extra={
        "parameters": [
            {
                "name": access_log.HEADER,
                "in": "header",
                "required": False,
                "description": "An id of the sender's for this request: up to 64 letters, digits, "
                "dots, underscores and hyphens. Another is replaced.",
                "schema": {"type": "string"},
            }
        ],
        # Validated straight from its bytes, so FastAPI does not see the model.
        "requestBody": {
            "description": "JSON in UTF-8, with or without a BOM; in UTF-16 or UTF-32; or in the "
            "charset that the content type names. Whatever stands in other fields, such as half a "
            "surrogate pair or bytes of another encoding, does not matter.",
            "required": True,
            "content": {"application/json": {"schema": CallbackPayload.model_json_schema()}},
        },
    },
)
async def callback(request: Request) -> Response:
    """Writes the status of a deployment into SAM's table, or keeps it until that can be done."""
    answer = await request.app.state.receiver.receive(request)
    return Response(orjson.dumps(answer), media_type="application/json")


async def not_durable(request: Request, error: NotDurableError) -> Response:
    """Answer 503 where a callback, or a body that was not understood, could not be made durable."""
    log_fields(request.scope).update(reason=error.reason, error=str(error))
    answer = OVERLOADED if isinstance(error, OverloadedError) else NOT_DURABLE
    return JSONResponse(
        answer.model_dump(), status_code=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
    )
