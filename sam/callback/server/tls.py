"""TLS transport of a connection, in the memory of one record, with a half-close.

asyncio's own takes up to 512 KiB for each connection (256 received, 256 to be decrypted), says
nothing of a connection before its handshake has ended, and cannot close one way only.
"""

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime
from typing import Any, Final

from sam.callback import certificates
from sam.callback.logs import get_logger
from sam.callback.metrics import CutReason
from sam.callback.server.protocol import HttpProtocol
from sam.callback.settings import Settings

EXPIRES_SOON_DAYS: Final = 21
"""A certificate with less is warned about at the start."""

_RECORD_BYTES: Final = 2**14
# One for all connections: what was received is taken out of it at once.
_received: Final = memoryview(bytearray(_RECORD_BYTES))

_log = get_logger(__name__)


class TlsTransport(asyncio.BufferedProtocol, asyncio.Transport):
    """The protocol of a socket's transport, and the transport of HTTP.

    Args:
        http: Learns of the connection before the handshake, so that its limits hold by then.
        context: The certificate and the versions.
    """

    def __init__(self, http: HttpProtocol, context: ssl.SSLContext) -> None:
        super().__init__()
        self._http = http
        self._http.is_in_handshake = True
        self._context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = context.wrap_bio(
            self._incoming, self._outgoing, server_side=True
        )

    # What the socket's transport calls.

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's
        self._socket: asyncio.Transport = transport
        self._http.connection_made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        http = self._http
        if self._tls is not None and http.is_in_handshake:
            http.cut(CutReason.HANDSHAKE_FAILED, error=str(exc or "The sender hung up."))
        self._tls = None
        del self._http  # each holds the other
        http.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        if self._tls is None:
            return  # dropped, not even decrypted
        self._incoming.write(_received[:nbytes])
        try:
            if self._http.is_in_handshake:
                self._tls.do_handshake()
                self._http.is_in_handshake = False
            self._read()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._flush()  # what is wrong, for the other end
            if self._http.is_in_handshake:
                self._http.cut(CutReason.HANDSHAKE_FAILED, error=str(error))
            self.abort()
        self._flush()

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    # What HTTP calls.

    def write(self, data: Any) -> None:  # noqa: ANN401 - asyncio's
        if self._tls is not None:
            self._tls.write(data)
            self._flush()

    def write_eof(self) -> None:
        """Say that nothing more is written; what still comes is dropped."""
        self._end_tls()
        self._socket.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._end_tls()
        self._socket.close()

    def abort(self) -> None:
        self._tls = None
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's
        return self._context if name == "sslcontext" else self._socket.get_extra_info(name, default)

    def _read(self) -> None:
        while self._tls is not None and (self._incoming.pending or self._tls.pending()):
            data = self._tls.read(_RECORD_BYTES)
            if not data:  # nothing more is sent, in TLS' own words
                if not self._http.eof_received():
                    self.close()
                return
            self._http.data_received(data)

    def _flush(self) -> None:
        if self._outgoing.pending and not self._socket.is_closing():
            self._socket.write(self._outgoing.read())

    def _end_tls(self) -> None:
        if self._tls is not None and not self._http.is_in_handshake:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self._tls = None


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the certificate and the versions, or None to go without TLS; warn if it expires."""
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
