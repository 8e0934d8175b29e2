"""App and route that skip FastAPI's own request handling, each with the CPU time it saves.

Routes are documented by FastAPI, and middlewares are added, as in any app of FastAPI. Measured:
docs/decisions/0008-the-hot-path.md.
"""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectApp(FastAPI):
    """An app without what FastAPI puts round its routers and middlewares."""

    def include_routes(self, *routers: APIRouter) -> None:
        """Add the routes of routers, before those that are there.

        `include_router` would look for the route of each request twice: 12 %.
        """
        self.router.routes[:0] = [route for router in routers for route in router.routes]

    def build_middleware_stack(self) -> ASGIApp:
        """Put together the middlewares that were added, and the handlers of exceptions.

        FastAPI's own are for crashes, telemetry, a limit of bodies and files of uploads: 4 %.
        """
        app: ASGIApp = ExceptionMiddleware(self.router, handlers=self.exception_handlers)
        for middleware in reversed(self.user_middleware):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request and returns a response.

    FastAPI's handler would open exit stacks and solve dependencies, which are here for the OpenAPI
    document alone: 43 %.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(*args, **kwargs)
        endpoint = self.endpoint

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app
