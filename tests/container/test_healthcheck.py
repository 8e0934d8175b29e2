""".docker/healthcheck.py, the image's HEALTHCHECK, finds the service however it listens."""

import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Final

import pytest

from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.service import Service, clean_environment

SCRIPT: Final = Path(__file__).parents[2] / ".docker/healthcheck.py"


def ask(**environment: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert run.stderr == ""
    return run.returncode, run.stdout


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    files = {
        "CALLBACK_SSL_CERTFILE": str(tmp_path / "certificate.pem"),
        "CALLBACK_SSL_KEYFILE": str(tmp_path / "key.pem"),
    }
    command = shlex.split("openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=elsewhere")
    command += ["-out", files["CALLBACK_SSL_CERTFILE"], "-keyout", files["CALLBACK_SSL_KEYFILE"]]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "::1, 127.0.0.1"])  # noqa: S104 - for a test's life
def test_by_plain_http(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, host: str
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_HOST=host
    )
    status, said = ask(CALLBACK_HOST=host, CALLBACK_PORT=str(service.port))
    assert (status, said) == (0, "/health: 200\n")


def test_by_tls_with_any_certificate(
    start_service: Callable[..., Service],
    sqlite_database: SqliteDatabase,
    certificate: dict[str, str],
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, **certificate
    )
    assert ask(CALLBACK_PORT=str(service.port), **certificate)[0] == 0
    assert ask(CALLBACK_PORT=str(service.port))[0] == 1  # it does take the TLS way


def test_no_service_is_unhealthy(service: Service) -> None:
    status, said = ask(CALLBACK_HOST="127.0.0.1", CALLBACK_PORT=str(service.port))
    assert status == 0, said
    service.kill()
    status, said = ask(CALLBACK_HOST="127.0.0.1", CALLBACK_PORT=str(service.port))
    assert status == 1
    assert f"127.0.0.1:{service.port}" in said


def test_another_answer_is_unhealthy() -> None:
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        status, said = ask(CALLBACK_PORT=str(other.server_port))
        thread.join()
    assert (status, said) == (1, "/health: 404\n")
