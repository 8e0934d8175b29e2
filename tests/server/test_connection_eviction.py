"""Connection eviction: the oldest unauthenticated one goes at the limit; no callback does."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service

ROOM = 5
EXPECT = b"Expect: 100-continue\r\n"


@pytest.fixture
def start(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> Callable[..., Service]:
    """Starts the service with room for five."""

    def start(**environment: str) -> Service:
        return start_service(
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
            **{"CALLBACK_HEADER_TIMEOUT": "10", **environment},  # of which a third is spared
            CALLBACK_MAX_CONNECTIONS=str(ROOM),
        )

    return start


@pytest.fixture
def wires() -> Iterator[ExitStack]:
    """Closes connections when the test ends."""
    with ExitStack() as stack:
        yield stack


def connect(wires: ExitStack, service: Service, number: int) -> list[Wire]:
    return [wires.enter_context(Wire(service)) for _ in range(number)]


def callback(wire: Wire) -> int:
    wire.send(request(content=body()))
    return wire.status()


def test_the_oldest_unauthenticated_connection_is_evicted(
    start: Callable[..., Service], wires: ExitStack
) -> None:
    service = start()
    [with_key] = connect(wires, service, 1)
    assert callback(with_key) == 200
    unauthenticated = connect(wires, service, ROOM - 1)
    # A probe, a wrong key and a request that has not ended show no key.
    unauthenticated[0].send(request(b"/health", method=b"GET", headers=b""))
    unauthenticated[1].send(request(headers=b"X-API-KEY: wrong\r\n"))
    unauthenticated[2].send(b"POST /callback HTTP/1.1\r\nX-API-KEY")
    assert (unauthenticated[0].status(), unauthenticated[1].status()) == (200, 401)

    [newcomer] = connect(wires, service, 1)
    assert callback(newcomer) == 200

    assert not unauthenticated[0].is_open()
    assert all(wire.is_open() for wire in unauthenticated[1:])
    assert callback(with_key) == 200
    line = service.wait_for_event("connection_cut")
    assert (line["level"], line["reason"]) == ("warning", "too_many_connections")
    assert (line["has_key"], line["connections"]) == (False, ROOM)


def test_if_all_are_authenticated_the_longest_idle_one_is_evicted(
    start: Callable[..., Service], wires: ExitStack
) -> None:
    service = start()
    authenticated = connect(wires, service, ROOM)
    for with_key in (*authenticated, authenticated[0]):  # so the second is idle the longest
        assert callback(with_key) == 200
    [newcomer] = connect(wires, service, 1)
    assert callback(newcomer) == 200
    assert [with_key.is_open() for with_key in authenticated] == [True, False, True, True, True]


def test_a_callback_is_never_evicted_and_the_new_connection_waits(
    start: Callable[..., Service], wires: ExitStack
) -> None:
    service = start(CALLBACK_HEADER_TIMEOUT="3")  # of which each is spared a third
    content = body()
    authenticated = connect(wires, service, ROOM)
    for with_key in authenticated:
        with_key.send(request(content=b"", length=len(content), headers=EXPECT + KEY_HEADER))
        assert with_key.status() == 100  # so it has shown the key

    [newcomer] = connect(wires, service, 1)
    newcomer.send(request(content=content))
    assert newcomer.hears_nothing(1.5)

    authenticated[2].send(content + request(content=content[:5], length=len(content)))
    assert authenticated[2].status() == 200
    assert newcomer.hears_nothing(0.5)  # the next callback has begun on the same connection
    authenticated[2].send(content[5:])
    assert authenticated[2].status() == 200
    assert newcomer.status() == 200
    for with_key in (authenticated[0], authenticated[1], authenticated[3], authenticated[4]):
        with_key.send(content)
        assert with_key.status() == 200


def test_a_new_connection_has_some_time_to_show_its_key(
    start: Callable[..., Service], wires: ExitStack
) -> None:
    service = start(CALLBACK_HEADER_TIMEOUT="30")  # of which a third
    first = connect(wires, service, ROOM)
    flood = connect(wires, service, 50)
    for wire in first:
        assert callback(wire) == 200
    del flood


def test_without_file_descriptors_unauthenticated_connections_are_evicted_too(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, wires: ExitStack
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_HEADER_TIMEOUT="5"
    )
    [with_key] = connect(wires, service, 1)
    assert callback(with_key) == 200
    _, hard = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    is_open = psutil.Process(service.pid).num_fds()
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (is_open + 5, hard))

    unauthenticated = connect(wires, service, 10)
    line = service.wait_for_event("cannot_accept")
    assert line["level"] == "error"
    assert "CALLBACK_MAX_CONNECTIONS" in line["action"]
    assert callback(unauthenticated[-1]) == 200
    assert callback(with_key) == 200
    assert not unauthenticated[0].is_open()


def _provide(soft: int, hard: int, connections: int) -> tuple[list[int], list[str]]:
    """The result of `room_for` in a process with these limits, the limits it sets, and its log."""
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from sam.callback import logs, setting_types, settings
logs.configure(setting_types.LogLevel.INFO, setting_types.LogFormat.JSON)
from sam.callback.server.connections import room_for
room = room_for({connections})
print(room, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    output = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_SECONDS,
    ).stdout.splitlines()
    return [int(number) for number in output[-1].split()], output[:-1]


def test_the_limit_of_open_files_is_raised_at_the_start() -> None:
    assert _provide(256, 2000, 1000) == ([1000, 1100], [])
    assert _provide(1500, 2000, 1000) == ([1000, 1500], [])


def test_a_lower_limit_of_open_files_leaves_less_room_and_a_warning() -> None:
    numbers, [line] = _provide(256, 600, 1000)
    assert numbers == [500, 600]
    warning = json.loads(line)
    assert (warning["level"], warning["event"]) == ("warning", "too_few_file_descriptors")
    assert (warning["open_files"], warning["connections"]) == (600, 500)
    assert "Allow 1100" in warning["action"]
