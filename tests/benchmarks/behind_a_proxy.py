"""The cost of one flooding address to 64 good connections, through a documented proxy.

``python -m tests.benchmarks.behind_a_proxy`` starts each proxy of docs/proxy twice, with the
services behind it, and besieges one of the two from another address; as `slow_clients`.
"""

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from tests.benchmarks.besieger import besieging
from tests.benchmarks.server import Server, running
from tests.benchmarks.slow_clients import Comparison, Contender, at_work
from tests.benchmarks.subject import Subject
from tests.support.databases import SqliteDatabase
from tests.support.proxies import INSTANCES, Proxy, in_front

KINDS: Final = {
    "no body": (1_000, 0),
    "a byte": (1_000, 1),
    "40 kB of 100": (100_000, 40_000),
}
"""The announced length of a body without the key, and the bytes of it that are sent."""

SIEGES: Final = {
    "150 a second": (3_000, 20.0),
    "1,200 at once": (1_200, 1.0),
}
"""The number of connections, and the seconds from one coming of each to its next."""

_HEADINGS: Final = (
    "                                      ratio of callbacks/s"
    "              callbacks/s     of a core      good\n"
    "proxy    siege          they send       before           besieged"
    "       calm besieged   alone  added   refused  how they ended"
)


class Site:
    """A proxy and the services behind it.

    Args:
        proxy: What answers.
        servers: What is behind it.
    """

    def __init__(self, proxy: Proxy, servers: list[Server]) -> None:
        self.port = proxy.port
        self._proxy = proxy
        self._servers = servers

    @property
    def cpu_seconds(self) -> float:
        """Of all."""
        return self._proxy.cpu_seconds + sum(server.cpu_seconds for server in self._servers)

    @property
    def outcomes(self) -> Counter[str]:
        """Of all."""
        return sum((server.outcomes for server in self._servers), Counter())


@contextmanager
def site(kind: str, directory: Path) -> Iterator[Site]:
    """A proxy as it is documented, with as many services as it is for."""
    with ExitStack() as stack:
        servers = []
        for name in map(str, range(INSTANCES[kind])):
            (directory / name).mkdir(parents=True)
            database = SqliteDatabase(directory / name / "sam.db")
            database.add_robots(["d-1"])
            environment = {"SQL_SAM_CONNECTION_STRING": database.connection_string}
            start = running(Subject.SERVICE, environment, directory / name)
            servers.append(stack.enter_context(start))
        proxy = in_front(kind, directory, [server.port for server in servers])
        yield Site(stack.enter_context(proxy), servers)


@contextmanager
def contender(kind: str, directory: Path) -> Iterator[Contender]:
    """A site with its good connections."""
    with site(kind, directory) as there:
        url = f"https://127.0.0.1:{there.port}"
        with at_work(there, url, directory) as contending:
            yield contending


def besiege(kind: str, siege: str, body: str, *, turns: int, seconds: float, ramp: float) -> str:
    """Besiege one of two sites; return a line on it."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calm, besieged = [
            stack.enter_context(contender(kind, root / name)) for name in ("calm", "besieged")
        ]
        Comparison(calm, besieged, seconds).take(2)
        before = Comparison(calm, besieged, seconds).take(max(2, turns // 2))
        during = Comparison(calm, besieged, seconds)
        with besieging(besieged.server.port, SIEGES[siege], KINDS[body]) as ended:
            ready = time.monotonic() + ramp
            while time.monotonic() < ready:
                Comparison(calm, besieged, seconds).take(1)
            during.take(turns)
            # Before the siege ends: a proxy closes what is idle for ten seconds.
            refused = calm.refused() + besieged.refused()
    return (
        f"{kind:9}{siege:15}{body:13}{before.ratio:>19}{during.ratio:>20}{during.figures}"
        f"{refused:9}   {dict(ended)}"
    )


def main(
    turns: Annotated[int, typer.Option(help="How many for each site and siege.", min=2)] = 30,
    seconds: Annotated[float, typer.Option(help="How long each is measured.", max=2)] = 1,
    ramp: Annotated[float, typer.Option(help="Seconds of siege before.")] = 13,
    proxy: Annotated[list[str] | None, typer.Option(help="These only.")] = None,
    siege: Annotated[list[str] | None, typer.Option(help="These only.")] = None,
    body: Annotated[list[str] | None, typer.Option(help="These only.")] = None,
) -> None:
    """Measure what one address takes from 64 good connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    typer.echo(_HEADINGS)
    for kind in proxy or INSTANCES:
        for way in siege or SIEGES:
            for what in body or KINDS:
                typer.echo(besiege(kind, way, what, turns=turns, seconds=seconds, ramp=ramp))


if __name__ == "__main__":
    typer.run(main)
