"""API key authentication: a valid X-API-KEY for every path but a short public list."""

import hashlib
import hmac
from collections.abc import Collection, Mapping

from fastapi.security import APIKeyHeader
from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sam.callback import http_scope
from sam.callback.metrics import RefusalReason
from sam.callback.service.access_log import log_fields
from sam.callback.service.schemas import ErrorAnswer, example_response

HEADER = "X-API-KEY"

SCHEME = APIKeyHeader(name=HEADER, scheme_name="ApiKey", auto_error=False)
"""For the OpenAPI document; the middleware has looked before a route does."""

UNAUTHORIZED = ErrorAnswer(detail=f"A valid {HEADER} header is required.")
UNAUTHORIZED_RESPONSE = example_response(
    "Unauthorized: no valid key.", UNAUTHORIZED, {"WWW-Authenticate": "`ApiKey`"}
)

_HEADER_NAME = HEADER.lower().encode()
_PUBLIC_METHODS = frozenset({"GET", "HEAD"})


class ApiKeyMiddleware:
    """Answers 401 to a request without a valid key, before routing and before its body is read.

    Args:
        app: The next ASGI app.
        keys: The keys that are accepted, by the names that the log gives them.
        public: Paths that need no key for GET and HEAD; compared whole, after percent-decoding.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Mapping[str, SecretStr], public: Collection[str] = ()
    ) -> None:
        self._app = app
        self._digests = {
            name: _digest(key.get_secret_value().encode("ascii")) for name, key in keys.items()
        }
        if not self._digests:
            raise ValueError("without a key no request would get in")
        self._public = frozenset(public)
        self._refusal = JSONResponse(
            UNAUTHORIZED.model_dump(), status_code=401, headers={"WWW-Authenticate": "ApiKey"}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it; its log line says with which key, or why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == _HEADER_NAME]
        if len(given) == 1 and (name := self._name_of(given[0])):
            log_fields(scope)["key"] = name
            # An app may have no server.
            if on_authenticated := scope.get(http_scope.ON_AUTHENTICATED):
                on_authenticated()
        elif not (scope["path"] in self._public and scope["method"] in _PUBLIC_METHODS):
            reasons = {0: RefusalReason.NO_KEY, 1: RefusalReason.WRONG_KEY}
            log_fields(scope)["reason"] = reasons.get(len(given), RefusalReason.SEVERAL_KEYS)
            await self._refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _name_of(self, key: bytes) -> str | None:
        # Digests have one length, whatever that of a key; and every key is compared.
        digest = _digest(key)
        matches = [
            name
            for name, accepted in self._digests.items()
            if hmac.compare_digest(digest, accepted)
        ]
        return matches[0] if matches else None


def is_authenticated(scope: Scope) -> bool:
    """Whether a request came with a valid key; on a public path it may have none."""
    return "key" in log_fields(scope)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
