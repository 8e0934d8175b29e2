"""The door: no request without a valid X-API-KEY gets past, but for a short public list."""

import hashlib
import hmac
from collections.abc import Collection, Mapping

from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sam.callback import http_scope
from sam.callback.reasons import RefusalReason
from sam.callback.service.request_log import line_of

HEADER = "X-API-KEY"

_HEADER_NAME = HEADER.lower().encode()
_PUBLIC_METHODS = frozenset({"GET", "HEAD"})


class ApiKeyMiddleware:
    """Answers 401 to a request without a valid key, before routing and before its body is read.

    Args:
        app: What the request goes to if it has a key.
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
            raise ValueError("without a key nobody would get in")
        self._public = frozenset(public)
        self._refusal = JSONResponse(
            {"detail": f"A valid {HEADER} header is required."},
            status_code=401,
            headers={"WWW-Authenticate": "ApiKey"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it."""
        if scope["type"] == "lifespan" or self._is_public(scope) or self._has_key(scope):
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        return scope["path"] in self._public and scope["method"] in _PUBLIC_METHODS

    def _has_key(self, scope: Scope) -> bool:
        """Whether the request has a valid key; its log line says which one, or why not."""
        line = line_of(scope)
        given = [value for name, value in scope["headers"] if name == _HEADER_NAME]
        if len(given) != 1:
            line["reason"] = RefusalReason.SEVERAL_KEYS if given else RefusalReason.NO_KEY
            return False
        # Digests have one length, whatever that of a key; and every key is compared.
        digest = _digest(given[0])
        matches = [
            name
            for name, accepted in self._digests.items()
            if hmac.compare_digest(digest, accepted)
        ]
        if not matches:
            line["reason"] = RefusalReason.WRONG_KEY
            return False
        line["key"] = matches[0]
        if authenticate := scope.get(http_scope.AUTHENTICATE):  # an app may have no server
            authenticate()
        return True


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
