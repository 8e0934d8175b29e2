"""The app: its parts put together, its lifespan and its routes."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from sam.callback.inbox.inbox import Inbox, Readiness
from sam.callback.inbox.recorder import NotSafeError
from sam.callback.service import openapi
from sam.callback.service.api_key import ApiKeyMiddleware
from sam.callback.service.limits import read_body
from sam.callback.service.request_log import RequestLogMiddleware, line_of, request_id_of
from sam.callback.service.schemas import (
    CallbackAnswer,
    CallbackPayload,
    HealthAnswer,
    ReadyAnswer,
)
from sam.callback.settings import Settings

HEALTH_PATH: Final = "/health"
READY_PATH: Final = "/ready"
CALLBACK_PATH: Final = "/callback"
RETRY_AFTER_SECONDS: Final = 5


def create_app(settings: Settings) -> FastAPI:
    """Make the app; its state has the `inbox`.

    Raises:
        DriverNotFoundError: If the ODBC driver that the settings ask for does not exist.
    """
    inbox = Inbox(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await inbox.open()
        try:
            yield
        finally:
            await inbox.close()

    app = openapi.create_documented_app(docs=settings.callback_docs, lifespan=lifespan)
    app.state.inbox = inbox

    @app.post(
        CALLBACK_PATH,
        tags=["Callbacks"],
        summary="A deployment has ended",
        response_model=CallbackAnswer,
        **openapi.CALLBACK_OPERATION,
    )
    async def callback(request: Request) -> Response:
        body = await read_body(
            request,
            max_bytes=settings.callback_max_body_bytes,
            timeout=settings.callback_body_timeout,
        )
        try:
            payload = CallbackPayload.model_validate_json(body)
        except ValidationError as error:
            raise await _refuse(request, inbox, body, error) from None
        return await _record(request, inbox, payload, body)

    @app.get(
        HEALTH_PATH,
        tags=["Probes"],
        summary="Does the process live?",
        response_model=HealthAnswer,
    )
    @app.head(HEALTH_PATH, include_in_schema=False)
    async def health() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @app.get(READY_PATH, tags=["Probes"], response_model=ReadyAnswer, **openapi.READY_OPERATION)
    @app.head(READY_PATH, include_in_schema=False)
    async def ready() -> Response:
        state = inbox.state()
        can_take = state.readiness in {Readiness.OK, Readiness.DEGRADED}
        return Response(
            orjson.dumps(
                {
                    "status": state.readiness,
                    "database": "up" if state.is_database_up else "down",
                    "spool": {
                        **state.spool_entries,
                        "bytes": state.spool_bytes,
                        "writable": state.is_spool_writable,
                    },
                }
            ),
            status_code=200 if can_take else 503,
            media_type="application/json",
        )

    public = {HEALTH_PATH, READY_PATH}
    if settings.callback_docs:
        public.update(openapi.PUBLIC_PATHS)
    keys = [settings.callback_api_key, settings.callback_api_key_previous]
    # The last one added is the outermost.
    app.add_middleware(ApiKeyMiddleware, keys=[key for key in keys if key], public=public)
    app.add_middleware(RequestLogMiddleware)
    return app


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
    line = line_of(request.scope)
    line.update(event="callback", deployment_id=payload.deploymentId, status=payload.status)
    try:
        recorded = await inbox.record(payload.deploymentId, payload.status, body)
    except NotSafeError as error:
        line.update(reason="not_safe", error=str(error))
        raise HTTPException(
            503,
            "The callback could not be made safe: neither the database nor the spool can take it. "
            "Send it again.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from None
    line.update(
        outcome=recorded.outcome,
        db_ms=round(recorded.seconds * 1000, 3),
        batch_size=recorded.batch_size,
    )
    if recorded.reason:
        line["reason"] = recorded.reason
    return Response(
        orjson.dumps(
            {
                "status": "ok",
                "outcome": recorded.outcome,
                "deploymentId": payload.deploymentId,
                "requestId": request_id_of(request.scope),
            }
        ),
        media_type="application/json",
    )
