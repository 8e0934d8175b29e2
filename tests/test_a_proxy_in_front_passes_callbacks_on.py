"""docs/proxy: HAProxy and nginx, as the documents configure them, in front of the service."""

import contextlib
import json
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.containers import ROOT, build, docker, remove
from tests.support.service import KEY

pytestmark = pytest.mark.container

ROBOT: Final = "f6d30428-15d1-41e9-a952-0742eaaa5a31"
HOST: Final = "callback.example.com"
CERTIFICATES: Final = f"/etc/ssl/{HOST}"
NGINX: Final = """
pid /tmp/nginx.pid;
error_log stderr;
events {}
http { access_log off; include /etc/nginx/site.conf; }
"""

Start = Callable[..., str]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, with the two proxies in it besides."""
    tag = f"sam-callback-test:{secrets.token_hex(4)}"
    build(tag, "--build-arg=EXTRA_PACKAGES=haproxy nginx-light")
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    chain, key = directory / "fullchain.pem", directory / "privkey.pem"
    command = shlex.split(f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={HOST}")
    subprocess.run([*command, "-out", chain, "-keyout", key], check=True, capture_output=True)
    (directory / "haproxy.pem").write_text(chain.read_text() + key.read_text())
    directory.chmod(0o755)  # the container's user is another
    for file in directory.iterdir():
        file.chmod(0o644)
    return directory


@pytest.fixture
def network() -> Iterator[str]:
    name = f"sam-callback-test-{secrets.token_hex(4)}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name)


@pytest.fixture
def start(image: str, network: str) -> Iterator[Start]:
    started: list[str] = []

    def run(*command: str, options: tuple[str, ...], joins: str = network) -> str:
        started.append(docker("run", "--detach", f"--network={joins}", *options, image, *command))
        return started[-1]

    yield run
    for container in reversed(started):
        remove(container)


def serve(start: Start, name: str, *options: str) -> str:
    variables = {
        "CALLBACK_API_KEY": KEY,
        "CALLBACK_HOST": "0.0.0.0",  # noqa: S104 - of the container
        "CALLBACK_FORWARDED_ALLOW_IPS": "0.0.0.0/0",
        "CALLBACK_DRAIN_SECONDS": "6",
    }
    return start(
        *("python", "-m", "sam.callback", "serve", "--embedded"),
        options=(
            *(f"--env={variable}={value}" for variable, value in variables.items()),
            f"--network-alias={name}",
            *options,
        ),
    )


class Outside:
    """Whoever calls from outside, by TLS."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str) -> int:
        return self._client.get(path).status_code

    def post(self, **headers: str) -> httpx.Response:
        return self._client.post("/callback", content=body(ROBOT), headers=headers)

    def status_of_a_callback(self) -> int:
        """Its status alone: a killed instance may have begun an answer, after the COMMIT."""
        with self._client.stream(
            "POST", "/callback", content=body(ROBOT), headers={"X-API-KEY": KEY}
        ) as answer:
            return answer.status_code

    def serves(self) -> bool:
        try:
            return self.get("/health") == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def outside() -> Iterator[Callable[[str], Outside]]:
    """Calls at an address, such as ``127.0.0.1:443``, once it is served."""
    with contextlib.ExitStack() as stack:

        def at(address: str) -> Outside:
            client = httpx.Client(
                base_url=f"https://{address}",
                verify=False,  # noqa: S501 - the certificate is the test's own
                headers={"Host": HOST},
                timeout=40,
            )
            found = Outside(stack.enter_context(client))
            eventually(found.serves, 60)
            return found

        yield at


def lines(container: str) -> list[dict[str, Any]]:
    written = docker("logs", container).splitlines()
    return [json.loads(line) for line in written if line.startswith("{")]


def clients(container: str) -> set[str]:
    return {line["client"] for line in lines(container) if line["event"] == "callback"}


def assert_only_callbacks_come_in(caller: Outside) -> None:
    assert caller.post().status_code == 401
    answer = caller.post(**{"X-API-KEY": KEY, "X-Forwarded-For": "203.0.113.9"})
    assert answer.json()["outcome"] == "updated"
    assert [caller.get(path) for path in ("/ready", "/docs", "/metrics")] == [404, 404, 404]


@pytest.fixture
def haproxy(
    start: Start, certificates: Path, tmp_path: Path, outside: Callable[[str], Outside]
) -> tuple[Outside, list[str]]:
    instances = [serve(start, name) for name in ("one", "two")]
    eventually(lambda: all("listening" in docker("logs", each) for each in instances), 60)
    configuration = (ROOT / "docs/proxy/haproxy.cfg").read_text()
    for address, name in {"10.0.0.11": "one", "10.0.0.12": "two"}.items():
        assert address in configuration
        configuration = configuration.replace(address, name)
    (tmp_path / "haproxy.cfg").write_text(configuration)
    tmp_path.chmod(0o755)
    proxy = start(
        *("haproxy", "-f", "/etc/haproxy-test/haproxy.cfg"),
        options=(
            "--publish=127.0.0.1::443",
            f"--volume={tmp_path}:/etc/haproxy-test:ro",
            f"--volume={certificates}:{CERTIFICATES}:ro",
        ),
    )
    return outside(docker("port", proxy, "443/tcp")), instances


def test_haproxy_lets_callbacks_in_and_nothing_else(
    haproxy: tuple[Outside, list[str]],
) -> None:
    caller, instances = haproxy
    assert_only_callbacks_come_in(caller)
    seen = set().union(*map(clients, instances))
    assert len(seen) == 1
    assert "203.0.113.9" not in seen


@pytest.mark.parametrize("end", ["stop --time=20", "kill"])
def test_behind_haproxy_the_end_of_an_instance_costs_no_callback(
    end: str, haproxy: tuple[Outside, list[str]]
) -> None:
    caller, [one, two] = haproxy
    assert caller.status_of_a_callback() == 200
    answers: list[int] = []
    with subprocess.Popen(["docker", *end.split(), one], stdout=subprocess.DEVNULL) as ending:  # noqa: S607 - whichever is on PATH
        while ending.poll() is None or len(answers) < 200:
            answers.append(caller.status_of_a_callback())
    assert ending.returncode == 0
    assert set(answers) == {200}
    assert {line["event"] for line in lines(two)} >= {"callback"}


def test_nginx_lets_callbacks_in_and_nothing_else(
    start: Start, certificates: Path, tmp_path: Path, outside: Callable[[str], Outside]
) -> None:
    instance = serve(start, "one", "--publish=127.0.0.1::443")
    site = (ROOT / "docs/proxy/nginx.conf").read_text()
    assert re.findall(r"proxy_pass (\S+);", site) == ["http://127.0.0.1:8000"] * 2
    (tmp_path / "nginx.conf").write_text(NGINX)
    (tmp_path / "site.conf").write_text(site)
    tmp_path.chmod(0o755)
    start(
        *("nginx", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;"),
        options=(
            "--user=0",
            f"--volume={tmp_path}:/etc/nginx:ro",
            f"--volume={certificates}:{CERTIFICATES}:ro",
        ),
        joins=f"container:{instance}",  # the same machine, as it were
    )
    assert_only_callbacks_come_in(outside(docker("port", instance, "443/tcp")))
    assert clients(instance).isdisjoint({"203.0.113.9", "127.0.0.1"})
