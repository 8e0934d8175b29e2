"""A route that FastAPI documents, and that costs no more than its endpoint."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """A route for one path, without parameters, whose endpoint takes the request itself.

    FastAPI's own handler would solve dependencies, and hold exit stacks open for them.

    Args:
        path: The path.
        endpoint: Answers. What it raises is answered by the app's own handlers.
        methods: HTTP methods, in capitals.
        documented: Further arguments of FastAPI's own route: the entry in the OpenAPI document.
    """

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        methods: Collection[str],
        **documented: Any,  # noqa: ANN401 - FastAPI's own
    ) -> None:
        super().__init__(path, endpoint, methods=set(methods), **documented)
        self._accepted = frozenset(methods)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether the request is for this route; without a regular expression, as a rule."""
        if scope["type"] != "http" or scope.get("root_path"):
            return super().matches(scope)
        if scope["path"] != self.path:
            return Match.NONE, {}
        match = Match.FULL if scope["method"] in self._accepted else Match.PARTIAL
        return match, {"endpoint": self.endpoint, "path_params": {}, "route": self}
