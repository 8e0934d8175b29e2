"""Load over many connections at once, and an account of each callback."""

import asyncio
import itertools
import json
import random
import sqlite3
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Self

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.service import KEY


@dataclass(slots=True)
class Sent:
    """One callback: when it was sent and answered, on one clock.

    `answered` is infinite, and `outcome` empty, if no 2xx came.
    """

    deployment_id: str
    status: str
    sent: float
    answered: float = float("inf")
    outcome: str = ""
    http_status: int = 0


class Load:
    """Sends conflicting statuses for a few deployments over many connections, until stopped.

    Args:
        url: The service.
        deployments: Which deployments; each status is sent once.
        connections: How many connections.
        pause: Seconds between two callbacks of a connection.
        tls: For a service, or a proxy in front of it, that speaks TLS.

    Attributes:
        all: What was sent.
        broken: Why a connection could not be made, or ended before an answer; each time.
        key: What is sent in X-API-KEY; may be changed on the way.
    """

    _statuses = itertools.count(1)

    def __init__(
        self,
        url: str,
        deployments: list[str],
        *,
        connections: int = 64,
        pause: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.all: list[Sent] = []
        self.broken: list[str] = []
        self.key = KEY
        self._tls = tls
        self._port = int(url.rpartition(":")[2])
        self._deployments = deployments
        self._connections = connections
        self._pause = pause
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join(LIMIT_SECONDS)

    @property
    def answered(self) -> list[Sent]:
        """Those that were answered 2xx."""
        return [sent for sent in self.all if sent.outcome]

    def wait_for(self, number: int) -> None:
        """Wait until so many more were answered 2xx."""
        target = len(self.answered) + number
        eventually(lambda: len(self.answered) >= target)

    @property
    def refused(self) -> list[Sent]:
        """Those that were answered, but not 2xx."""
        return [sent for sent in self.all if sent.http_status and not sent.outcome]

    async def _run(self) -> None:
        await asyncio.gather(*(self._keep_sending() for _ in range(self._connections)))

    async def _keep_sending(self) -> None:
        while not self._is_stopping.is_set():
            try:
                await self._send_over_one_connection()
            except (OSError, EOFError) as error:
                self.broken.append(repr(error))
            await asyncio.sleep(0.01)  # the service has ended, or begins

    async def _send_over_one_connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
        try:
            is_open = True
            while is_open and not self._is_stopping.is_set():
                is_open = await self._send(reader, writer)
                await asyncio.sleep(self._pause)
        finally:
            writer.close()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        # By hand: a client library would take more of these two cores than the service.
        deployment_id = random.choice(self._deployments)  # noqa: S311 - not a secret
        status = f"S{next(self._statuses)}"
        content = body(deployment_id, status)
        head = f"POST /callback HTTP/1.1\r\nHost: x\r\nX-API-KEY: {self.key}\r\n"
        sent = Sent(deployment_id, status, time.monotonic())
        self.all.append(sent)
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        async with asyncio.timeout(LIMIT_SECONDS):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
            answer_body = await reader.readexactly(length)
        sent.http_status = int(answer.split(" ")[1])
        if sent.http_status == HTTPStatus.OK:
            sent.outcome = json.loads(answer_body)["outcome"]
            sent.answered = time.monotonic()
        return "connection: close" not in answer


def spooled(path: Path) -> dict[str, tuple[str, str]]:
    """The content of a spool file: the kind and the status of each deployment."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path, timeout=LIMIT_SECONDS)) as connection:
        return {
            deployment_id: (kind, status)
            for deployment_id, kind, status in connection.execute(
                "SELECT coalesce(deployment_id, key), kind, status FROM entries"
                " WHERE key IS NOT NULL"
            )
        }


def losses(
    answered: list[Sent], all_sent: list[Sent], statuses: Mapping[str, str], spool: Path
) -> list[str]:
    """Say for each deployment whose status is not what the answers promised, why.

    The spool's entry counts, where there is one: it will be applied. What counts then must be the
    status of a callback that was sent, and no callback that was answered may have been sent after
    that one's answer.
    """
    entries = spooled(spool)
    by_deployment = defaultdict(list)
    for sent in answered:
        by_deployment[sent.deployment_id].append(sent)
    by_status = {sent.status: sent for sent in all_sent}
    found = []
    for deployment_id, promises in by_deployment.items():
        status = (
            entries[deployment_id][1]
            if deployment_id in entries
            else statuses.get(deployment_id, "(no row)")
        )
        last = max(promises, key=lambda sent: sent.sent)
        winner = by_status.get(status)
        if winner is None:
            found.append(f"{deployment_id} is {status}, but {last.status} was acknowledged")
        elif winner.answered < last.sent:
            found.append(
                f"{deployment_id} is {status}, answered {last.sent - winner.answered:.3f} s before"
                f" {last.status} was sent, which was acknowledged as {last.outcome}"
            )
    return found
