"""HTTP service: the FastAPI app, and the paths of its routes."""

from typing import Final

CALLBACK_PATH: Final = "/callback"
HEALTH_PATH: Final = "/health"
READY_PATH: Final = "/ready"
METRICS_PATH: Final = "/metrics"
