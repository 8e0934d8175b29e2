"""Connections through a proxy that ask for much and give nothing, as a process.

``python -m tests.benchmarks.besieger PORT CONNECTIONS PERIOD BODY_BYTES SENT_BYTES`` keeps at it
until it is terminated, and tells then what it did. As `slow_sender`, it lets others go first.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.raw import request
from tests.support.siege import Siege

_NICENESS: Final = 10


@contextmanager
def besieging(port: int, siege: tuple[int, float], body: tuple[int, int]) -> Iterator[Counter[str]]:
    """Keep connections at it; how they ended is known in the end.

    Args:
        port: Where.
        siege: How many, and the seconds from one coming of each to its next.
        body: How long it is said to be, and how much of it is sent.
    """
    arguments = [port, *siege, *body]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.besieger", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    ended: Counter[str] = Counter()
    try:
        yield ended
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
        if output:  # it may not even have begun
            ended.update(json.loads(output))


def main(port: str, connections: str, period: str, length: str, sent: str) -> None:
    """Besiege a port until SIGTERM."""
    os.nice(_NICENESS)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    beginning = request(length=int(length), content=b"x" * int(sent), headers=b"")
    siege = Siege(int(port), tls, beginning, connections=int(connections), period=float(period))
    with siege:
        signal.sigwait({signal.SIGTERM})
    print(json.dumps(siege.ended))  # noqa: T201 - it was asked for


if __name__ == "__main__":
    main(*sys.argv[1:])
