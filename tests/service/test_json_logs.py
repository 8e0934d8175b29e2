"""Standard output is one JSON object per line, by any writer; standard error stays empty.

That the key and the password never appear, and that each line matches the schema, is checked by
`Service.stop`, for every test.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import pytest

from tests.support import log_lines
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.service import KEY, Service, log_something

COMMON = ["timestamp", "level", "event", "logger", "service", "version", "instance", "pid"]


def test_every_line_begins_with_the_common_fields(service: Service) -> None:
    service.post(body())
    service.post(b"{")
    service.get("/no/such/path")
    assert service.stop() == 0

    assert {line["logger"].split(".")[0] for line in service.lines} == {"sam", "uvicorn"}
    for line in service.lines:
        assert list(line)[: len(COMMON)] == COMMON
        age = datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])
        assert timedelta() <= age < timedelta(minutes=1)
        assert line["timestamp"].endswith("Z")
        assert line["service"] == "sam-callback"
        assert line["version"] == version("sam-callback")
        assert line["pid"] == service.pid


def test_a_callback_is_one_line(service: Service) -> None:
    response = service.post(body("d-1", "RUN_COMPLETED"))
    line = service.wait_for_event("callback")

    assert line["level"] == "info"
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert list(line)[len(COMMON)] == "request_id"
    assert (line["deployment_id"], line["status"]) == ("d-1", "RUN_COMPLETED")
    assert (line["outcome"], line["http_status"]) == ("updated", 200)
    assert line["client"] == "127.0.0.1"
    assert line["batch_size"] == 1
    assert 0 < line["db_ms"] < line["duration_ms"]
    assert [line["event"] for line in service.lines].count("callback") == 1


def test_bot_output_is_never_logged(service: Service) -> None:
    service.post(b'{"deploymentId": "d-1", "status": "DONE", "botOutput": {"iban": "ES7921"}}')
    service.wait_for_event("callback")
    assert not any("ES7921" in text for text in service.output)


@pytest.mark.parametrize("path", ["/health", "/docs"])
def test_probes_are_debug_and_other_requests_info(
    path: str, start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_LOG_LEVEL="DEBUG"
    )
    service.get(path)
    line = service.wait_for_event("request")
    assert line["level"] == ("debug" if path == "/health" else "info")
    assert line["path"] == path


def test_a_request_keeps_its_id_if_that_is_well_formed(service: Service) -> None:
    assert (
        service.post(body(), **{"X-Request-ID": "a360-1.b_C"}).json()["requestId"] == "a360-1.b_C"
    )
    service.wait_for_line(lambda line: line.get("request_id") == "a360-1.b_C")
    for malformed in ("", "x" * 65, 'a"b', "a b", "ä"):
        response = service.post(body(), **{"X-Request-ID": malformed.encode("latin-1")})
        assert response.headers["X-Request-ID"] == response.json()["requestId"] != malformed


@pytest.mark.parametrize("path", ["/callback/", "/callback//", "/Callback"])
def test_a_callback_to_nearly_the_right_path_is_told_as_one_that_is_lost(
    path: str, service: Service
) -> None:
    """A redirect would be an answer that A360 does not follow, and a line that is not looked at."""
    with service.client() as client:
        assert client.post(path, content=body()).status_code == 404
    line = service.wait_for_event("refused")
    assert (line["level"], line["reason"], line["key"]) == ("warning", "unknown_path", "current")


def test_a_path_cannot_forge_a_line_nor_flood_it(service: Service) -> None:
    path = "/%0a%7B%22event%22:%22forged%22%7D" + "x" * 5000
    service.get(path, **{"X-API-KEY": KEY})
    line = service.wait_for_event("refused")
    assert line["reason"] == "unknown_path"
    assert line["path"].startswith('/\n{"event":"forged"}xxx')
    assert len(line["path"]) < 1100


def _line(what: str) -> dict[str, Any]:
    run = log_something(what)
    assert run.stderr == ""
    [text] = run.stdout.splitlines()
    line: dict[str, Any] = json.loads(text)
    assert list(line)[: len(COMMON)] == COMMON
    log_lines.check([line])
    return line


def test_warnings_are_lines() -> None:
    line = _line("warnings.warn('careful')")
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "careful" in line["event"]


def test_other_loggers_are_lines() -> None:
    line = _line("logging.getLogger('library').error('it has %s', 'failed')")
    assert (line["level"], line["logger"], line["event"]) == ("error", "library", "it has failed")


@pytest.mark.parametrize(
    ("crash", "event"),
    [
        ("raise RuntimeError('boom')", "crash"),
        (
            "threading.Thread(target=lambda: exec('raise RuntimeError(\"boom\")')).start()",
            "thread_crash",
        ),
        ("class X:\n  def __del__(self): raise RuntimeError('boom')\nX()", "unraisable"),
        # As the interpreter ends.
        ("class X:\n  def __del__(self): raise RuntimeError('boom')\nkept = X()", "unraisable"),
    ],
)
def test_a_crash_is_one_line_with_its_traceback(crash: str, event: str) -> None:
    line = _line(crash)
    assert (line["level"], line["event"]) == ("critical", event)
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: boom")


def test_a_traceback_is_bounded_and_keeps_its_end() -> None:
    line = _line("raise RuntimeError('x' * 100_000 + 'the end')")
    assert len(line["exception"]) < 17_000
    assert line["exception"].endswith("the end")


def test_a_value_that_json_cannot_hold_does_not_lose_the_line() -> None:
    line = _line(r"log.info('odd', text='a\ud800b', number=2**70, thing=object, fine=1)")
    assert line["text"] == r"a\ud800b"
    assert line["number"] == str(2**70)
    assert line["fine"] == 1


def test_a_level_that_is_off_is_not_written() -> None:
    assert log_something("log.debug('no'); logging.getLogger('x').debug('no')").stdout == ""


def test_a_closed_standard_output_does_not_stop_the_service() -> None:
    run = log_something("sys.stdout.close(); log.info('lost'); print('alive', file=sys.__stderr__)")
    assert run.returncode == 0
    assert run.stderr == "alive\n"


def test_an_exceptions_message_cannot_forge_a_console_line() -> None:
    run = log_something("raise RuntimeError('boom\\n12:00:00 [info] forged \\x1b[2K')", "console")
    assert "forged" in run.stdout
    first, *rest = run.stdout.removesuffix("\n").split("\n")
    assert "crash" in first
    assert all(line.startswith("  ") for line in rest)
    assert "\x1b" not in run.stdout


def test_console_lines_are_for_people() -> None:
    run = log_something("log.info('hello', number=1)", "console")
    assert "hello" in run.stdout
    assert "number=1" in run.stdout
    assert "\x1b" not in run.stdout  # not a terminal, so no colour


def test_output_of_a_driver_is_a_line(
    postgres_database: PostgresDatabase, start_service: Callable[..., Service]
) -> None:
    postgres_database.execute(  # libpq prints the warning that each connection then gets
        "UPDATE pg_database SET datcollversion = '0' WHERE datname = ?", postgres_database.name
    )
    service = start_service(SQL_SAM_CONNECTION_STRING=postgres_database.connection_string)

    assert service.post(body("d-1", "DONE")).json()["outcome"] == "updated"
    line = service.wait_for_event("native_output")

    assert line["level"] == "warning"
    assert "collation version" in line["text"]
    assert service.stop() == 0  # with nothing on standard error


def test_a_crash_of_the_interpreter_shows_on_standard_error() -> None:
    script = (
        "import faulthandler\n"
        "from sam.callback import logs\n"
        "from sam.callback.cli.standard_streams import logged_native_output\n"
        "from sam.callback.setting_types import LogFormat, LogLevel\n"
        "logs.configure(LogLevel.INFO, LogFormat.JSON)\n"
        "with logged_native_output():\n"
        "    faulthandler._sigsegv()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode != 0
    assert "Fatal Python error: Segmentation fault" in ended.stderr
