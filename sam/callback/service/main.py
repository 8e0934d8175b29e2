"""The app: its parts put together, its lifespan and its routes."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import orjson
from fastapi import FastAPI, Response

from sam.callback.inbox.collector import InboxCollector
from sam.callback.inbox.inbox import Inbox, Readiness
from sam.callback.metrics import Metrics
from sam.callback.service import openapi
from sam.callback.service.api_key import ApiKeyMiddleware
from sam.callback.service.callback_route import PATH as CALLBACK_PATH
from sam.callback.service.callback_route import callback_route
from sam.callback.service.metrics_route import PATH as METRICS_PATH
from sam.callback.service.metrics_route import metrics_route
from sam.callback.service.repeated import RepeatedLines
from sam.callback.service.request_log import RequestLogMiddleware
from sam.callback.service.schemas import HealthAnswer, ReadyAnswer
from sam.callback.settings import Settings

HEALTH_PATH: Final = "/health"
READY_PATH: Final = "/ready"


def create_app(settings: Settings) -> FastAPI:
    """Make the app; its state has the `inbox`, its `metrics`, and `repeated`, which bounds its log.

    Raises:
        DriverNotFoundError: If the ODBC driver that the settings ask for does not exist.
    """
    metrics = Metrics(routes=(CALLBACK_PATH, HEALTH_PATH, READY_PATH, METRICS_PATH))
    inbox = Inbox(settings, metrics)
    metrics.registry.register(InboxCollector(inbox))

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await inbox.open()
        try:
            yield
        finally:
            await inbox.close()

    app = openapi.create_documented_app(docs=settings.callback_docs, lifespan=lifespan)
    app.state.inbox = inbox
    app.state.metrics = metrics
    app.state.repeated = RepeatedLines()

    # First, so that it is found first: each route before it costs a regular expression.
    app.router.routes.insert(0, callback_route(inbox, settings))

    # The route below answers, so that `Allow` names both methods; the one above is documented.
    @app.get(
        HEALTH_PATH,
        tags=["Probes"],
        summary="Does the process live?",
        response_model=HealthAnswer,
    )
    @app.api_route(HEALTH_PATH, methods=["GET", "HEAD"], include_in_schema=False)
    async def health() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @app.get(READY_PATH, tags=["Probes"], response_model=ReadyAnswer, **openapi.READY_OPERATION)
    @app.api_route(READY_PATH, methods=["GET", "HEAD"], include_in_schema=False)
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

    app.router.routes.append(metrics_route(metrics))

    public = {HEALTH_PATH, READY_PATH}
    if settings.callback_docs:
        public.update(openapi.PUBLIC_PATHS)
    keys = {"current": settings.callback_api_key, "previous": settings.callback_api_key_previous}
    accepted = {name: key for name, key in keys.items() if key}
    # The last one added is the outermost.
    app.add_middleware(ApiKeyMiddleware, keys=accepted, public=public)
    app.add_middleware(RequestLogMiddleware, metrics=metrics, repeated=app.state.repeated)
    return app
