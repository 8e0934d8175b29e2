"""HTTP client of `send` and `simulate`: posts callbacks as A360 does, and explains answers."""

import os
import ssl
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from pydantic import SecretStr, TypeAdapter, ValidationError

from sam.callback import __version__
from sam.callback.cli import embedded
from sam.callback.cli.output import refuse
from sam.callback.logs import printable
from sam.callback.service import CALLBACK_PATH
from sam.callback.service.api_key import HEADER
from sam.callback.service.schemas import CallbackAnswer
from sam.callback.setting_types import Seconds
from sam.callback.settings import ClientSettings

_KEEP_ALIVE_SECONDS: Final = 2
"""Well below the service's own 75 s: no callback may run into the end of its connection."""

_SHOWN_CHARACTERS: Final = 300
"""Of a text that came from a server."""

_SHOWN_MISTAKES: Final = 20


class Fault(Enum):
    """Fault for which a callback was not taken, or is not known to be.

    Attributes:
        exit_status: The exit status of `send`.
        meaning: The fault, for a person.
    """

    REFUSED = 1, "another answer than those below"
    UNREACHABLE = 3, "cannot connect: nothing was sent"
    NO_ANSWER = 4, "sent, but no answer in time: it may have been taken"
    TLS = 5, "no secure connection: nothing was sent"
    WRONG_KEY = 6, "the key is refused (401)"
    INVALID = 7, "the body is not understood (422)"
    TOO_LARGE = 8, "the body is too large (413)"
    UNAVAILABLE = 9, "the service cannot make it durable now (503)"
    NOT_THIS_SERVICE = 10, "what answered is not this service"

    def __init__(self, exit_status: int, meaning: str) -> None:
        self.exit_status = exit_status
        self.meaning = meaning

    @property
    def label(self) -> str:
        """Its name in JSON."""
        return self.name.lower()


_FAULTS: Final[dict[int, Fault]] = {
    401: Fault.WRONG_KEY,
    413: Fault.TOO_LARGE,
    422: Fault.INVALID,
    503: Fault.UNAVAILABLE,
}
_ADVICE: Final = {
    Fault.REFUSED: "Is this the address? Callbacks go to /callback: see --url.",
    Fault.UNREACHABLE: "Is the service running, and is this its address? See --url.",
    Fault.NO_ANSWER: "The service's log says. Where it has TLS, the address begins with https://.",
    Fault.TLS: "--url takes a name of the certificate, --ca-file its authority or the certificate "
    "itself. A360 must trust it too. Without TLS, the address begins with http://.",
    Fault.WRONG_KEY: "CALLBACK_API_KEY here is to be the service's, or its "
    "CALLBACK_API_KEY_PREVIOUS.",
    Fault.INVALID: "The service has kept it for an operator: `sam-callback spool list --kind "
    "invalid`, on its machine.",
    Fault.TOO_LARGE: "The limit is the service's CALLBACK_MAX_BODY_BYTES.",
    Fault.UNAVAILABLE: "A360 would have lost this callback. The service's log and /ready say why.",
    Fault.NOT_THIS_SERVICE: "Is the address right? A proxy answers 502 or 504 while it cannot "
    "reach the service. A redirect is not followed, here or by A360.",
}


class NotTakenError(Exception):
    """The callback was not taken, or is not known to be.

    Args:
        fault: Why.
        url: Where it was posted.
        detail: What happened, in the words of the system or of the server.
        response: The answer, if there was one.
    """

    def __init__(
        self, fault: Fault, url: httpx.URL, detail: str, response: httpx.Response | None = None
    ) -> None:
        super().__init__(f"{url}: {fault.meaning}.\n{detail}\n{_ADVICE[fault]}")
        self.fault = fault
        self.response = response


def duration(text: str) -> float:
    """Return the seconds that a text such as `500 ms`, `30` or `2 min` stands for."""
    try:
        seconds: float = TypeAdapter(Seconds).validate_python(text)
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is no time such as '500 ms', 30 or '2 min'.") from None
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter("it must be more than 0.")
    return seconds


UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the service takes callbacks. Without it: http://127.0.0.1:8000/callback, with "
        "CALLBACK_PORT where that is set, and https where CALLBACK_SSL_CERTFILE is.",
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="PEM certificates to trust instead of the system's: the authority's, or the "
        "service's own.",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=duration,
        metavar="TIME",
        help="How long to wait for an answer, such as '500 ms'; seconds without a unit.",
        show_default="30 s",
    ),
]
EmbeddedOption = Annotated[
    bool,
    typer.Option(
        "--embedded",
        help="For `make run`: use robots of its database, var/sam.db, and its key unless "
        "CALLBACK_API_KEY is set.",
    ),
]


