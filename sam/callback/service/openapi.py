"""The OpenAPI document and the page that shows it, which needs no other host."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.responses import HTMLResponse

from sam.callback.service import api_key, request_log
from sam.callback.service.docs_page import ASSETS, docs_page
from sam.callback.service.schemas import (
    CallbackPayload,
    ErrorAnswer,
    InvalidAnswer,
    ReadyAnswer,
)

DOCS_PATH: Final = "/docs"
OPENAPI_PATH: Final = "/openapi.json"

_ASSETS_PATH = "/docs/assets"
PUBLIC_PATHS: Final = (
    DOCS_PATH,
    OPENAPI_PATH,
    *(f"{_ASSETS_PATH}/{name}" for name in ASSETS),
)

API_VERSION: Final = "1"
"""The contract's; which release answers, the public need not know."""

_TITLE = "SAM Callback Service"
_DESCRIPTION = (
    "Receives the callbacks of Automation 360 deployments and writes their status into SAM's "
    "database. **Authorize** takes the shared secret that goes into `X-API-KEY`."
)
_SECURITY_SCHEME = "ApiKey"


def create_documented_app(*, docs: bool, **kwargs: Any) -> FastAPI:  # noqa: ANN401 - FastAPI's own
    """Make the FastAPI app, with /docs and /openapi.json if `docs`, else with neither."""
    kwargs |= {"title": _TITLE, "description": _DESCRIPTION, "version": API_VERSION}
    # A360 follows no redirect: a callback to `/callback/` is one that is lost, and to be told of.
    kwargs["redirect_slashes"] = False
    # Nothing here exports OpenTelemetry, and FastAPI would look into the environment three times
    # for each request, to see whether anything does by now.
    kwargs["telemetry"] = {"tracing": False, "metrics": False, "logs": False}
    if not docs:
        return FastAPI(docs_url=None, redoc_url=None, openapi_url=None, **kwargs)
    app: FastAPI = FastAPIOffline(
        docs_url=None,
        redoc_url=None,
        openapi_url=OPENAPI_PATH,
        static_url=_ASSETS_PATH,
        **kwargs,
    )

    async def docs_of(request: Request) -> HTMLResponse:
        return docs_page(request, title=_TITLE, openapi_path=OPENAPI_PATH, assets_path=_ASSETS_PATH)

    app.add_route(DOCS_PATH, docs_of, include_in_schema=False)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        document.setdefault("components", {})["securitySchemes"] = {
            _SECURITY_SCHEME: {"type": "apiKey", "in": "header", "name": api_key.HEADER}
        }
        app.openapi_schema = document
    return app.openapi_schema


def _error(status: int, description: str, detail: str, **headers: str) -> dict[str, Any]:
    return {
        "model": ErrorAnswer,
        "description": f"{HTTPStatus(status).phrase}: {description}",
        "content": {"application/json": {"example": {"detail": detail}}},
        "headers": {
            name: {"description": what, "schema": {"type": "string"}}
            for name, what in headers.items()
        },
    }


_UNAUTHORIZED = {
    **_error(401, "no valid key.", "A valid X-API-KEY header is required."),
    "headers": {
        "WWW-Authenticate": {
            "description": "`ApiKey`",
            "schema": {"type": "string", "const": "ApiKey"},
        }
    },
}

_METRICS_EXAMPLE = """\
# HELP sam_callback_callbacks_total Callbacks that were made durable, by what became of them.
# TYPE sam_callback_callbacks_total counter
sam_callback_callbacks_total{outcome="updated"} 1042.0
"""

_READY_EXAMPLE = {
    "status": "degraded",
    "database": "down",
    "spool": {
        "queued": 42,
        "unmatched": 1,
        "dead_letter": 0,
        "invalid": 0,
        "bytes": 8127,
        "writable": True,
    },
}

READY_OPERATION: Final[dict[str, Any]] = {
    "summary": "Can callbacks be made durable?",
    "responses": {
        200: {
            "description": "They can: `ok`, or `degraded` where only the database or only the "
            "spool can take them, or where it is `unknown` whether the database can: from the "
            "start to the first write.",
            "content": {"application/json": {"example": _READY_EXAMPLE}},
        },
        503: {
            "model": ReadyAnswer,
            "description": "They cannot (`unavailable`), or the service is ending (`draining`).",
            "content": {"application/json": {"example": {**_READY_EXAMPLE, "status": "draining"}}},
        },
    },
}

METRICS_OPERATION: Final[dict[str, Any]] = {
    "openapi_extra": {"security": [{_SECURITY_SCHEME: []}]},
    "responses": {
        200: {
            "description": "Counters, histograms and gauges, as text for Prometheus; as "
            "OpenMetrics for those who ask for it.",
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": _METRICS_EXAMPLE},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        },
        401: _UNAUTHORIZED,
    },
}

CALLBACK_OPERATION: Final[dict[str, Any]] = {
    # The body is validated straight from its bytes, so FastAPI does not see its model.
    "openapi_extra": {
        "security": [{_SECURITY_SCHEME: []}],
        "parameters": [
            {
                "name": request_log.HEADER,
                "in": "header",
                "required": False,
                "description": "An id of the sender's for this request: up to 64 letters, digits, "
                "dots, underscores and hyphens. Another is replaced.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "description": "JSON in UTF-8, with or without a BOM; in UTF-16 or UTF-32; or in the "
            "charset that the content type names. Whatever stands in other fields, such as half a "
            "surrogate pair or bytes of another encoding, does not matter.",
            "required": True,
            "content": {"application/json": {"schema": CallbackPayload.model_json_schema()}},
        },
    },
    "responses": {
        200: {
            "description": "The callback is safe: `updated`, committed in the database; "
            "`superseded`, not written, as the row has the status of a later callback; or on disk "
            "here, as `queued` (the database could not take it), `unmatched` (no such row yet) or "
            "`dead_letter` (the database refuses it for good).",
            "content": {
                "application/json": {
                    "example": {
                        "status": "ok",
                        "outcome": "updated",
                        "deploymentId": "f6d30428-15d1-41e9-a952-0742eaaa5a31",
                        "requestId": "0f6f2a3d9b1c4e5f8a7b6c5d4e3f2a1b",
                    }
                }
            },
        },
        401: _UNAUTHORIZED,
        408: _error(408, "the body came too slowly.", "The body took more than 10 seconds."),
        413: _error(413, "the body is too large.", "The body is larger than 16777216 bytes."),
        422: {
            "model": InvalidAnswer,
            "description": "Unprocessable: the body is no JSON object, or a required field is "
            "missing, empty, too long, or holds a control character or what is no character.",
            "content": {
                "application/json": {
                    "example": {
                        "detail": [
                            {
                                "type": "missing",
                                "loc": ["body", "deploymentId"],
                                "msg": "Field required",
                            }
                        ]
                    }
                }
            },
        },
        503: _error(
            503,
            "the callback could not be made durable, or there was no room for its body. Send it "
            "again.",
            "The callback could not be made durable: neither the database nor the spool can take "
            "it. Send it again.",
            **{"Retry-After": "Seconds to wait before the next try."},
        ),
    },
}
