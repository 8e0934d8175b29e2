"""docs/how-to/point-a360-at-it.md: its steps for the launcher and the proxies work."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support import markdown
from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.proxies import INSTANCES, Proxy, in_front
from tests.support.service import KEY, Service, clean_environment

pytestmark = [pytest.mark.posix, pytest.mark.server]

PAGE: Final = markdown.ROOT.joinpath("docs/how-to/point-a360-at-it.md").read_text(encoding="utf-8")
BLOCKS: Final = dict(markdown.blocks(PAGE))
BEFORE: Final = {
    "haproxy": "    http-request deny ",
    "nginx": "        location = /callback {",
}
"""The lines of the documented configurations that the page's lines are to stand before."""

PUBLIC_URL: Final = "https://callback.example.com"

StartProxy = Callable[[Service], Proxy]


@pytest.fixture(params=INSTANCES)
def start_proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartProxy]:
    """Starts a proxy as it is documented, with the page's lines, in front of a service."""
    kind = request.param
    with ExitStack() as started:

        def start(service: Service) -> Proxy:
            lines = BLOCKS[kind].replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
            changes = {BEFORE[kind]: lines + BEFORE[kind]}
            instances = [service.port] * INSTANCES[kind]
            return started.enter_context(in_front(kind, tmp_path / kind, instances, changes))

        yield start


def call(proxy: Proxy, path: str, headers: dict[str, str]) -> httpx.Response:
    with proxy.client() as client:
        return client.post(path, content=body("d-1", "RUN_FAILED"), headers=headers)


def test_a_callback_by_the_deploy_requests_callback_info_is_written(
    service: Service, start_proxy: StartProxy, sqlite_database: SqliteDatabase
) -> None:
    info = json.loads(BLOCKS["json"])["callbackInfo"]
    assert info["headers"].pop("X-API-KEY") == "<the value of CALLBACK_API_KEY>"
    path = info["url"].removeprefix(PUBLIC_URL)
    answer = call(start_proxy(service), path, {**info["headers"], "X-API-KEY": KEY})
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
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_API_KEY=key,
        CALLBACK_FORWARDED_ALLOW_IPS="127.0.0.1",
    )
    proxy = start_proxy(service)
    sent = {"X-Authorization": key, "Authorization": "Bearer a.b", "X-Forwarded-For": "203.0.113.9"}
    answer = call(proxy, "/api/callback", sent)
    assert answer.json()["outcome"] == "updated"
    assert sqlite_database.statuses() == {"d-1": "RUN_FAILED"}
    assert service.wait_for_event("callback")["client"] == "127.0.0.1"
    for headers in ({}, {"X-Authorization": f"{key}x"}, {"X-Authorization": ""}):
        assert call(proxy, "/api/callback", headers).status_code == 401


def test_the_commands_that_verify_the_set_up(
    service: Service, start_proxy: StartProxy, tmp_path: Path
) -> None:
    proxy = start_proxy(service)
    trusted = map(ssl.DER_cert_to_PEM_cert, proxy.tls.get_ca_certs(binary_form=True))
    (tmp_path / "authority.pem").write_text("".join(trusted))
    said = subprocess.run(
        ["sh", "-ec", BLOCKS["sh"].replace(PUBLIC_URL, proxy.url)],  # noqa: S607 - as a reader's
        cwd=tmp_path,
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
