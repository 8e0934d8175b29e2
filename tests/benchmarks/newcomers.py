"""Callbacks that come over a connection of their own, one a second: how long each takes."""

import contextlib
import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.benchmarks.server import KEY

TIMEOUT_SECONDS: Final = 30.0


class Newcomers:
    """A thread that connects, sends a callback, and goes.

    Attributes:
        seconds: How long each took, from connecting to its answer.
        failed: How many had another answer than 200, or none.
    """

    def __init__(self, port: int, body: bytes) -> None:
        self.seconds: list[float] = []
        self.failed = 0
        self._port = port
        self._body = body
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the one that is under way."""
        self._end.set()
        self._thread.join(TIMEOUT_SECONDS + 1)

    @property
    def summary(self) -> str:
        """The median of the seconds, and the most."""
        if not self.seconds:
            return "none"
        return f"{statistics.median(self.seconds):.2f} ({max(self.seconds):.2f})"

    def _run(self) -> None:
        while not self._end.wait(1):
            started = time.perf_counter()
            if self._send():
                self.seconds.append(time.perf_counter() - started)
            else:
                self.failed += 1

    def _send(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            try:
                connection.request("POST", "/callback", self._body, {"X-API-KEY": KEY})
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


@contextmanager
def coming(port: int, body: bytes) -> Iterator[Newcomers]:
    """Have them come, one after the other, until the end."""
    newcomers = Newcomers(port, body)
    newcomers.start()
    try:
        yield newcomers
    finally:
        newcomers.stop()
