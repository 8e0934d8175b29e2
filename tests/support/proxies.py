"""HAProxy and nginx as processes, configured word for word as in docs/proxy, but for the places."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import psutil
import trustme

from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import free_port

HOST: Final = "callback.example.com"
INSTANCES: Final = {"haproxy": 2, "nginx": 1}
"""The proxies, and how many instances their configurations are for."""

_CHECKOUT: Final = Path(__file__).parents[2]
_DOCUMENTED: Final = _CHECKOUT / "docs/proxy"
_PROGRAMS: Final = f"{_CHECKOUT}/.tools/bin:/usr/sbin:/usr/local/bin:/opt/homebrew/bin:/usr/bin"
_CERTIFICATES: Final = f"/etc/ssl/{HOST}/"


class Proxy:
    """A proxy that answers, on a port of its own.

    Args:
        command: What starts it; it stays in the foreground.
        port: Where it listens.
        tls: A context that trusts its certificate.

    Attributes:
        url: Where it listens, with ``https``.
    """

    def __init__(self, command: Sequence[str], port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self.url = f"https://127.0.0.1:{port}"
        self.tls = tls
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """A client that connects from an address, and has no key."""
        transport = httpx.HTTPTransport(verify=self.tls, local_address=address)
        return httpx.Client(
            base_url=self.url, transport=transport, headers={"Host": HOST}, timeout=LIMIT_SECONDS
        )

    def connect(self, address: str) -> ssl.SSLSocket:
        """A connection from an address, for what a client library would not send."""
        plain = socket.create_connection(("127.0.0.1", self.port), LIMIT_SECONDS, (address, 0))
        return self.tls.wrap_socket(plain, server_hostname=HOST)

    def answers(self) -> bool:
        """Whether an instance answers through it."""
        assert self._process.poll() is None, "the proxy has ended"
        try:
            with self.client() as client:
                return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all its processes until now."""
        process = psutil.Process(self._process.pid)
        times = [each.cpu_times() for each in (process, *process.children())]
        return sum(each.user + each.system for each in times)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(LIMIT_SECONDS)


@contextmanager
def in_front(
    kind: str, directory: Path, instances: Sequence[int], changes: Mapping[str, str] | None = None
) -> Iterator[Proxy]:
    """A proxy in front of as many instances as it is documented for.

    Args:
        kind: One of `INSTANCES`.
        directory: For its files.
        instances: Their ports.
        changes: What else is to stand in the place of what its configuration says.
    """
    assert len(instances) == INSTANCES[kind]
    set_up = {"haproxy": _haproxy, "nginx": _nginx}[kind]
    port = free_port()
    directory.mkdir(exist_ok=True)
    tls = _write_certificate(directory)
    command, check = set_up(directory, port, instances, changes or {})
    checked = subprocess.run([*command, check], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    warnings = [line for line in checked.stderr.splitlines() if "[warn]" in line]
    # Nginx, where it is not root, on `user`.
    assert not [line for line in warnings if "super-user" not in line], warnings
    proxy = Proxy(command, port, tls)
    try:
        eventually(proxy.answers)
        yield proxy
    finally:
        proxy.stop()


def _write_certificate(directory: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    issued = authority.issue_cert(HOST, "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(directory / "haproxy.pem")
    issued.private_key_pem.write_to_path(directory / "privkey.pem")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    (directory / "fullchain.pem").write_bytes(chain)
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


def _haproxy(
    directory: Path, port: int, instances: Sequence[int], changes: Mapping[str, str]
) -> tuple[list[str], str]:
    one, two = instances
    configuration = _configuration(
        "haproxy.cfg",
        directory,
        {
            "bind :443 ": f"bind 127.0.0.1:{port} ",
            "10.0.0.11:8000": f"127.0.0.1:{one}",
            "10.0.0.12:8000": f"127.0.0.1:{two}",
            **changes,
        },
    )
    return [_program("haproxy"), "-db", "-dW", "-f", str(configuration)], "-c"


def _nginx(
    directory: Path, port: int, instances: Sequence[int], changes: Mapping[str, str]
) -> tuple[list[str], str]:
    [instance] = instances
    log, cache = directory / "nginx.log", directory / "cache"
    cache.mkdir()
    temporary = "".join(
        f" {what}_temp_path {cache}/{what};"
        for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = _configuration(
        "nginx.conf",
        directory,
        {
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            "pid /run/nginx.pid;": f"pid {directory}/nginx.pid;",
            "error_log /var/log/nginx/error.log;": f"error_log {log};",
            "server_tokens off;": f"server_tokens off;{temporary}",
            "proxy_pass http://127.0.0.1:8000;": f"proxy_pass http://127.0.0.1:{instance};",
            **changes,
        },
    )
    command = [_program("nginx"), "-e", str(log), "-c", str(configuration), "-g", "daemon off;"]
    return command, "-t"


def _configuration(name: str, directory: Path, places: Mapping[str, str]) -> Path:
    text = (_DOCUMENTED / name).read_text(encoding="utf-8")
    for documented, here in {_CERTIFICATES: f"{directory}/", **places}.items():
        assert documented in text, f"docs/proxy/{name} has no {documented}"
        text = text.replace(documented, here)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def _program(name: str) -> str:
    program = shutil.which(name, path=_PROGRAMS)
    assert program, f"These tests need {name}: `make .setup-test`."
    return program
