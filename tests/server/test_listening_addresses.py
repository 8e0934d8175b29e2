"""CALLBACK_HOST: an unusable address is named, by `check` and at the start."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import SqliteDatabase
from tests.support.service import Service, run_to_its_end

ELSEWHERE = "192.0.2.1"
"""Of no machine (RFC 5737)."""

UNKNOWN = "no-such-host.invalid"
"""Of no machine either (RFC 2606)."""

StartWith = Callable[..., Service]


@pytest.fixture
def variables(sqlite_database: SqliteDatabase) -> dict[str, str]:
    return {
        "CALLBACK_API_KEY": "Zk3-qT9vXw_82LmNr5yB",
        "CALLBACK_PORT": "0",
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }


def check(directory: Path, variables: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Its exit status, and what it says of the address."""
    checked = run_to_its_end(directory, variables, "check", "--json")
    [found] = [
        each for each in json.loads(checked.stdout)["checks"] if each["subject"] == "address"
    ]
    return checked.returncode, found


@pytest.mark.parametrize("command", [(), ("check",)], ids=["serve", "check"])
@pytest.mark.parametrize(
    "value",
    ["http://0.0.0.0", "0.0.0.0:8000", "[::1]", "localhost:80", "0.0.0.0,", "a b", "::1,::x"],
)
def test_an_invalid_address_or_name_is_refused(
    value: str, command: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    ended = run_to_its_end(tmp_path, {**variables, "CALLBACK_HOST": value}, *command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "CALLBACK_HOST is wrong" in ended.stderr
    assert repr(value.rpartition(",")[2]) in ended.stderr


@pytest.mark.parametrize("value", [ELSEWHERE, UNKNOWN, f"127.0.0.1,{ELSEWHERE}"])
def test_check_tries_to_listen(value: str, variables: dict[str, str], tmp_path: Path) -> None:
    status, found = check(tmp_path, {**variables, "CALLBACK_HOST": value})
    assert (status, found["level"]) == (1, "wrong")
    assert f"CALLBACK_HOST={value}, CALLBACK_PORT=0 cannot be listened on: " in found["detail"]
    assert "no port" in found["action"]


@pytest.mark.parametrize("value", [ELSEWHERE, UNKNOWN])
def test_the_service_names_it_too_and_ends_with_status_3(
    value: str, variables: dict[str, str], tmp_path: Path
) -> None:
    ended = run_to_its_end(tmp_path, {**variables, "CALLBACK_HOST": value})
    assert (ended.returncode, ended.stderr) == (3, "")
    [line] = [
        line
        for line in map(json.loads, ended.stdout.splitlines())
        if line["event"] == "cannot_listen"
    ]
    assert line["error"].startswith(f"CALLBACK_HOST={value}, CALLBACK_PORT=0: ")
    assert "no port" in line["action"]


def test_check_beside_the_service_does_not_blame_it(
    service: Service, variables: dict[str, str], tmp_path: Path
) -> None:
    taken = {"CALLBACK_HOST": "127.0.0.1", "CALLBACK_PORT": str(service.port)}
    status, found = check(tmp_path, {**variables, **taken})
    assert (status, found["level"]) == (0, "not_checked")
    assert "the service if it runs" in found["detail"]


@pytest.mark.parametrize("value", ["127.0.0.1", "localhost", "127.0.0.1, ::1", "0.0.0.0,::"])
def test_usable_addresses_are_good(value: str, variables: dict[str, str], tmp_path: Path) -> None:
    status, found = check(tmp_path, {**variables, "CALLBACK_HOST": value})
    assert (status, found["level"], found["action"]) == (0, "ok", None)


def can_connect(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        return client.connect_ex((address, port)) == 0


def test_two_colons_are_ipv6_alone_and_that_is_said(
    start_service: StartWith, variables: dict[str, str], tmp_path: Path
) -> None:
    variables["CALLBACK_HOST"] = "::"
    service = start_service(**variables)
    assert can_connect("::1", service.port)
    assert not can_connect("127.0.0.1", service.port)
    line = service.wait_for_event("listening_on_ipv6_alone")
    assert "CALLBACK_HOST=0.0.0.0,::" in line["action"]
    status, found = check(tmp_path, variables)
    assert (status, found["level"], found["action"]) == (0, "ok", line["action"])


def test_several_addresses_are_listened_on(
    start_service: StartWith, variables: dict[str, str]
) -> None:
    service = start_service(**{**variables, "CALLBACK_HOST": "127.0.0.1, ::1"})
    service.wait_for_line(lambda line: line["event"] == "listening" and line["host"] == "::1")
    hosts = {line["host"]: line["port"] for line in service.lines if line["event"] == "listening"}
    assert hosts.keys() == {"127.0.0.1", "::1"}
    for host, port in hosts.items():
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        assert httpx.get(f"{url}/health").status_code == 200
    assert not [line for line in service.lines if line["event"] == "listening_on_ipv6_alone"]
