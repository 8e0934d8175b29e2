"""Limits of a callback's fields, in characters. What is longer is answered 422."""

from typing import Final

MAX_DEPLOYMENT_ID_LENGTH: Final = 128
"""A360's ids have 36: they are UUIDs."""

MAX_STATUS_LENGTH: Final = 64
"""The statuses seen have up to 13."""
