"""App factory: parts, lifespan, middlewares, routes."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from fastapi import FastAPI

from sam.callback.inbox.admission import NotDurableError
from sam.callback.inbox.collector import InboxCollector
from sam.callback.inbox.inbox import Inbox
from sam.callback.log_throttle import LogThrottle
from sam.callback.metrics import Metrics
from sam.callback.service import (
    CALLBACK_PATH,
    HEALTH_PATH,
    METRICS_PATH,
    READY_PATH,
    callback,
    docs,
    probes,
)
from sam.callback.service.access_log import AccessLogMiddleware
from sam.callback.service.api_key import ApiKeyMiddleware
from sam.callback.service.direct import DirectApp
from sam.callback.settings import Settings
from sam.callback.tasks import Supervisor

API_VERSION: Final = "1"
"""The contract's; which release answers, the public need not know."""

_DESCRIPTION = (
    "Receives the callbacks of Automation 360 deployments and writes their status into SAM's "
    "database. **Authorize** takes the shared secret that goes into `X-API-KEY`."
)


def create_app(settings: Settings) -> FastAPI:
    """Make the app.

    Its state has the `inbox`, the `receiver` of callbacks, the `metrics`, the `throttle` of the
    log, and the `supervisor` of background tasks.

    Raises:
        DriverNotFoundError: If the ODBC driver that the settings ask for does not exist.
    """
    probed = {HEALTH_PATH, READY_PATH, METRICS_PATH}
    metrics = Metrics(routes={CALLBACK_PATH, *probed})
    throttle = LogThrottle()
    supervisor = Supervisor(metrics, throttle)
    inbox = Inbox(settings, metrics, supervisor)
    metrics.registry.register(InboxCollector(inbox))
    receiver = callback.CallbackReceiver(inbox, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await inbox.open()
        try:
            yield
        finally:
            await inbox.close()
            receiver.close()

    app = DirectApp(
        title="SAM Callback Service",
        description=_DESCRIPTION,
        version=API_VERSION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page would load its assets from the internet
        redoc_url=None,
        openapi_url=docs.OPENAPI_PATH if settings.callback_docs else None,
        # A360 follows no redirect: a callback to `/callback/` is one that is lost, and to be told.
        redirect_slashes=False,
        # Nothing here exports OpenTelemetry; FastAPI would look for it with each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.inbox = inbox
    app.state.receiver = receiver
    app.state.metrics = metrics
    app.state.throttle = throttle
    app.state.supervisor = supervisor
    app.add_exception_handler(NotDurableError, callback.not_durable)  # type: ignore[arg-type]  # it gets no other

    routers = [callback.router, probes.router]
    public = {HEALTH_PATH, READY_PATH}
    if settings.callback_docs:
        routers.append(docs.docs_router())
        public.update(docs.PUBLIC_PATHS)
    app.include_routes(*routers)
    keys = {"current": settings.callback_api_key, "previous": settings.callback_api_key_previous}
    app.add_middleware(
        ApiKeyMiddleware, keys={name: key for name, key in keys.items() if key}, public=public
    )
    app.add_middleware(AccessLogMiddleware, metrics=metrics, throttle=throttle, polled=probed)
    return app
