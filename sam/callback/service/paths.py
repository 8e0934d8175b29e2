"""Paths of the service."""

from typing import Final

CALLBACK: Final = "/callback"
HEALTH: Final = "/health"
READY: Final = "/ready"
METRICS: Final = "/metrics"

ALL: Final = (CALLBACK, HEALTH, READY, METRICS)

POLLED: Final = frozenset({HEALTH, READY, METRICS})
"""What is asked every few seconds, by load balancers and Prometheus."""
