"""Amount of requests, their seed, and the share of each sender."""

import os
from typing import Final

REQUESTS: Final = int(os.environ.get("SAM_FUZZ_REQUESTS", "20000"))
"""In all, at least about."""

SEED: Final = os.environ.get("SAM_FUZZ_SEED", "1")
"""Any text."""

EXAMPLES: Final = min(REQUESTS // 20, 5_000)
"""Schemathesis' for each operation; there are three, and only a callback has much to vary."""

REQUESTS_BY_PROXY: Final = min(max(REQUESTS // 4, 1), 100_000)
"""Through each of the proxies, beside the others."""

# Each round has a process of the service to itself: its log is kept in memory, and the bodies that
# it did not understand on a disk.
ROUND_OF_BODIES: Final = 2_500
ROUND_OF_BYTES: Final = 4_000


def _rounds(requests: int, size: int) -> int:
    return max(1, -(-requests // size))


ROUNDS_OF_BODIES: Final = _rounds(REQUESTS // 8, ROUND_OF_BODIES)
ROUNDS_OF_BYTES: Final = _rounds(
    REQUESTS - ROUNDS_OF_BODIES * ROUND_OF_BODIES - 2 * EXAMPLES, ROUND_OF_BYTES
)
