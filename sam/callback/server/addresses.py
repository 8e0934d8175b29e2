"""Listening sockets for CALLBACK_HOST and CALLBACK_PORT."""

import contextlib
import socket
import sys
from typing import Any, Final

BACKLOG: Final = 2048
"""How many connections the system keeps that were not yet accepted."""

IPV6_ALONE: Final = "'::' is IPv6 alone. For IPv4 too: CALLBACK_HOST=0.0.0.0,::"

HOW_TO_NAME_ADDRESSES: Final = (
    "CALLBACK_HOST should be addresses of this machine, or their names, with commas between: no "
    "scheme, and no port, which is CALLBACK_PORT. 0.0.0.0 is all of IPv4."
)


def bind(hosts: str, port: int) -> list[socket.socket]:
    """Listen on every address of every host.

    Args:
        hosts: Addresses or names, with commas between.
        port: The port, 0 for any.

    Raises:
        OSError: If one of them cannot be listened on.
    """
    with contextlib.ExitStack() as unless_all:
        sockets = []
        for family, address in _resolve(hosts, port):
            listening = socket.create_server(address, family=family, backlog=BACKLOG)
            unless_all.callback(listening.close)
            listening.setblocking(False)  # noqa: FBT003 - the standard library's
            sockets.append(listening)
        unless_all.pop_all()
    return sockets


def try_to_bind(hosts: str, port: int) -> None:
    """Take every address as `bind` does, without listening: a service can begin to meanwhile.

    Raises:
        OSError: If one of them cannot be taken.
    """
    for family, address in _resolve(hosts, port):
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            if sys.platform != "win32":  # there it would take what another listens on
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind(address)


def describe(hosts: str, port: int) -> str:
    """Return the two settings as one sets them."""
    return f"CALLBACK_HOST={hosts}, CALLBACK_PORT={port}"


def is_ipv6_alone(hosts: str) -> bool:
    """Whether all of IPv6 is listened on, and not all of IPv4, as one might expect."""
    return "::" in hosts.split(",") and "0.0.0.0" not in hosts.split(",")  # noqa: S104 - a text


def _resolve(hosts: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    return [
        (family, address)
        for host in hosts.split(",")
        for family, *_, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    ]
