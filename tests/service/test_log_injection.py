"""Log injection: no body, header, path or address forges a line or deceives a reader."""

import json
import re
from collections.abc import Callable
from itertools import count
from urllib.parse import quote

import pytest

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire, request
from tests.support.service import Service, log_something

FORGED = '{"event": "forged"}'
# What begins a line, moves a cursor, turns writing round, ends a string in C, or is no text.
FORGERIES = [
    f"\n{FORGED}\n",
    f"\r\n{FORGED}\r\n",
    f'"}}\n{FORGED}\n',
    '", "event": "forged", "x": "',
    "\\",
    "\\n",
    "\x1b[2K\x1b[1Aforged",
    "\x1b]0;forged\x07",
    "\x9b2Kforged",
    "\x85forged",
    "x\u2028forged",
    "x\u2029forged",
    "\u061c\u200e\u200f\u202edegrof\u2066\u2069",
    "\x00forged",
    "\x7f\x08\x08forged",
    "\v\f\x1c\x1d\x1eforged",
    "\udc80forged",
]
DECEPTIVE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture
def service(start_service: Callable[..., Service], sqlite_database: SqliteDatabase) -> Service:
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_LOG_LEVEL="DEBUG",
        CALLBACK_FORWARDED_ALLOW_IPS="127.0.0.1",  # X-Forwarded-For then names the client
    )


def check(service: Service) -> None:
    """Every line, as it was written, is one for whatever reads or shows it."""
    assert service.stop() == 0
    for text in service.output:
        assert text.endswith("\n")
        assert text.splitlines() == [text[:-1]]
        assert not DECEPTIVE.search(text), text
        assert json.loads(text)["event"] != "forged"
    assert {line["pid"] for line in service.lines} == {service.pid}


def test_a_body_cannot(service: Service) -> None:
    bodies = [
        content
        for forgery in FORGERIES
        for content in (
            body("d-1", forgery),
            body(forgery, "DONE"),
            forgery.encode("utf-8", "surrogatepass"),
        )
    ]
    statuses = [service.post(content).status_code for content in bodies]
    assert set(statuses) == {200, 422}
    check(service)
    taken = [line["status"] for line in service.lines if line["event"] == "callback"]
    assert "x\u2028forged" in taken  # as it was sent, once the JSON is read


def test_a_path_or_a_query_cannot(service: Service) -> None:
    for forgery in FORGERIES:
        escaped = quote(forgery.encode("utf-8", "surrogatepass"), safe="").encode()
        for target in (b"/" + escaped, b"/callback?x=" + escaped, b"/" + escaped + b"x" * 7_000):
            with Wire(service) as wire:
                wire.send(request(target))
                assert wire.status() in {404, 422}
    check(service)
    assert max(len(text) for text in service.output) < 3_000


@pytest.mark.parametrize(
    "header", [b"X-Request-ID", b"X-Forwarded-For", b"User-Agent", b"Content-Type"]
)
def test_a_header_cannot(header: bytes, service: Service) -> None:
    for forgery in [*FORGERIES, "x" * 5_000]:
        value = forgery.encode("utf-8", "surrogatepass")
        for headers in (KEY_HEADER, b""):
            with Wire(service) as wire:
                wire.send(request(b"/nowhere", headers=b"%b%b: %b\r\n" % (headers, header, value)))
                assert wire.status() in {400, 401, 404}
    check(service)
    assert max(len(text) for text in service.output) < 3_000
    clients = {line["client"] for line in service.lines if line["event"] == "refused"}
    assert clients <= {"127.0.0.1", None}


def test_a_method_cannot(service: Service) -> None:
    for forgery in FORGERIES:
        with Wire(service) as wire:
            wire.send(request(method=forgery.encode("utf-8", "surrogatepass")))
            assert wire.status() == 400
    check(service)


def test_nor_can_anything_in_the_format_for_people() -> None:
    numbers = count()
    calls = "".join(
        f"log.info('seen {next(numbers)}', path={forgery!r}, several=[{forgery!r}])\n"
        f"logging.getLogger('library').info('seen {next(numbers)} %s', {forgery!r})\n"
        for forgery in FORGERIES
    )
    run = log_something(calls, "console")
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert len(lines) == next(numbers)
    for number, line in enumerate(lines):
        assert f"seen {number}" in line
        assert not DECEPTIVE.search(line), line
