"""The page /docs: Swagger UI, from here alone, and a policy that lets nothing else run on it."""

import base64
import hashlib
import re
from typing import Final

from fastapi import Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

ASSETS: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
"""What the page loads."""

_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
# Its icons are data: in its style sheet.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' '{script}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_page(request: Request, *, title: str, openapi_path: str, assets_path: str) -> HTMLResponse:
    """Make the page.

    Args:
        request: Whose root path goes before each path.
        title: The window's.
        openapi_path: Where the document is.
        assets_path: Where the assets are.
    """
    root = request.scope.get("root_path", "")
    script, styles, icon = (f"{root}{assets_path}/{name}" for name in ASSETS)
    page = get_swagger_ui_html(
        openapi_url=f"{root}{openapi_path}",
        title=title,
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
