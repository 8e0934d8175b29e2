"""Uvicorn, set up: where it listens, what it leaves to us, and how it ends."""

import asyncio
import gc
import socket
import ssl
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from sam.callback import certificates
from sam.callback.inbox.inbox import Inbox
from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics
from sam.callback.service import addresses, file_descriptors, listener
from sam.callback.service.connections import Connection, Connections
from sam.callback.service.http_protocol import HttpProtocol
from sam.callback.settings import Settings
from sam.callback.tasks import Supervisor

SECURITY_HEADERS: Final = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]
"""Of every answer, whoever gives it; they cost a callback half a microsecond."""

SHUTDOWN_SECONDS: Final = 5
"""For requests in flight; what is closed after them has its own bounds: in all under 10 s."""

EXPIRES_SOON_DAYS: Final = 21
"""A certificate with less is warned about at the start."""

YOUNG_OBJECTS: Final = 10_000
"""So many new containers bring about a collection: Python's own 700 are a few requests' worth, and
what is in flight would be looked at again and again."""

_log = get_logger(__name__)


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        *,
        inbox: Inbox,
        metrics: Metrics,
        throttle: LogThrottle,
        supervisor: Supervisor,
    ) -> None:
        super().__init__(config)
        self._inbox = inbox
        self._settings = settings
        self._metrics = metrics
        self._throttle = throttle
        self._supervisor = supervisor
        self._drain_seconds = settings.callback_drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None  # until it listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        # Without sockets: uvicorn begins the lifespan, and leaves accepting connections to us.
        await super().startup(sockets or [])
        hosts, port = self._settings.callback_host, self._settings.callback_port
        try:
            bound = addresses.bind(hosts, port)
        except OSError as error:
            _log.error(
                "cannot_listen",
                error=f"{addresses.describe(hosts, port)}: {error}",
                action=addresses.HOW_TO_NAME_ADDRESSES,
            )
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        accepting = listener.Listener(
            bound,
            self._connections(),
            self._protocol,
            tls=self.config.ssl,
            throttle=self._throttle,
            supervisor=self._supervisor,
        )
        accepting.start()
        self.servers.append(accepting)  # type: ignore[arg-type]  # it is closed like one
        # What is here now stays. A full collection would look at all of it again, and the event
        # loop would stop for it: docs/decisions/0008-the-hot-path.md has the figures.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        for listening in accepting.sockets:
            host, port = listening.getsockname()[:2]
            _log.info("listening", host=host, port=port)
        if addresses.is_ipv6_alone(hosts):
            _log.info("listening_on_ipv6_alone", action=addresses.IPV6_ALONE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._throttle.sum_up()

    def _connections(self) -> Connections:
        header_timeout = self._settings.callback_header_timeout
        shortest = min(header_timeout, self._settings.callback_body_timeout)
        return Connections(
            maximum=file_descriptors.provide_for(self._settings.callback_max_connections),
            header_timeout=header_timeout,
            grace=header_timeout / 3,
            sweep_seconds=min(1.0, shortest / 10),
            metrics=self._metrics,
            throttle=self._throttle,
            supervisor=self._supervisor,
        )

    def _protocol(self, connection: Connection) -> HttpProtocol:
        return HttpProtocol(
            connection,
            settings=self._settings,
            metrics=self._metrics,
            throttle=self._throttle,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say `draining` first, so that a load balancer sends callbacks elsewhere; then end.

        A second signal ends the wait.
        """
        end = super().handle_exit
        if self._inbox.is_draining or self._loop is None:
            end(sig, frame)
            return
        self._inbox.is_draining = True
        self._loop.call_soon_threadsafe(self._say_close)
        if self._drain_seconds:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._drain_seconds, self._end_drain, sig, frame
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

    Raises:
        SystemExit: If the address cannot be listened on.
    """
    tls = _tls_of(settings)
    config = uvicorn.Config(
        app,
        # Its lines are formatted by ours; each request has one already.
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        headers=SECURITY_HEADERS,
        # Where no proxy is believed, nothing need look for one.
        proxy_headers=bool(settings.callback_forwarded_allow_ips),
        forwarded_allow_ips=settings.callback_forwarded_allow_ips,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    state = app.state
    _Server(
        config,
        settings,
        inbox=state.inbox,
        metrics=state.metrics,
        throttle=state.throttle,
        supervisor=state.supervisor,
    ).run()


def _tls_of(settings: Settings) -> ssl.SSLContext | None:
    certificate, key = settings.callback_ssl_certfile, settings.callback_ssl_keyfile
    if certificate is None or key is None:
        return None
    context = certificates.server_context(certificate, key)
    try:
        expires = certificates.expiry(context, certificate)
    except certificates.CertificateExpiredError as error:
        _log.critical(
            "certificate_invalid",
            path=str(certificate),
            reason=str(error),
            action="No sender will connect. Renew it, and restart the service.",
        )
        return context
    days_left = (expires - datetime.now(UTC)).days
    if days_left < EXPIRES_SOON_DAYS:
        _log.warning(
            "certificate_expires_soon",
            path=str(certificate),
            expires=expires,
            days_left=days_left,
            action="Renew it, and restart the service.",
        )
    return context