@dataclass(frozen=True, slots=True)
class Target:
    """A service to send callbacks to.

    Attributes:
        url: Where it takes callbacks.
        key: The value of X-API-KEY.
        timeout: Seconds for connecting, and for each wait for a part of the answer.
        tls: The certificates that are trusted.
    """

    url: httpx.URL
    key: SecretStr
    timeout: float
    tls: ssl.SSLContext

    def client(self) -> httpx.AsyncClient:
        """Return a client of one connection.

        In httpx 0.28 callbacks that share a pool of 64 connections cost five times as much. The
        environment's proxies are not used: they would be given the key.
        """
        return httpx.AsyncClient(
            headers={
                "Content-Type": "application/json",
                "User-Agent": f"sam-callback/{__version__}",
                HEADER: self.key.get_secret_value(),
            },
            timeout=self.timeout,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            verify=self.tls,
            trust_env=False,
        )

    async def post(self, client: httpx.AsyncClient, body: bytes) -> CallbackAnswer:
        """Post one callback, once, as A360 does.

        Raises:
            NotTakenError: If it was not taken, or is not known to be.
        """
        try:
            response = await client.post(self.url, content=body)
        except httpx.RequestError as error:
            fault, words = _explain(error)
            if isinstance(error, httpx.TimeoutException):
                words = f"Not within {self.timeout:g} s."
            raise NotTakenError(fault, self.url, words) from error
        return _read(response)


def find_target(
    url: str | None, timeout: float, ca_file: Path | None, *, use_embedded: bool
) -> Target:
    """Return the service; end with exit status 2 where the key is missing or an option is wrong.

    The key comes from the settings, never from the command line, which every user of the machine
    may read; where there is none, a person at a terminal is asked.

    Raises:
        SettingsError: If a setting of a client is wrong.
    """
    settings = ClientSettings.load()
    key = settings.callback_api_key
    if key is None and use_embedded:
        key = SecretStr(embedded.KEY)
    if key is None and sys.stdin.isatty():
        given = typer.prompt("The service's CALLBACK_API_KEY", hide_input=True, err=True)
        key = ClientSettings.load(callback_api_key=given).callback_api_key
    if key is None:
        refuse(
            "CALLBACK_API_KEY is missing: the service's key.\n"
            "Set it in the environment, in a file .env, or as a file in /run/secrets; not on the "
            "command line, where others can read it. For `make run`, say --embedded."
        )
    try:
        tls = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        refuse(f"--ca-file {ca_file} cannot be used: {error}.")
    # Lets `ca_file` be the service's own certificate, which need not be an authority's.
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return Target(_parse(url) if url else _local_url(settings), key, timeout, tls)


def _local_url(settings: ClientSettings) -> httpx.URL:
    if settings.callback_port == 0:
        refuse("CALLBACK_PORT is 0, which is any port: say which with --url.")
    scheme = "https" if settings.callback_ssl_certfile else "http"
    return httpx.URL(f"{scheme}://127.0.0.1:{settings.callback_port}{CALLBACK_PATH}")


def _parse(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        refuse(f"--url {text} cannot be used: {error}.")
    if url.scheme not in {"http", "https"} or not url.host:
        refuse(f"--url {text} cannot be used: it should begin with http:// or https://.")
    return url.copy_with(path=CALLBACK_PATH) if url.path == "/" else url


def _explain(error: httpx.RequestError) -> tuple[Fault, str]:
    """Return the fault, and what is known of it in the words of the system."""
    words = str(error) or type(error).__name__
    fault = Fault.NO_ANSWER
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        fault = Fault.UNREACHABLE
    elif isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in words:
        fault = Fault.NOT_THIS_SERVICE
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
        if isinstance(cause, ssl.SSLError):
            fault = Fault.TLS
            words = getattr(cause, "verify_message", cause.reason or "TLS failed")
        elif isinstance(cause, OSError) and cause.errno is not None:
            # A name that is not found has an error number of another kind, and its own words.
            words = os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return fault, printable(words, _SHOWN_CHARACTERS)


_ANSWER: Final = TypeAdapter(CallbackAnswer)


def _read(response: httpx.Response) -> CallbackAnswer:
    try:
        if response.is_success:
            return _ANSWER.validate_json(response.content)
        detail = response.json()["detail"]  # as every refusal of FastAPI's has
    except (ValueError, TypeError, KeyError):
        fault = Fault.NOT_THIS_SERVICE
        detail = response.headers.get("Location") or response.headers.get("Content-Type", "")
    else:
        fault = _FAULTS.get(response.status_code, Fault.REFUSED)
    lines = []
    for each in detail[:_SHOWN_MISTAKES] if isinstance(detail, list) else [detail]:
        match each:
            case {"loc": ["body", *where], "msg": what}:  # one of FastAPI's mistakes
                text = f"{'.'.join(map(str, where)) or 'the whole body'}: {what}"
            case _:
                text = str(each)
        lines.append(printable(f"{response.status_code}: {text}", _SHOWN_CHARACTERS))
    raise NotTakenError(fault, response.url, "\n".join(lines), response)
