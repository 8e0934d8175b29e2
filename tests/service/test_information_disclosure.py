"""No answer discloses the software, its version, or the place of a failure."""

import base64
import hashlib
import platform
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from sam.callback.service.request_body import BODY_START_BYTES
from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire, request
from tests.support.service import Service

CRASH_FOR_A_STATUS = """
from sam.callback.inbox.inbox import Inbox
record = Inbox.record
async def crash(self, deployment_id, status, body):
    if status == "CRASH":
        raise RuntimeError("boom in a file of the service")
    return await record(self, deployment_id, status, body)
Inbox.record = crash
"""

ANSWERS = {
    "200": (200, request(content=body())),
    "200 of /health": (200, request(b"/health", method=b"GET")),
    "200 of /ready": (200, request(b"/ready", method=b"GET")),
    "200 of /docs": (200, request(b"/docs", method=b"GET")),
    "200 of the document": (200, request(b"/openapi.json", method=b"GET")),
    "400 of the parser": (400, b"nonsense\r\n\r\n"),
    "401": (401, request(headers=b"")),
    "404": (404, request(b"/nowhere")),
    "404 of an asset": (404, request(b"/docs/assets/no", method=b"GET")),
    "405": (405, request(method=b"DELETE")),
    "413": (413, request(content=b" " * (BODY_START_BYTES + 1), length=2**30)),
    "414": (414, request(b"/" + b"x" * 10_000)),
    "422": (422, request(content=b"{")),
    "431": (431, request(headers=b"X: y\r\n" * 200)),
    "500": (500, request(content=body("d-1", "CRASH"))),
}


@pytest.fixture
def crashing(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> Service:
    """The service, with a mistake in it."""
    tmp_path.joinpath("sitecustomize.py").write_text(CRASH_FOR_A_STATUS, encoding="utf-8")
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, PYTHONPATH=str(tmp_path)
    )


def answers(service: Service) -> Iterator[tuple[str, dict[str, str], str]]:
    for name, (status, sent) in ANSWERS.items():
        with Wire(service) as wire:
            wire.send(sent)
            got, headers, content = wire.answer()
            assert got == status, name
            yield name, headers, content.decode()


def test_no_answer_names_software_or_its_version(crashing: Service) -> None:
    names = "uvicorn|fastapi|starlette|httptools|pydantic|python|pyodbc|sqlite|postgres"
    versions = [
        platform.python_version(),
        *(version(name) for name in ("sam-callback", "uvicorn", "fastapi", "starlette")),
    ]
    for name, headers, content in answers(crashing):
        assert not {"server", "x-powered-by", "via"} & headers.keys(), name
        told = f"{headers}{content}"
        assert not re.search(names, told, re.IGNORECASE), name
        assert not any(re.search(rf"\b{re.escape(each)}\b", told) for each in versions), name


def test_no_answer_has_a_trace_of_where_it_failed(crashing: Service) -> None:
    for name, _, content in answers(crashing):
        assert not re.search(r"Traceback|boom|\.py\b|File \"|Error\b", content), name
    assert "boom in a file of the service" in crashing.wait_for_event("crash")["exception"]


def test_no_answer_is_kept_or_taken_for_something_else(crashing: Service) -> None:
    for name, headers, _ in answers(crashing):
        assert headers["x-content-type-options"] == "nosniff", name
        assert headers["cache-control"] == "no-store", name


def test_the_docs_page_lets_only_its_own_script_run(service: Service) -> None:
    page = service.get("/docs")
    policy = dict(
        directive.split(maxsplit=1)
        for directive in page.headers["Content-Security-Policy"].split("; ")
    )
    [inline] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["Referrer-Policy"] == "no-referrer"
