"""How much is sent, from which seed, and who sends what share of it."""

import os
from typing import Final

REQUESTS: Final = int(os.environ.get("SAM_FUZZ_REQUESTS", "20000"))
"""In all, about."""

SEED: Final = os.environ.get("SAM_FUZZ_SEED", "1")
"""Any text."""

BODIES: Final = REQUESTS // 8
EXAMPLES: Final = REQUESTS // 20
"""For each operation of the API; a callback's has by far the most of them."""

ROUND_REQUESTS: Final = 4_000
"""What one process of the service gets by way of raw sockets: its log is kept in memory."""

ROUNDS: Final = max(1, (REQUESTS - BODIES - 2 * EXAMPLES) // ROUND_REQUESTS)
