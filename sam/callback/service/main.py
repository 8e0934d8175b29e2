"""The app: its parts put together, its lifespan and its routes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from sam.callback.logs import get_logger
from sam.callback.model import Callback, Outcome
from sam.callback.service import openapi
from sam.callback.service.api_key import ApiKeyMiddleware
from sam.callback.service.limits import read_body
from sam.callback.service.request_log import RequestLogMiddleware, line_of, request_id_of
from sam.callback.service.schemas import CallbackAnswer, CallbackPayload, HealthAnswer
from sam.callback.settings import Settings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import DatabaseUnavailableError
from sam.callback.storage.robots import Applied, RobotRepository, Verdict

HEALTH_PATH: Final = "/health"
CALLBACK_PATH: Final = "/callback"
RETRY_AFTER_SECONDS: Final = 5

_log = get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Make the app.

    Raises:
        DriverNotFoundError: If the ODBC driver that the settings ask for does not exist.
    """
    connector = DatabaseConnector(settings)
    repository = RobotRepository(connector, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await connector.open()
        _log.info("driver", driver=connector.driver.name, reason=connector.driver.reason)
        first_look = asyncio.create_task(_look_at_table(repository, settings))
        try:
            yield
        finally:
            first_look.cancel()
            await connector.close()

    app = openapi.create_documented_app(docs=settings.callback_docs, lifespan=lifespan)

    @app.get(HEALTH_PATH, summary="Does the process live?", response_model=HealthAnswer)
    @app.head(HEALTH_PATH, include_in_schema=False)
    async def health() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @app.post(
        CALLBACK_PATH,
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
        accepted = _understand(request, body)
        outcome = await _record(request, repository, accepted, settings.callback_db_timeout)
        return Response(
            orjson.dumps(
                {
                    "status": "ok",
                    "outcome": outcome,
                    "deploymentId": accepted.deployment_id,
                    "requestId": request_id_of(request.scope),
                }
            ),
            media_type="application/json",
        )

    public = {HEALTH_PATH}
    if settings.callback_docs:
        public.update(openapi.PUBLIC_PATHS)
    keys = [settings.callback_api_key, settings.callback_api_key_previous]
    # The last one added is the outermost.
    app.add_middleware(ApiKeyMiddleware, keys=[key for key in keys if key], public=public)
    app.add_middleware(RequestLogMiddleware)
    return app


async def _look_at_table(repository: RobotRepository, settings: Settings) -> None:
    """Find out at the start, not with the first callback, whether the table can be used."""
    with contextlib.suppress(DatabaseUnavailableError):  # the connector has logged it
        await repository.look(timeout=settings.sql_sam_login_timeout + settings.callback_db_timeout)


def _understand(request: Request, body: bytes) -> Callback:
    try:
        payload = CallbackPayload.model_validate_json(body)
    except ValidationError as error:
        # Without the input: it may be large, or hold what JSON cannot (NaN).
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        line_of(request.scope).update(
            reason="invalid_body",
            mistakes=[f"{'.'.join(map(str, m['loc']))}: {m['msg']}" for m in mistakes],
        )
        raise RequestValidationError(
            [{**mistake, "loc": ("body", *mistake["loc"])} for mistake in mistakes]
        ) from None
    return Callback(
        deployment_id=payload.deploymentId,
        status=payload.status,
        payload=body,
        received_at=datetime.now(UTC),
    )


async def _record(
    request: Request, repository: RobotRepository, callback: Callback, timeout: float
) -> Outcome:
    line = line_of(request.scope)
    line.update(event="callback", deployment_id=callback.deployment_id, status=callback.status)
    started = perf_counter()
    try:
        [applied] = await repository.apply([callback], timeout=timeout)
    except DatabaseUnavailableError as error:
        applied = Applied(Verdict.FAILED, str(error))
    line["db_ms"] = round((perf_counter() - started) * 1000, 3)
    line["batch_size"] = 1
    match applied.verdict:
        case Verdict.UPDATED:
            line["outcome"] = Outcome.UPDATED
            return Outcome.UPDATED
        case Verdict.UNMATCHED:
            line["reason"] = "unknown_deployment"
            raise HTTPException(404, f"No robot has the deployment '{callback.deployment_id}'.")
        case Verdict.REFUSED | Verdict.FAILED:
            line.update(reason=f"database_{applied.verdict}", error=applied.reason)
            raise HTTPException(
                503,
                "The callback could not be written to the database. Send it again.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
