"""``GET /metrics``: for Prometheus. It needs the key, as all that is not public."""

from fastapi import Request, Response

from sam.callback.metrics import Metrics
from sam.callback.service import openapi, paths
from sam.callback.service.direct_route import DirectRoute


def metrics_route(metrics: Metrics) -> DirectRoute:
    """Return the route, with its entry in the OpenAPI document."""

    async def scrape(request: Request) -> Response:
        text, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    return DirectRoute(
        paths.METRICS,
        scrape,
        methods=["GET"],
        tags=["Probes"],
        summary="What is there to measure?",
        response_class=Response,
        **openapi.METRICS_OPERATION,
    )
