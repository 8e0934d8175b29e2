"""Uvicorn, set up: where it listens, what it leaves to us, and how it ends."""

import asyncio
import gc
import socket
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from sam.callback.inbox.inbox import Inbox
from sam.callback.logs import get_logger
from sam.callback.settings import Settings

SHUTDOWN_SECONDS: Final = 5
"""For requests in flight; what is closed after them has its own bounds: in all under 10 s."""

_log = get_logger(__name__)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, inbox: Inbox, drain_seconds: float) -> None:
        super().__init__(config)
        self._inbox = inbox
        self._drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None  # until it listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        # What is here now stays. A full collection would look at all of it again, and the event
        # loop would stop for it: docs/decisions/0008-the-hot-path.md has the figures.
        gc.collect()
        gc.freeze()
        for server in getattr(self, "servers", []):
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                _log.info("listening", host=host, port=port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say `draining` first, so that a load balancer sends callbacks elsewhere; then end.

        A second signal ends the wait.
        """
        if self._inbox.is_draining or not self._drain_seconds or self._loop is None:
            super().handle_exit(sig, frame)
        else:
            end = super().handle_exit
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._drain_seconds, end, sig, frame
            )
        self._inbox.is_draining = True


def run(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered first.

    Raises:
        SystemExit: If the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        host=settings.callback_host,
        port=settings.callback_port,
        # Its lines are formatted by ours; each request has one already.
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.callback_forwarded_allow_ips,
        ssl_certfile=settings.callback_ssl_certfile,
        ssl_keyfile=settings.callback_ssl_keyfile,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    _Server(config, app.state.inbox, settings.callback_drain_seconds).run()
