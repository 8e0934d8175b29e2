"""Dependencies on uvicorn's internals: a release that moves one is noticed, and kept out before.

pyproject.toml has an upper bound for uvicorn, since a user of the wheel has no tests that fail: an
internal that moves would take a limit away in silence. To raise it, run these with the
new release. What each part does is shown by the tests of the limits; these say where to look.
"""

import asyncio
import hashlib
import inspect
import tomllib
from collections.abc import Callable
from importlib.metadata import version

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tests.support.markdown import ROOT


def test_no_release_that_these_have_not_seen_is_installed() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = next(
        requirement
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name == "uvicorn"
    )
    major, minor = map(int, version("uvicorn").split(".")[:2])
    assert required.specifier.contains(f"{major}.{minor}.99")
    assert not required.specifier.contains(f"{major}.{minor + 1}.0")


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        (HttpToolsProtocol.data_received, "010a7ae59a5d3b1a"),
        (HttpToolsProtocol.on_header, "65d62c044f61fdbd"),
        (HttpToolsProtocol.on_body, "dba9c32aeba35b6a"),
        (HttpToolsProtocol.on_response_complete, "64e254f28e389e76"),
        (uvicorn.Server.startup, "2aa1d70a244bfcf2"),
    ],
)
def test_replaced_and_called_parts_are_unchanged(
    method: Callable[..., object], digest: str
) -> None:
    """If it is not: read what changed, take it over where it matters, and note the new digest."""
    source = inspect.getsource(method).encode()
    assert hashlib.sha256(source).hexdigest()[:16] == digest


async def test_a_protocol_keeps_its_state_where_ours_looks_for_it() -> None:
    config = uvicorn.Config(_app, ws="none", lifespan="off")
    protocol = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})
    transport = _Transport()
    protocol.connection_made(transport)
    assert isinstance(protocol.flow, FlowControl)
    assert isinstance(protocol.parser, httptools.HttpRequestParser)
    assert not protocol.flow.write_paused
    assert protocol.server_state.default_headers == []
    assert vars(protocol)["cycle"] is None

    protocol.data_received(b"GET /1 HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")
    first = protocol.cycle
    assert isinstance(first, RequestResponseCycle)
    assert (protocol.url, protocol.headers) == (b"/1", [(b"expect", b"100-continue")])
    assert protocol.expect_100_continue
    assert first.scope is protocol.scope
    assert first.scope["headers"] is protocol.headers
    assert first.waiting_for_100_continue
    assert first.transport is transport
    assert first.body == bytearray()
    assert (first.keep_alive, first.more_body) == (True, False)
    assert (first.response_started, first.response_complete) == (False, False)
    assert isinstance(first.message_event, asyncio.Event)

    protocol.data_received(b"GET /2 HTTP/1.1\r\n\r\n")
    protocol.data_received(b"GET /3 HTTP/1.1\r\n\r\n")
    newest, _ = protocol.pipeline[0]
    assert newest is protocol.cycle
    oldest, _ = protocol.pipeline.pop()
    assert oldest.scope["path"] == "/2"
    assert protocol.flow.read_paused
    for task in protocol.tasks.copy():
        await asyncio.wait([task])


async def test_a_server_that_is_given_no_sockets_listens_on_none() -> None:
    server = uvicorn.Server(uvicorn.Config(_app, lifespan="off", log_config=None))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[])
    assert server.started
    assert server.servers == []
    assert server.lifespan.state == {}


async def _app(_scope: Scope, _receive: Receive, _send: Send) -> None: ...


class _Transport(asyncio.Transport):
    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write(self, data: object) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False
