"""Two instances behind a real HAProxy, configured as in the docs."""

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.support.databases import PostgresDatabase, free_port
from tests.support.proxies import in_front
from tests.support.service import Service

DOCS: Final = Path(__file__).parents[2] / "docs"
_RETRY_ON: Final = "retry-on conn-failure empty-response response-timeout 503"


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
        self.ended: list[Service] = []
        self.instances = [self._start_instance(number, key) for number in (0, 1)]

        self._stack = ExitStack()
        changes = {} if retries else {f"    {_RETRY_ON}\n": ""}
        proxy = self._stack.enter_context(in_front("haproxy", directory, self._ports, changes))
        self.url, self.tls = proxy.url, proxy.tls

    def replace(self, number: int, key: Mapping[str, str]) -> None:
        """End an instance, start its successor, and wait until that gets callbacks."""
        old = self.instances[number]
        assert old.stop() == 0
        self.ended.append(old)
        new = self.instances[number] = self._start_instance(number, key)
        new.wait_for_event("callback")

    def close(self) -> None:
        """End all three; the instances without their drain, as there is no sender any more."""
        self._stack.close()
        for instance in self.instances:
            instance.send_signal(signal.SIGTERM)
        for instance in self.instances:
            assert instance.stop() == 0  # a second signal

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
