"""Swagger UI at /docs: served from here alone, under a strict Content-Security-Policy.

Its assets are served from memory: each was read and compressed once, and takes no file descriptor.
"""

import base64
import gzip
import hashlib
import re
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from sam.callback.service.direct import DirectRoute

DOCS_PATH: Final = "/docs"
OPENAPI_PATH: Final = "/openapi.json"
ASSETS: Final = {
    f"{DOCS_PATH}/assets/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    f"{DOCS_PATH}/assets/swagger-ui.css": "text/css; charset=utf-8",
    f"{DOCS_PATH}/assets/favicon.png": "image/png",
}
"""What the page loads, and its content type."""

PUBLIC_PATHS: Final = (DOCS_PATH, OPENAPI_PATH, *ASSETS)

CHUNK_BYTES: Final = 2**16
"""What is given to a connection at once; all of them share the chunks."""

_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
# Its icons are data: in its style sheet.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' '{script}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class ChunkedResponse(Response):
    """A response from memory, in chunks, each sent when the connection has room for it."""

    def __init__(self, content: bytes, headers: dict[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._chunks = [
            content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})


def docs_router() -> APIRouter:
    """Make the routes of the page and of its assets."""
    router = APIRouter(include_in_schema=False, route_class=DirectRoute)
    for path, content_type in ASSETS.items():
        _add_asset(router, path, content_type)
    router.add_api_route(DOCS_PATH, docs, methods=["GET", "HEAD"])
    return router


async def docs(request: Request) -> HTMLResponse:
    """Return the page; the root path of the request goes before each path in it."""
    root = request.scope.get("root_path", "")
    script, styles, icon = (f"{root}{path}" for path in ASSETS)
    page = get_swagger_ui_html(
        openapi_url=f"{root}{OPENAPI_PATH}",
        title=request.app.title,
        swagger_js_url=script,
        swagger_css_url=styles,
        swagger_favicon_url=icon,
        # Swagger UI would send the document to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None},
    )
    # FastAPI starts Swagger UI by a script in the page: the one that is allowed, by its hash.
    [inline] = _INLINE_SCRIPT.findall(bytes(page.body))
    digest = base64.b64encode(hashlib.sha256(inline).digest()).decode()
    page.headers["Content-Security-Policy"] = _POLICY.format(script=f"sha256-{digest}")
    page.headers["Referrer-Policy"] = "no-referrer"
    return page


def _add_asset(router: APIRouter, path: str, content_type: str) -> None:
    name = path.rpartition("/")[2]
    content = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    headers = {"Content-Type": content_type, "Vary": "Accept-Encoding"}
    plain = ChunkedResponse(content, headers=headers)
    compressed = ChunkedResponse(
        gzip.compress(content, mtime=0), headers={**headers, "Content-Encoding": "gzip"}
    )

    async def asset(request: Request) -> Response:
        accepts_gzip = "gzip" in request.headers.get("accept-encoding", "")
        return compressed if accepts_gzip else plain

    router.add_api_route(path, asset, methods=["GET", "HEAD"])
