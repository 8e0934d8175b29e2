"""The app: its parts put together, its lifespan and its routes."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware

from sam.callback.inbox.admission import NotDurableError
from sam.callback.inbox.collector import InboxCollector
from sam.callback.inbox.inbox import Inbox
from sam.callback.log_throttle import LogThrottle
from sam.callback.metrics import Metrics
from sam.callback.service import openapi, paths
from sam.callback.service.api_key import ApiKeyMiddleware
from sam.callback.service.callback_body import BodyDecoder
from sam.callback.service.callback_route import callback_route, not_durable
from sam.callback.service.metrics_route import metrics_route
from sam.callback.service.probe_routes import probe_routes
from sam.callback.service.request_log import RequestLogMiddleware
from sam.callback.settings import Settings
from sam.callback.tasks import Supervisor


def create_app(settings: Settings) -> FastAPI:
    """Make the app.

    Its state has the `inbox`, its `metrics`, the `throttle` of its log, and the `supervisor` of its
    background tasks.

    Raises:
        DriverNotFoundError: If the ODBC driver that the settings ask for does not exist.
    """
    metrics = Metrics(routes=paths.ALL)
    throttle = LogThrottle()
    supervisor = Supervisor(metrics, throttle)
    inbox = Inbox(settings, metrics, supervisor)
    metrics.registry.register(InboxCollector(inbox))
    decoder = BodyDecoder()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await inbox.open()
        try:
            yield
        finally:
            await inbox.close()
            decoder.close()

    app = openapi.create_documented_app(docs=settings.callback_docs, lifespan=lifespan)
    app.add_exception_handler(NotDurableError, not_durable)  # type: ignore[arg-type]  # it gets no other
    app.state.inbox = inbox
    app.state.metrics = metrics
    app.state.throttle = throttle
    app.state.supervisor = supervisor

    app.router.routes[:0] = [
        callback_route(inbox, decoder, settings),  # the first that is looked at
        *probe_routes(inbox),
        metrics_route(metrics),
    ]

    public = {paths.HEALTH, paths.READY}
    if settings.callback_docs:
        public.update(openapi.PUBLIC_PATHS)
    keys = {"current": settings.callback_api_key, "previous": settings.callback_api_key_previous}
    accepted = {name: key for name, key in keys.items() if key}
    # FastAPI would put four layers more around the router: for crashes, which RequestLogMiddleware
    # is for, and for telemetry, uploads and a limit of bodies, none of which are used.
    door = ApiKeyMiddleware(
        ExceptionMiddleware(app.router, handlers=app.exception_handlers),
        keys=accepted,
        public=public,
    )
    app.middleware_stack = RequestLogMiddleware(door, metrics=metrics, throttle=throttle)
    return app
