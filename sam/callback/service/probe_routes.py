"""``/health`` and ``/ready``: does the process live, can it take callbacks? They need no key."""

from typing import Any

import orjson
from fastapi import Request, Response

from sam.callback.inbox.inbox import Inbox, Readiness
from sam.callback.service import openapi, paths
from sam.callback.service.direct_route import DirectRoute, Endpoint
from sam.callback.service.request_log import PROBE, line_of
from sam.callback.service.schemas import HealthAnswer, ReadyAnswer


def probe_routes(inbox: Inbox) -> list[DirectRoute]:
    """Return the routes, with their entries in the OpenAPI document."""

    async def health(_request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def ready(request: Request) -> Response:
        state = inbox.state()
        line_of(request.scope)["event"] = PROBE
        can_take = state.readiness in {Readiness.OK, Readiness.DEGRADED}
        return Response(
            orjson.dumps(
                {
                    "status": state.readiness,
                    "database": state.database,
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

    return [
        *_routes(
            paths.HEALTH, health, summary="Does the process live?", response_model=HealthAnswer
        ),
        *_routes(paths.READY, ready, response_model=ReadyAnswer, **openapi.READY_OPERATION),
    ]


def _routes(path: str, endpoint: Endpoint, **documented: Any) -> list[DirectRoute]:  # noqa: ANN401 - FastAPI's own
    # The first answers, so that `Allow` names both methods; the other is documented.
    return [
        DirectRoute(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False),
        DirectRoute(path, endpoint, methods=["GET"], tags=["Probes"], **documented),
    ]
