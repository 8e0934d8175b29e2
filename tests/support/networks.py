"""A network namespace with one link to this machine, which can be cut. Linux, root and `ip`."""

import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

ADDRESSES: Final = 4
"""How many addresses this machine has on the link."""


def can_make_networks() -> bool:
    """Whether this system lets the tests make a network namespace."""
    command = ["unshare", "--net", "ip", "link"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Network:
    """A namespace; processes that are started within `inside` have no other network.

    Attributes:
        addresses: Of this machine, on the link.
        address: The namespace's own.
    """

    def __init__(self) -> None:
        number = secrets.randbelow(256)
        self._name = f"sam-test-{os.getpid()}"
        self._link = f"sam{os.getpid()}"
        # RFC 2544 sets these apart for tests.
        *self.addresses, self.address = (f"198.18.{number}.{n}" for n in range(1, ADDRESSES + 2))

    def __enter__(self) -> Self:
        _run("netns", "add", self._name)
        peer = ["peer", "name", "eth0", "netns", self._name]
        _run("link", "add", self._link, "type", "veth", *peer)
        for address in self.addresses:
            _run("address", "add", f"{address}/24", "dev", self._link)
        _run("link", "set", self._link, "up")
        _run("-n", self._name, "address", "add", f"{self.address}/24", "dev", "eth0")
        _run("-n", self._name, "link", "set", "lo", "up")
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        _run("link", "delete", self._link)
        _run("netns", "delete", self._name)

    def cut(self) -> None:
        """Let nothing through: no end learns of it."""
        _run("-n", self._name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Let all through."""
        _run("-n", self._name, "link", "set", "eth0", "up")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread starts or connects to meanwhile is in the namespace."""
        with Path("/proc/thread-self/ns/net").open() as own:
            _enter(Path("/run/netns") / self._name)
            try:
                yield
            finally:
                _enter(Path(f"/proc/self/fd/{own.fileno()}"))


def _run(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607 - whichever is on PATH


def _enter(namespace: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is Python 3.12's
    with namespace.open() as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
