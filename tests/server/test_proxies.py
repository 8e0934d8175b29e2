"""docs/proxy: HAProxy and nginx as they are documented, in front of the service."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase
from tests.support.proxies import INSTANCES, Proxy, in_front
from tests.support.raw import KEY_HEADER, request
from tests.support.service import KEY, Service
from tests.support.siege import Siege

pytestmark = pytest.mark.posix

GOOD: Final = 64
CONTROL_ROOM: Final = "198.51.100.10"
SHARE: Final = {
    "haproxy": {"sc0_conn_cur gt 500": "sc0_conn_cur gt 5"},
    "nginx": {"limit_conn addresses 500": "limit_conn addresses 5"},
}
WITH_THE_KEY: Final = {"X-API-KEY": KEY}


@dataclass
class Front:
    """A proxy, and what is behind it."""

    proxy: Proxy
    instances: list[Service]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of all instances for an event."""
        written = [line for each in self.instances for line in each.lines]
        return [line for line in written if line["event"] == event]

    def post(self, address: str = "127.0.0.1", **headers: str) -> httpx.Response:
        """One callback over a connection of its own."""
        with self.proxy.client(address) as client:
            return client.post("/callback", content=body(), headers=headers)


PutInFront = Callable[..., Front]


@pytest.fixture
def put_in_front(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> Iterator[PutInFront]:
    """Puts a proxy in front of as many instances as it is documented for."""
    with ExitStack() as stack:

        def put(kind: str, changes: Mapping[str, str] | None = None, **variables: str) -> Front:
            settings = {
                "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
                "CALLBACK_FORWARDED_ALLOW_IPS": "127.0.0.1",
                **variables,
            }
            instances = [
                start_service(CALLBACK_SPOOL_PATH=str(tmp_path / f"{each}.db"), **settings)
                for each in range(INSTANCES[kind])
            ]
            proxy = in_front(kind, tmp_path, [each.port for each in instances], changes)
            return Front(stack.enter_context(proxy), instances)

        yield put


@pytest.fixture(params=INSTANCES)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def test_callbacks_come_in_and_nothing_else(kind: str, put_in_front: PutInFront) -> None:
    front = put_in_front(kind)
    assert front.post().status_code == 401
    assert front.post(**WITH_THE_KEY).json()["outcome"] == "updated"
    with front.proxy.client() as client:
        for path in ("/ready", "/docs", "/openapi.json", "/metrics", "/callback/", "/"):
            assert client.get(path, headers=WITH_THE_KEY).status_code == 404


def test_the_log_has_the_senders_address_and_not_a_claimed_one(
    kind: str, put_in_front: PutInFront
) -> None:
    front = put_in_front(kind, CALLBACK_LOG_LEVEL="DEBUG")
    claims = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    front.post("127.0.0.2", **WITH_THE_KEY, **claims)
    with front.proxy.client("127.0.0.2") as client:
        client.get("/health", headers={"X-Request-ID": "of-the-probe", **claims})

    def clients(**of: str) -> set[str]:
        written = [line for each in front.instances for line in each.lines]
        return {line["client"] for line in written if of.items() <= line.items()}

    eventually(lambda: bool(clients(event="callback")), 60)
    assert clients(event="callback") == {"127.0.0.2"}
    eventually(lambda: "127.0.0.2" in clients(path="/health"), 60)
    assert "203.0.113.9" not in clients(path="/health")


def test_a_body_that_is_too_large_is_the_services_to_refuse(
    kind: str, put_in_front: PutInFront
) -> None:
    front = put_in_front(kind, CALLBACK_MAX_BODY_BYTES="1 MiB")
    content = body().ljust(20 * 2**20)
    with front.proxy.client() as client:
        answer = client.post("/callback", content=content, headers=WITH_THE_KEY)
    assert answer.status_code == 413
    assert answer.json() == {"detail": "The body is larger than 1048576 bytes."}
    eventually(lambda: bool(front.lines("refused")), 60)


PATIENT: Final = {
    "haproxy": {
        "timeout client 15s": "timeout client 1h",
        "timeout http-request 10s": "timeout http-request 1h",
    },
    "nginx": {"client_body_timeout 15s": "client_body_timeout 1h"},
}
"""So that no clock decides."""


def test_behind_haproxy_a_body_that_does_not_come_gets_no_place_at_an_instance(
    put_in_front: PutInFront,
) -> None:
    front = put_in_front("haproxy", PATIENT["haproxy"])
    with front.proxy.connect("127.0.0.2") as slow:
        slow.sendall(request(length=1000, headers=b""))
        assert front.post(**WITH_THE_KEY).status_code == 200
    assert [each.stop() for each in front.instances] == [0, 0]  # their logs are complete
    assert front.lines("refused") == []


def test_behind_nginx_an_unwanted_body_is_answered_before_it_comes(
    put_in_front: PutInFront,
) -> None:
    front = put_in_front("nginx", PATIENT["nginx"])
    with front.proxy.connect("127.0.0.2") as slow:
        slow.sendall(request(length=1000, headers=b""))
        assert slow.recv(12) == b"HTTP/1.1 401"


# CPython does not close a socket that was reset before its TLS handshake (SSLSocket._create).
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
def test_one_address_gets_its_share_and_the_control_room_all_it_wants(
    kind: str, put_in_front: PutInFront
) -> None:
    changes = {**PATIENT[kind], **SHARE[kind], CONTROL_ROOM: "127.0.0.3"}
    front = put_in_front(kind, changes, CALLBACK_BODY_TIMEOUT="10 min")
    content = body()
    whole = request(content=content, headers=KEY_HEADER + b"Connection: close\r\n")

    def is_turned_away(address: str) -> bool:
        try:
            return front.post(address, **WITH_THE_KEY).status_code == 429
        except httpx.TransportError:
            return True

    with ExitStack() as stack:
        held = []
        for address in ["127.0.0.2"] * 5 + ["127.0.0.3"] * 12:
            held.append(stack.enter_context(front.proxy.connect(address)))
            held[-1].sendall(whole[: -len(content)])
        eventually(lambda: is_turned_away("127.0.0.2"), 60)
        assert not is_turned_away("127.0.0.1")
        assert not is_turned_away("127.0.0.3")
        for each in held:
            each.sendall(content)
            assert each.recv(12) == b"HTTP/1.1 200"


@pytest.mark.faults
@pytest.mark.parametrize(
    "beginning",
    [
        request(length=1000, headers=b""),
        request(length=1000, headers=b"", content=b"x"),
        request(length=100_000, headers=b"", content=b"x" * 40_000),
        request()[:-4],
    ],
    ids=["no body", "a byte of it", "much of it", "no end of the headers"],
)
def test_one_address_that_gives_nothing_takes_no_callback_from_another(
    beginning: bytes, kind: str, put_in_front: PutInFront
) -> None:
    front = put_in_front(kind)
    with Siege(front.proxy.port, front.proxy.tls, beginning) as siege:
        eventually(lambda: siege.begun + siege.ended.total() >= 1_200, 60)
        with ThreadPoolExecutor(8) as good:
            answers = list(good.map(lambda _: front.post(**WITH_THE_KEY).status_code, range(GOOD)))
    assert Counter(answers) == {200: GOOD}, siege.ended


@pytest.mark.faults
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_behind_haproxy_the_end_of_an_instance_costs_no_callback(
    end: str, put_in_front: PutInFront
) -> None:
    front = put_in_front("haproxy", CALLBACK_DRAIN_SECONDS="8")
    one, two = front.instances
    answers: Counter[int] = Counter()
    with ThreadPoolExecutor(1) as ending:
        ended = ending.submit(one.stop if end == "stop" else one.kill)
        while not ended.done() or answers.total() < 200:
            # Its status alone: who is killed may have begun an answer, after the COMMIT.
            with (
                front.proxy.client() as client,
                client.stream("POST", "/callback", content=body(), headers=WITH_THE_KEY) as answer,
            ):
                answers[answer.status_code] += 1
    assert not ended.result()
    assert set(answers) == {200}
    assert "callback" in {line["event"] for line in two.lines}
