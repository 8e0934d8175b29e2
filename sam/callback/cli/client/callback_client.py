"""The HTTP client: callbacks to a running service, as A360 sends them."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from sam.callback import __version__
from sam.callback.cli.client.answers import Fault, NotTakenError, printable, read_answer
from sam.callback.cli.client.target import Target
from sam.callback.cli.refusal import refuse
from sam.callback.service.api_key import HEADER
from sam.callback.service.schemas import CallbackAnswer

_KEEP_ALIVE_SECONDS: Final = 2
"""Well below the service's own 75 s: no callback may run into the end of its connection."""

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH and _CERT_HAS_EXPIRED.
_OTHER_NAME: Final = frozenset({62, 64})
_EXPIRED: Final = 10


class CallbackClient:
    """Posts callbacks over one connection, each tried once, as A360 does.

    Many at once are many of these: in httpx 0.28 callbacks that share a pool of 64 connections cost
    five times as much, and some wait ten times as long as others.

    The environment's proxies are not used: the service is inside, and its key is nobody else's.

    Args:
        target: Where to, and with which key.
        timeout: Seconds for connecting, and for each wait for a part of the answer.
        context: Which certificates to believe.
    """

    def __init__(self, target: Target, *, timeout: float, context: ssl.SSLContext) -> None:
        self._url = target.url
        self._timeout = timeout
        self._client = httpx.AsyncClient(
            headers={
                "Content-Type": "application/json",
                "User-Agent": f"sam-callback/{__version__}",
                HEADER: target.key.get_secret_value(),
            },
            timeout=timeout,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            verify=context,
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def post(self, body: bytes) -> CallbackAnswer:
        """Post one callback.

        Raises:
            NotTakenError: If it was not taken, or is not known to be.
        """
        try:
            response = await self._client.post(self._url, content=body)
        except httpx.RequestError as error:
            raise self._explain(error) from error
        return read_answer(response)

    def _explain(self, error: httpx.RequestError) -> NotTakenError:
        if cause := _tls_error(error):
            return NotTakenError(
                Fault.TLS,
                f"No safe connection to {self._url}: {_tls_advice(cause)}\nNothing was sent.",
            )
        match error:
            case httpx.ConnectTimeout():
                return NotTakenError(
                    Fault.UNREACHABLE,
                    f"Cannot connect to {self._url} within {self._timeout:g} s.\n"
                    "Is a firewall in between, or the machine down?",
                )
            case httpx.ConnectError():
                return NotTakenError(
                    Fault.UNREACHABLE,
                    f"Cannot connect to {self._url}: {_text(error)}\n"
                    "Is the service running, and is this its address? See --url.",
                )
            case httpx.TimeoutException():
                return NotTakenError(
                    Fault.NO_ANSWER,
                    f"No answer from {self._url} within {self._timeout:g} s.\n"
                    "The callback may have been taken or not; the service's log says.",
                )
            case httpx.RemoteProtocolError() | httpx.DecodingError() if not _hung_up(error):
                return NotTakenError(
                    Fault.NOT_THIS_SERVICE,
                    f"What answers at {self._url} is not this service: it does not speak HTTP "
                    f"({_text(error)}).",
                )
            case _:
                hint = (
                    " If the service has TLS, the address begins with https://."
                    if httpx.URL(self._url).scheme == "http"
                    else ""
                )
                return NotTakenError(
                    Fault.NO_ANSWER,
                    f"The connection to {self._url} ended before there was an answer "
                    f"({_text(error)}).\n"
                    f"The callback may have been taken or not; the service's log says.{hint}",
                )


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return which certificates to believe; end with exit status 2 if `ca_file` cannot be used.

    Args:
        ca_file: PEM certificates to believe instead of the system's: an authority's, or the
            service's own.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        refuse(f"--ca-file {ca_file} cannot be used: {error}.")
    # Lets `ca_file` be the service's own certificate, which need not be an authority's.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    return next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)


def _tls_advice(error: ssl.SSLError) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{(error.reason or 'TLS failed').replace('_', ' ').lower()}.\n"
            "Does the service have TLS there? Without it, the address begins with http://."
        )
    what = printable(error.verify_message).rstrip(".")
    if error.verify_code in _OTHER_NAME:
        return f"{what}.\nGive --url a name that is in the service's certificate."
    if error.verify_code == _EXPIRED:
        return f"{what}.\nThe service needs a new one; A360 will not connect either."
    return (
        f"{what}.\n"
        "If that certificate can be trusted, give --ca-file the authority's certificate or the "
        "service's own. A360 must trust it too."
    )


def _hung_up(error: httpx.RequestError) -> bool:
    return "disconnected" in str(error)


def _text(error: BaseException) -> str:
    # The system's own words, where there are any: httpx has only "All connection attempts failed".
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            # A name that is not found has an error number of another kind, and its own words.
            return os.strerror(cause.errno) if cause.errno > 0 else printable(str(cause.strerror))
    return printable(str(error)) or type(error).__name__
