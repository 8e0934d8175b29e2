"""Two instances behind a real HAProxy, configured as in the docs."""

import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import trustme

from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import PostgresDatabase, free_port
from tests.support.service import Service

DOCS: Final = Path(__file__).parents[2] / "docs"
CERTIFICATE: Final = "/etc/ssl/callback.example.com/haproxy.pem"


class Fleet:
    """Two instances on one database, and the proxy in front.

    Args:
        directory: For the files of all three.
        start: Starts an instance: the fixture `start_service`.
        database: The database of both.
        key: The variables that hold the keys.
        retries: Whether HAProxy may send a callback again, as it is configured to.
    """

    def __init__(
        self,
        directory: Path,
        start: Callable[..., Service],
        database: PostgresDatabase,
        key: Mapping[str, str],
        *,
        retries: bool,
    ) -> None:
        self._directory = directory
        self._start = start
        self._database = database
        self._ports = [free_port(), free_port()]
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ended: list[Service] = []
        self.instances = [self._start_instance(number, key) for number in (0, 1)]

        authority = trustme.CA()
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            directory / "haproxy.pem"
        )
        self._proxy = self._start_proxy(retries=retries)
        eventually(self._is_listening)

    def replace(self, number: int, key: Mapping[str, str]) -> None:
        """End an instance, start its successor, and wait until that gets callbacks."""
        old = self.instances[number]
        assert old.stop() == 0
        self.ended.append(old)
        new = self.instances[number] = self._start_instance(number, key)
        new.wait_for_event("callback")

    def close(self) -> None:
        """End all three; the instances without their drain, as nobody sends any more."""
        self._proxy.send_signal(signal.SIGTERM)
        self._proxy.wait(LIMIT_SECONDS)
        for instance in self.instances:
            instance.send_signal(signal.SIGTERM)
        for instance in self.instances:
            assert instance.stop() == 0  # a second signal

    def _is_listening(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", verify=self.tls).status_code == 200
        except httpx.TransportError:
            return False

    def _start_instance(self, number: int, key: Mapping[str, str]) -> Service:
        return self._start(
            **{
                **_documented_variables(),
                **key,
                "SQL_SAM_CONNECTION_STRING": self._database.connection_string,
                "CALLBACK_SPOOL_PATH": str(self._directory / f"spool-{number}.db"),
                "CALLBACK_FORWARDED_ALLOW_IPS": "127.0.0.1",
                "CALLBACK_PORT": str(self._ports[number]),
            }
        )

    def _start_proxy(self, *, retries: bool) -> "subprocess.Popen[bytes]":
        text = (DOCS / "proxy/haproxy.cfg").read_text(encoding="utf-8")
        for documented, here in {
            "bind :443 ": f"bind 127.0.0.1:{self.port} ",
            CERTIFICATE: str(self._directory / "haproxy.pem"),
            "10.0.0.11:8000": f"127.0.0.1:{self._ports[0]}",
            "10.0.0.12:8000": f"127.0.0.1:{self._ports[1]}",
        }.items():
            assert text.count(documented) == 1, f"docs/proxy/haproxy.cfg has no {documented}"
            text = text.replace(documented, here)
        if not retries:
            text, found = re.subn(r"^ *retry-on .*\n", "", text, flags=re.MULTILINE)
            assert found == 1
        configuration = self._directory / "haproxy.cfg"
        configuration.write_text(text)
        program = shutil.which(
            "haproxy", path="/usr/sbin:/usr/local/bin:/opt/homebrew/bin:/usr/bin"
        )
        assert program, "These tests need HAProxy: `make setup`."
        command = [program, "-db", "-dW", "-f", str(configuration)]
        subprocess.run([*command, "-c"], check=True, stdout=subprocess.DEVNULL)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _documented_variables() -> dict[str, str]:
    page = (DOCS / "how-to/rolling-update.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return dict(re.findall(r"^(\w+)=(\S+)", block, re.MULTILINE))


@contextmanager
def fleet(
    directory: Path,
    start: Callable[..., Service],
    database: PostgresDatabase,
    key: Mapping[str, str],
    *,
    retries: bool = True,
) -> Iterator[Fleet]:
    """Two instances behind a proxy, and the proxy's end."""
    behind = Fleet(directory, start, database, key, retries=retries)
    try:
        yield behind
    finally:
        behind.close()
