"""Uvicorn server with its own listener, and draining before its end."""

import asyncio
import functools
import gc
import socket
import sys
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask
from sam.callback.server import addresses
from sam.callback.server.connections import Connections
from sam.callback.server.listener import Listener
from sam.callback.server.protocol import HttpProtocol
from sam.callback.server.tls import tls_context
from sam.callback.settings import Settings

SECURITY_HEADERS: Final = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]
"""Of every answer; they cost a callback half a microsecond."""

SHUTDOWN_SECONDS: Final = 5
"""For requests in flight; what is closed after them has its own bounds: in all under 10 s."""

YOUNG_OBJECTS: Final = 10_000
"""So many new containers bring about a collection: Python's own 700 are a few requests' worth, and
what is in flight would be looked at again and again."""

_log = get_logger(__name__)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._throttle = app.state.throttle
        self._supervisor = app.state.supervisor
        self._is_draining = False
        self._loop: asyncio.AbstractEventLoop | None = None  # until it listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        # Without sockets: uvicorn begins the lifespan, and leaves accepting connections to us.
        await super().startup(sockets or [])
        hosts, port = self._settings.callback_host, self._settings.callback_port
        try:
            bound = addresses.bind(hosts, port)
            for each in bound:
                each.listen(addresses.BACKLOG)
                each.setblocking(False)  # noqa: FBT003 - the standard library's
        except OSError as error:
            _log.error(
                "cannot_listen",
                error=f"{addresses.describe(hosts, port)}: {error}",
                action=addresses.HOW_TO_NAME_ADDRESSES,
            )
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        self._listen(bound)
        # What is here now stays. A full collection would look at all of it again, and the event
        # loop would stop for it: docs/decisions/0008-the-hot-path.md has the figures.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        for listening in bound:
            host, port = listening.getsockname()[:2]
            _log.info("listening", host=host, port=port)
        if addresses.is_ipv6_alone(hosts):
            _log.info("listening_on_ipv6_alone", action=addresses.IPV6_ALONE)

    def _listen(self, bound: list[socket.socket]) -> None:
        connections = Connections(
            self._settings, self._app.state.metrics, self._throttle, self._supervisor
        )
        make_protocol = functools.partial(
            HttpProtocol,
            connections=connections,
            settings=self._settings,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        listener = Listener(
            connections, make_protocol, self.config.ssl, self._throttle, self._supervisor
        )
        listener.start(bound)
        self.servers.append(listener)  # type: ignore[arg-type]  # it is closed like one
        self._deadlines = asyncio.create_task(
            self._supervisor.run(BackgroundTask.DEADLINES, connections.sweep)
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._deadlines.cancel()
        self._throttle.sum_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say `draining` first, so that a load balancer sends callbacks elsewhere; then end.

        A second signal ends the wait.
        """
        end = super().handle_exit
        if self._is_draining or self._loop is None:
            end(sig, frame)
            return
        self._is_draining = self._app.state.inbox.is_draining = True
        self._loop.call_soon_threadsafe(self._say_close)
        if seconds := self._settings.callback_drain_seconds:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, seconds, self._end_drain, sig, frame
            )
        else:
            end(sig, frame)

    def _end_drain(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:  # a second signal came first; uvicorn forces the end with one more
            super().handle_exit(sig, frame)

    def _say_close(self) -> None:
        """Have every answer from now on end its connection.

        One that is idle at the end is cut, and with it a request that was just sent. Uvicorn makes
        the headers that all answers have anew each second, from the first of these lists; the
        second is what it made last.
        """
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append((b"connection", b"close"))


def run(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C; requests in flight are answered first.

    Args:
        app: Its state has the parts that `create_app` says.
        settings: The limits, and where to listen.

    Raises:
        SystemExit: If the address cannot be listened on.
    """
    tls = tls_context(settings)
    config = uvicorn.Config(
        app,
        # Its lines are formatted by ours; each request has one already.
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        headers=SECURITY_HEADERS,
        # Without a trusted proxy, nothing need look for one.
        proxy_headers=bool(settings.callback_forwarded_allow_ips),
        forwarded_allow_ips=settings.callback_forwarded_allow_ips,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    _Server(config, app, settings).run()
