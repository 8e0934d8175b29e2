"""Probes: ``/health`` and ``/ready`` for load balancers, ``/metrics`` for Prometheus."""

from typing import Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import JSONResponse

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.readiness import Readiness, database_state
from sam.callback.service import HEALTH_PATH, METRICS_PATH, READY_PATH
from sam.callback.service.access_log import log_fields
from sam.callback.service.api_key import SCHEME, UNAUTHORIZED_RESPONSE, is_authenticated
from sam.callback.service.direct import DirectRoute
from sam.callback.service.schemas import HealthAnswer, ReadyAnswer, SpoolState, example_response

router = APIRouter(tags=["Probes"], route_class=DirectRoute)

_READY_EXAMPLE = ReadyAnswer(
    status="degraded",
    database="down",
    spool=SpoolState(queued=42, unmatched=1, dead_letter=0, invalid=0, bytes=8127, writable=True),
)
_METRICS_EXAMPLE = """\
# HELP sam_callback_callbacks_total Callbacks that were made durable, by what became of them.
# TYPE sam_callback_callbacks_total counter
sam_callback_callbacks_total{outcome="updated"} 1042.0
"""

# Of each pair the first route answers, as its `Allow` names both methods; the other is documented.


@router.get(HEALTH_PATH, summary="Does the process live?", response_model=HealthAnswer)
@router.api_route(HEALTH_PATH, methods=["GET", "HEAD"], include_in_schema=False)
async def health(_request: Request) -> Response:
    """Whether the process lives; it asks no database."""
    return JSONResponse(HealthAnswer().model_dump())


@router.get(
    READY_PATH,
    summary="Can callbacks be made durable?",
    dependencies=[Security(SCHEME)],
    openapi_extra={"security": [{}]},  # or without
    response_model=ReadyAnswer,
    responses={
        200: example_response(
            "They can: `ok`, or `degraded` where only the database or only the spool can take "
            "them, or where it is `unknown` whether the database can: from the start to the first "
            "write.",
            _READY_EXAMPLE,
        ),
        503: example_response(
            "They cannot (`unavailable`), or the service is ending (`draining`).",
            ReadyAnswer(status="draining"),
        ),
    },
)
@router.api_route(READY_PATH, methods=["GET", "HEAD"], include_in_schema=False)
async def ready(request: Request) -> Response:
    """Whether callbacks can be made durable. Without the key the answer is `status` alone."""
    inbox = request.app.state.inbox
    readiness = inbox.readiness()
    log_fields(request.scope)["event"] = "request"  # a 503 is no refusal here
    answer = ReadyAnswer(
        status=readiness, **_details(inbox) if is_authenticated(request.scope) else {}
    )
    return JSONResponse(
        answer.model_dump(exclude_none=True),
        status_code=200 if readiness in {Readiness.OK, Readiness.DEGRADED} else 503,
    )


def _details(inbox: Inbox) -> dict[str, Any]:
    spool, shared = inbox.spool, inbox.shared
    size = sum(total.bytes for total in spool.totals.values())
    return {
        "database": database_state(inbox.breaker),
        "spool": {**spool.counts(), "bytes": size, "writable": spool.is_writable},
        "inbox": None if shared is None else {**shared.counts(), "up": shared.is_writable},
    }


@router.get(
    METRICS_PATH,
    summary="What is there to measure?",
    dependencies=[Security(SCHEME)],
    response_class=Response,
    responses={
        200: {
            "description": "Counters, histograms and gauges.",
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": _METRICS_EXAMPLE},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        },
        401: UNAUTHORIZED_RESPONSE,
    },
)
async def scrape(request: Request) -> Response:
    """Metrics for Prometheus, as text, or as OpenMetrics for those who ask for it."""
    text, content_type = request.app.state.metrics.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type})
