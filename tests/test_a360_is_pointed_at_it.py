"""docs/how-to/point-a360-at-it.md: what it says to the launcher and the proxies, done."""

import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import trustme

from tests.support import markdown
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase, free_port
from tests.support.service import KEY, Service, clean_environment

pytestmark = [pytest.mark.posix, pytest.mark.server]

PAGE: Final = markdown.ROOT.joinpath("docs/how-to/point-a360-at-it.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(markdown.blocks(PAGE))
PROXIES: Final = markdown.ROOT / "docs/proxy"
CERTIFICATES: Final = "/etc/ssl/callback.example.com"
PUBLIC_URL: Final = "https://callback.example.com"
WHERE_DEBIAN_AND_BREW_HAVE_THEM: Final = (
    f"{markdown.ROOT}/.tools/bin:/usr/sbin:/usr/local/bin:/opt/homebrew/bin:/usr/bin"
)
AUTHORITY: Final = trustme.CA()

StartProxy = Callable[[Service], str]


def replaced(text: str, changes: dict[str, str]) -> str:
    for documented, here in changes.items():
        assert documented in text
        text = text.replace(documented, here)
    return text


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    issued = AUTHORITY.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "haproxy.pem")
    issued.private_key_pem.write_to_path(tmp_path / "privkey.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "fullchain.pem", append=True)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")
    return tmp_path


def haproxy(directory: Path, port: int, service: Service) -> list[str]:
    deny = "    http-request deny "
    configuration = replaced(
        (PROXIES / "haproxy.cfg").read_text(encoding="utf-8"),
        {
            "bind :443 ": f"bind 127.0.0.1:{port} ",
            CERTIFICATES: str(directory),
            "10.0.0.11:8000": f"127.0.0.1:{service.port}",
            "10.0.0.12:8000": f"127.0.0.1:{service.port}",
            deny: BLOCKS["haproxy"] + deny,
        },
    )
    (directory / "haproxy.cfg").write_text(configuration, encoding="utf-8")
    return ["haproxy", "-db", "-dW", "-f", str(directory / "haproxy.cfg")]


def nginx(directory: Path, port: int, service: Service) -> list[str]:
    beside = "    location = /callback {"
    site = replaced(
        replaced(
            (PROXIES / "nginx.conf").read_text(encoding="utf-8"),
            {beside: BLOCKS["nginx"] + beside, "listen 443 ": f"listen 127.0.0.1:{port} "},
        ),
        {CERTIFICATES: str(directory), "127.0.0.1:8000": f"127.0.0.1:{service.port}"},
    )
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"pid {directory}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{site}\n}}",
        encoding="utf-8",
    )
    return ["nginx", "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]


@pytest.fixture(params=[haproxy, nginx], ids=["haproxy", "nginx"])
def start_proxy(request: pytest.FixtureRequest, certificates: Path) -> Iterator[StartProxy]:
    """Starts a proxy as it is documented, in front of a service; returns its URL."""
    started: list[subprocess.Popen[bytes]] = []

    def start(service: Service) -> str:
        port = free_port()
        name, *arguments = request.param(certificates, port, service)
        program = shutil.which(name, path=WHERE_DEBIAN_AND_BREW_HAVE_THEM)
        assert program, f"This test needs {name}: `make setup`."
        started.append(
            subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        url = f"https://127.0.0.1:{port}"
        eventually(lambda: is_served(url))
        return url

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def is_served(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", verify=trusting()).status_code == 200
    except httpx.TransportError:
        return False


def call(url: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(
        url, content=body("d-1", "RUN_FAILED"), headers=headers, verify=trusting(), timeout=60
    )


def test_a_callback_by_the_deploy_requests_callback_info_is_written(
    service: Service, start_proxy: StartProxy, sqlite_database: SqliteDatabase
) -> None:
    info = json.loads(BLOCKS["json"])["callbackInfo"]
    key = replaced(info["headers"]["X-API-KEY"], {"<the value of CALLBACK_API_KEY>": KEY})
    url = replaced(info["url"], {PUBLIC_URL: start_proxy(service)})
    answer = call(url, {**info["headers"], "X-API-KEY": key})
    assert answer.json()["outcome"] == "updated"
    assert sqlite_database.statuses() == {"d-1": "RUN_FAILED"}


@pytest.mark.parametrize("key", ["with,a,comma", 'with;"quotes"=%{+Q}'])
def test_a_proxy_translates_another_header_and_another_path(
    key: str,
    start_service: Callable[..., Service],
    start_proxy: StartProxy,
    sqlite_database: SqliteDatabase,
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_API_KEY=key
    )
    url = f"{start_proxy(service)}/api/callback"
    answer = call(url, {"X-Authorization": key, "Authorization": "Bearer of.a.gateway"})
    assert answer.json()["outcome"] == "updated"
    assert sqlite_database.statuses() == {"d-1": "RUN_FAILED"}
    for headers in ({}, {"X-Authorization": f"{key}x"}, {"X-Authorization": ""}):
        assert call(url, headers).status_code == 401


def test_what_is_typed_to_see_that_it_works(
    service: Service, start_proxy: StartProxy, certificates: Path
) -> None:
    commands = BLOCKS["sh"].replace(PUBLIC_URL, start_proxy(service))
    said = subprocess.run(
        ["sh", "-ec", commands],  # noqa: S607 - as a reader's
        cwd=certificates,
        env=clean_environment(
            CALLBACK_API_KEY=KEY, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert said.startswith("unmatched")
    assert '"outcome":"unmatched"' in said
