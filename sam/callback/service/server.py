"""Uvicorn, set up: where it listens, what it leaves to us, and how it ends."""

import socket
from typing import Final

import uvicorn
from fastapi import FastAPI

from sam.callback.logs import get_logger
from sam.callback.settings import Settings

SHUTDOWN_SECONDS: Final = 7
"""For requests in flight; with the database's own bound it stays within 10 s of SIGTERM."""

_log = get_logger(__name__)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in getattr(self, "servers", []):
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                _log.info("listening", host=host, port=port)


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
    _Server(config).run()
