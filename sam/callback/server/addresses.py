"""Listening sockets for CALLBACK_HOST and CALLBACK_PORT."""

import contextlib
import socket
import sys
from typing import Final

BACKLOG: Final = 2048
"""How many connections the system keeps that were not yet accepted."""

IPV6_ALONE: Final = "'::' is IPv6 alone. For IPv4 too: CALLBACK_HOST=0.0.0.0,::"

HOW_TO_NAME_ADDRESSES: Final = (
    "CALLBACK_HOST should be addresses of this machine, or their names, with commas between: no "
    "scheme, and no port, which is CALLBACK_PORT. 0.0.0.0 is all of IPv4."
)


def bind(hosts: str, port: int) -> list[socket.socket]:
    """Return a socket for every address of every host, bound and not yet listening.

    Args:
        hosts: Addresses or names, with commas between.
        port: The port, 0 for any.

    Raises:
        OSError: If one of them cannot be taken.
    """
    with contextlib.ExitStack() as unless_all:
        sockets = []
        for host in hosts.split(","):
            for family, *_, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                bound = socket.socket(family, socket.SOCK_STREAM)
                unless_all.callback(bound.close)
                if sys.platform != "win32":  # there it would take what another listens on
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family is socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind(address)
                sockets.append(bound)
        unless_all.pop_all()
    return sockets


def describe(hosts: str, port: int) -> str:
    """Return the two settings as one sets them."""
    return f"CALLBACK_HOST={hosts}, CALLBACK_PORT={port}"


def is_ipv6_alone(hosts: str) -> bool:
    """Whether all of IPv6 is listened on, and not all of IPv4, as one might expect."""
    return "::" in hosts.split(",") and "0.0.0.0" not in hosts.split(",")  # noqa: S104 - a text
