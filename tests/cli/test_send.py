"""`send`: one callback; each result has a message and an exit status of its own."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import respx
import trustme
from typer.testing import CliRunner, Result

from sam.callback.cli import app
from sam.callback.cli.client import Fault
from sam.callback.model import Outcome
from sam.callback.settings import Settings
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service, run_to_its_end

URL = "http://127.0.0.1:8000/callback"


@pytest.fixture(autouse=True)
def _only_the_key_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("CALLBACK_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)


def send(*arguments: str, stdin: bytes = b"") -> Result:
    result = CliRunner().invoke(app, ["send", *arguments], input=stdin)
    assert KEY not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def taken(outcome: str) -> httpx.Response:
    return httpx.Response(
        200, json={"status": "ok", "outcome": outcome, "deploymentId": "d-1", "requestId": "r-1"}
    )


# --- What is sent -----------------------------------------------------------------------------


def test_it_is_sent_as_a360_sends_it(respx_mock: respx.MockRouter) -> None:
    route = respx_mock.post(URL).mock(return_value=taken("updated"))

    assert send("d-1", "RUN_FAILED", "--bot-output", '{"o": "ñ"}').exit_code == 0

    request = route.calls.last.request
    assert request.headers["X-API-KEY"] == KEY
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.content) == {
        "deploymentId": "d-1",
        "status": "RUN_FAILED",
        "botOutput": {"o": "ñ"},
    }


def test_a_body_is_sent_to_the_byte(respx_mock: respx.MockRouter, tmp_path: Path) -> None:
    route = respx_mock.post(URL).mock(return_value=taken("updated"))
    raw = b'\xff {"not": JSON'
    (tmp_path / "body").write_bytes(raw)

    assert send("--body", "body").exit_code == 0
    assert route.calls.last.request.content == raw
    assert send("--body", "-", stdin=raw).exit_code == 0
    assert route.calls.last.request.content == raw


@pytest.mark.parametrize(
    ("variables", "given", "expected"),
    [
        ({}, None, URL),
        ({"CALLBACK_PORT": "81"}, None, "http://127.0.0.1:81/callback"),
        ({"CALLBACK_SSL_CERTFILE": "c.pem"}, None, "https://127.0.0.1:8000/callback"),
        ({}, "https://sam.example:8443", "https://sam.example:8443/callback"),
        ({"CALLBACK_PORT": "81"}, "http://sam.example/rpa/cb", "http://sam.example/rpa/cb"),
    ],
)
def test_target_url(
    variables: dict[str, str],
    given: str | None,
    expected: str,
    respx_mock: respx.MockRouter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    route = respx_mock.post(expected).mock(return_value=taken("updated"))
    assert send("d-1", *(["--url", given] if given else [])).exit_code == 0
    assert route.called


def test_a_proxy_in_the_environment_does_not_get_the_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert send("d-1", "--url", service.url).exit_code == 0


# --- The answer -------------------------------------------------------------------------------


def test_a_real_service_takes_it(service: Service, sqlite_database: SqliteDatabase) -> None:
    result = send("d-1", "RUN_FAILED", "--url", service.url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("updated: it is committed in SAM's table.")
    assert sqlite_database.statuses() == {"d-1": "RUN_FAILED"}

    early = send("d-2", "--url", service.url)
    assert early.exit_code == 0
    assert early.stdout.startswith("unmatched: no row has this deployment yet")


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_is_explained(outcome: str, respx_mock: respx.MockRouter) -> None:
    respx_mock.post(URL).mock(return_value=taken(outcome))
    result = send("d-1")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{outcome}: ")
    assert "r-1" in result.stdout


def test_programs_get_one_json_object_whatever_happens(respx_mock: respx.MockRouter) -> None:
    respx_mock.post(URL).mock(return_value=taken("queued"))
    answer = json.loads(send("d-1", "--json").stdout)
    assert answer.pop("durationMs") >= 0
    assert answer == {
        "status": "ok",
        "outcome": "queued",
        "deploymentId": "d-1",
        "requestId": "r-1",
    }

    respx_mock.post(URL).mock(
        return_value=httpx.Response(503, json={"detail": "no"}, headers={"Retry-After": "5"})
    )
    result = send("d-1", "--json")
    assert (result.exit_code, result.stderr) == (9, "")
    answer = json.loads(result.stdout)
    assert "cannot make it durable now" in answer.pop("message")
    assert answer == {
        "status": "error",
        "error": "unavailable",
        "httpStatus": 503,
        "retryAfter": "5",
    }


@pytest.mark.parametrize(
    ("response", "fault", "words"),
    [
        (httpx.Response(401, json={"detail": "x"}), Fault.WRONG_KEY, ["CALLBACK_API_KEY_PREVIOUS"]),
        (
            httpx.Response(
                422, json={"detail": [{"loc": ["body", "status"], "msg": "Field required"}]}
            ),
            Fault.INVALID,
            ["422: status: Field required", "--kind invalid"],
        ),
        (httpx.Response(422, json={"detail": "odd"}), Fault.INVALID, ["422: odd"]),
        (
            httpx.Response(413, json={"detail": "larger than 1024 bytes"}),
            Fault.TOO_LARGE,
            ["larger than 1024 bytes", "CALLBACK_MAX_BODY_BYTES"],
        ),
        (
            httpx.Response(503, json={"detail": "Neither."}, headers={"Retry-After": "7"}),
            Fault.UNAVAILABLE,
            ["Neither.", "/ready"],
        ),
        (httpx.Response(404, json={"detail": "Not Found"}), Fault.REFUSED, ["/callback", "--url"]),
        (httpx.Response(408, json={"detail": "slow"}), Fault.REFUSED, ["408", "slow"]),
        (httpx.Response(200, html="<h1>Hi</h1>"), Fault.NOT_THIS_SERVICE, ["200: text/html"]),
        (httpx.Response(200, json={"status": "ok"}), Fault.NOT_THIS_SERVICE, ["not this service"]),
        (httpx.Response(401, html="Log in"), Fault.NOT_THIS_SERVICE, ["401: text/html"]),
        (httpx.Response(502, html="Bad"), Fault.NOT_THIS_SERVICE, ["502", "A proxy answers 502"]),
        (
            httpx.Response(308, headers={"Location": "https://x.example/new"}),
            Fault.NOT_THIS_SERVICE,
            ["308: https://x.example/new", "A redirect is not followed"],
        ),
        (httpx.Response(500, json={"detail": "\x1b]0;x\x07" + "y" * 999}), Fault.REFUSED, ["..."]),
    ],
)
def test_each_refusal_is_explained(
    response: httpx.Response, fault: Fault, words: list[str], respx_mock: respx.MockRouter
) -> None:
    respx_mock.post(URL).mock(return_value=response)
    result = send("d-1")
    assert (result.exit_code, result.stdout) == (fault.exit_status, "")
    for each in words:
        assert each in result.stderr
    assert "\x1b" not in result.stderr  # a server's text moves no cursor
    assert len(result.stderr) < 1000


def test_a_real_service_refuses_for_the_same_reasons(
    start_service: Callable[..., Service],
    sqlite_database: SqliteDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_MAX_BODY_BYTES="1024"
    )
    invalid = send("--body", "-", "--url", service.url, stdin=b"{}")
    assert invalid.exit_code == Fault.INVALID.exit_status
    assert "422: deploymentId: Field required\n422: status: Field required" in invalid.stderr
    large = send("--body", "-", "--url", service.url, stdin=b"x" * 1025)
    assert large.exit_code == Fault.TOO_LARGE.exit_status
    assert send("d-1", "--url", f"{service.url}/other").exit_code == Fault.REFUSED.exit_status
    monkeypatch.setenv("CALLBACK_API_KEY", "another-key")
    assert send("d-1", "--url", service.url).exit_code == Fault.WRONG_KEY.exit_status


# --- No answer --------------------------------------------------------------------------------


@contextmanager
def listening(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Serve one connection by hand."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with closing(connection):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(LIMIT_SECONDS)


def test_a_stopped_service(service: Service) -> None:
    service.stop()
    result = send("d-1", "--url", service.url)
    assert result.exit_code == Fault.UNREACHABLE.exit_status
    assert f"{service.url}/callback: cannot connect" in result.stderr
    assert "Connection refused" in result.stderr


def test_a_name_that_does_not_exist() -> None:
    result = send("d-1", "--url", "http://no-such-host.invalid")
    assert result.exit_code == Fault.UNREACHABLE.exit_status
    assert "http://no-such-host.invalid/callback: cannot connect" in result.stderr


def test_connecting_takes_too_long(respx_mock: respx.MockRouter) -> None:
    respx_mock.post(URL).mock(side_effect=httpx.ConnectTimeout)
    result = send("d-1", "--timeout", "500 ms")
    assert result.exit_code == Fault.UNREACHABLE.exit_status
    assert "Not within 0.5 s" in result.stderr


def test_silence_is_not_taken_for_a_refusal() -> None:
    def read_to_the_end(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with listening(read_to_the_end) as url:
        result = send("d-1", "--url", url, "--timeout", "1 s")
    assert result.exit_code == Fault.NO_ANSWER.exit_status
    assert "Not within 1 s" in result.stderr
    assert "may have been taken" in result.stderr


def test_a_connection_that_is_cut() -> None:
    with listening(lambda connection: connection.recv(4096)) as url:
        result = send("d-1", "--url", url)
    assert result.exit_code == Fault.NO_ANSWER.exit_status
    assert "may have been taken" in result.stderr


def test_a_port_that_speaks_something_else() -> None:
    def greet(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    with listening(greet) as url:
        result = send("d-1", "--url", url)
    assert result.exit_code == Fault.NOT_THIS_SERVICE.exit_status


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def start_tls_service(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> Callable[[trustme.LeafCert], str]:
    def start(certificate: trustme.LeafCert) -> str:
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        for part in certificate.cert_chain_pems:
            part.write_to_path(tmp_path / "cert.pem", append=True)
        service = start_service(
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
            CALLBACK_SSL_CERTFILE=str(tmp_path / "cert.pem"),
            CALLBACK_SSL_KEYFILE=str(tmp_path / "key.pem"),
        )
        return f"https://127.0.0.1:{service.port}"

    return start


def test_a_certificate_is_trusted_only_if_its_authority_is(
    start_tls_service: Callable[[trustme.LeafCert], str], tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    url = start_tls_service(authority.issue_cert("127.0.0.1"))

    assert send("d-1", "--url", url, "--ca-file", "ca.pem").exit_code == 0
    itself = send("d-1", "--url", url, "--ca-file", "cert.pem")
    assert itself.exit_code == 0, "the service's own certificate is enough"
    for untrusted in ((), ("--ca-file", "other.pem")):
        result = send("d-1", "--url", url, *untrusted)
        assert result.exit_code == Fault.TLS.exit_status
        assert "unable to get local issuer certificate" in result.stderr
        assert "--ca-file" in result.stderr

    plain = send("d-1", "--url", url.replace("https", "http"))
    assert plain.exit_code == Fault.NO_ANSWER.exit_status
    assert "the address begins with https://" in plain.stderr


def test_a_certificate_for_another_name(
    start_tls_service: Callable[[trustme.LeafCert], str], tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    url = start_tls_service(authority.issue_cert("sam.example"))
    result = send("d-1", "--url", url, "--ca-file", "ca.pem")
    assert result.exit_code == Fault.TLS.exit_status
    assert "certificate is not valid for" in result.stderr
    assert "--url takes a name of the certificate" in result.stderr


def test_a_certificate_that_has_expired(
    start_tls_service: Callable[[trustme.LeafCert], str], tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    url = start_tls_service(authority.issue_cert("127.0.0.1", not_after=yesterday))
    result = send("d-1", "--url", url, "--ca-file", "ca.pem")
    assert result.exit_code == Fault.TLS.exit_status
    assert "certificate has expired" in result.stderr


def test_https_where_there_is_none(service: Service) -> None:
    result = send("d-1", "--url", service.url.replace("http", "https"))
    assert result.exit_code == Fault.TLS.exit_status
    assert "the address begins with http://" in result.stderr


# --- Configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Which deployment"),
        (["d-1", "--body", "x"], "--body is the whole callback"),
        (["--body", "no-such-file"], "no-such-file cannot be read"),
        (["d-1", "--bot-output", "{"], "--bot-output is not JSON"),
        (["d-1", "--url", "localhost:8000"], "should begin with http://"),
        (["d-1", "--url", "http://[::"], "cannot be used"),
        (["d-1", "--ca-file", "no-such-file"], "no-such-file cannot be used"),
        (["d-1", "--timeout", "0"], "more than 0"),
        (["d-1", "--timeout", "soon"], "is no time"),
        (["--embedded"], "There is no var/sam.db here"),
    ],
)
def test_an_invalid_callback_is_refused_before_anything_is_sent(
    arguments: list[str], words: str
) -> None:
    result = send(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CALLBACK_API_KEY": ""}, "CALLBACK_API_KEY is missing"),
        ({"CALLBACK_API_KEY": "hush hush"}, "Nothing was done: 1 setting is missing or wrong"),
        ({"CALLBACK_PORT": "http"}, "CALLBACK_PORT is wrong"),
        ({"CALLBACK_PORT": "0"}, "say which with --url"),
    ],
)
def test_bad_configuration_is_exit_status_2(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = send("d-1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert "hush" not in result.stderr


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    assert send("d-1", "--ca-file", "ca.pem").exit_code == 2


def test_the_help_names_every_exit_status() -> None:
    text = send("--help").stdout
    assert [f" {each.exit_status}  {each.meaning}" in text for each in Fault] == [True] * len(Fault)
    statuses = [each.exit_status for each in Fault]
    assert len(set(statuses)) == len(statuses)
    assert not {0, 2, 130} & set(statuses)


def test_a_client_machine_needs_the_key_alone(service: Service, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"CALLBACK_API_KEY={KEY}\n")
    run = run_to_its_end(tmp_path, {}, "send", "d-1", "--url", service.url)
    assert (run.returncode, run.stderr) == (0, "")
