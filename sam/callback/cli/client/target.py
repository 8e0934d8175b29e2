"""Which service the client commands speak to, and with which key."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from pydantic import SecretStr, TypeAdapter, ValidationError

from sam.callback.cli import embedded
from sam.callback.cli.refusal import refuse
from sam.callback.service import paths
from sam.callback.setting_types import Seconds
from sam.callback.settings import ClientSettings, SettingsError, load_client_settings

LOOPBACK: Final = "127.0.0.1"


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
        show_default=False,
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
        key: What it lets in.
    """

    url: str
    key: SecretStr

    @property
    def is_this_machine(self) -> bool:
        """Whether it is reached over the loopback interface."""
        return httpx.URL(self.url).host in {LOOPBACK, "localhost", "::1"}


def find_target(url: str | None, *, use_embedded: bool) -> Target:
    """Return the service; end with exit status 2 if there is no key, or no sense in the URL.

    The key comes from the settings, never from the command line, which every user of the machine
    may read; where there is none, a person at a terminal is asked.
    """
    try:
        settings = load_client_settings()
        key = settings.callback_api_key
        if key is None and use_embedded:
            key = SecretStr(embedded.KEY)
        if key is None and sys.stdin.isatty():
            given = typer.prompt("The service's CALLBACK_API_KEY", hide_input=True, err=True)
            key = load_client_settings(callback_api_key=given).callback_api_key
    except SettingsError as error:
        refuse(str(error))
    if key is None:
        refuse(
            "CALLBACK_API_KEY is missing: the service's key.\n"
            "Set it in the environment, in a file .env, or as a file in /run/secrets; not on the "
            "command line, where others can read it. For `make run`, say --embedded."
        )
    return Target(_full_url(url) if url else _default_url(settings), key)


def _default_url(settings: ClientSettings) -> str:
    if settings.callback_port == 0:
        refuse("CALLBACK_PORT is 0, which is any port: say which with --url.")
    scheme = "https" if settings.callback_ssl_certfile else "http"
    return f"{scheme}://{LOOPBACK}:{settings.callback_port}{paths.CALLBACK}"


def _full_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        refuse(f"--url {text} cannot be used: {error}.")
    if url.scheme not in {"http", "https"} or not url.host:
        refuse(f"--url {text} cannot be used: it should begin with http:// or https://.")
    return str(url.copy_with(path=paths.CALLBACK) if url.path == "/" else url)
