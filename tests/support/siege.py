"""Connections that ask for much and give nothing, from one address, again and again."""

import asyncio
import resource
import ssl
import threading
import time
from collections import Counter
from typing import Final, Self

ADDRESS: Final = "127.0.0.2"


class Siege:
    """Keeps so many connections at it until it is over.

    Args:
        port: Where.
        tls: A context that trusts the certificate.
        beginning: What each sends; it then waits for its end, and comes again.
        connections: How many.
        address: Where they come from.
        period: Seconds from one coming of a connection to its next, at least.

    Attributes:
        ended: How many came to their end, by the status of the answer, or by the error.
        begun: How many have sent what they had to send.
    """

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext,
        beginning: bytes,
        *,
        connections: int = 1_200,
        address: str = ADDRESS,
        period: float = 1.0,
    ) -> None:
        self.ended: Counter[str] = Counter()
        self.begun = 0
        self._port = port
        self._tls = tls
        self._beginning = beginning
        self._connections = connections
        self._address = address
        self._period = period
        self._is_over = threading.Event()
        self._transports: set[asyncio.WriteTransport] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    async def _run(self) -> None:
        tasks = [
            asyncio.create_task(self._keep_coming(self._period * number / self._connections))
            for number in range(self._connections)
        ]
        await asyncio.to_thread(self._is_over.wait)
        # Not cancelled: asyncio does not close what is cancelled just before its TLS handshake.
        for transport in self._transports:
            transport.abort()
        await asyncio.gather(*tasks)

    async def _keep_coming(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while not self._is_over.is_set():
            next_time = time.monotonic() + self._period
            try:
                self.ended[await self._come()] += 1
            except OSError as error:
                self.ended[type(error).__name__] += 1
            await asyncio.sleep(max(0.0, next_time - time.monotonic()))

    async def _come(self) -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, local_addr=(self._address, 0)
        )
        self._transports.add(writer.transport)
        try:
            if self._is_over.is_set():
                return "over"
            writer.write(self._beginning)
            await writer.drain()
            self.begun += 1
            answer = await reader.read()
            return answer[9:12].decode() or "closed"
        finally:
            self._transports.discard(writer.transport)
            writer.transport.abort()  # TLS would wait for the other end
