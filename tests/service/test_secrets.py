"""The key and the database's password show nowhere: logs, answers, crashes, arguments, children.

What the service prints in any other test is searched as well (tests/support/printed.py); here the
search is shown to find what is there, and each place is tried that a secret could get out by.
"""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.callbacks import body
from tests.support.databases import UNUSED_PASSWORD, PostgresDatabase, SqliteDatabase
from tests.support.printed import SecretPrintedError, search
from tests.support.service import KEY, Service, run_to_its_end

PREVIOUS = "the-key-before-7d1f"

# --- The search finds what is printed -----------------------------------------------------------


def say_at_start(directory: Path, what: str) -> dict[str, str]:
    """The environment in which any Python program first runs a line."""
    directory.joinpath("sitecustomize.py").write_text(
        f"import json, os, sys\n{what}\n", encoding="utf-8"
    )
    return {"PYTHONPATH": str(directory)}


LEAKS = {
    "standard output": "print(json.dumps({'event': 'x', 'k': os.environ[NAME]}), flush=True)",
    "standard error": "print('key:', os.environ[NAME], file=sys.stderr, flush=True)",
}
SECRETS = {
    "CALLBACK_API_KEY": KEY,
    "CALLBACK_API_KEY_PREVIOUS": PREVIOUS,
    "SQL_SAM_PASSWORD": 'with a "quote" ñ',
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_found_as_it_is_and_as_json_has_it(name: str) -> None:
    for text in (SECRETS[name], json.dumps(SECRETS[name])):
        with pytest.raises(SecretPrintedError) as found:
            search(SECRETS, ["fine", f"x{text}x"])
        assert SECRETS[name] not in str(found.value)


@pytest.mark.parametrize(
    ("end", "leak", "name"),
    [
        ("stop", LEAKS["standard output"], "SQL_SAM_PASSWORD"),
        ("kill", LEAKS["standard error"], "CALLBACK_API_KEY"),
    ],
    ids=["stop", "kill"],
)
def test_a_service_that_prints_a_secret_is_found_out(
    end: str, leak: str, name: str, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    service = Service(
        tmp_path,
        {
            **SECRETS,
            "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
            **say_at_start(tmp_path, leak.replace("NAME", repr(name))),
        },
    )
    with pytest.raises(SecretPrintedError) as found:
        getattr(service, end)()
    assert SECRETS[name] not in str(found.value)


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_command_that_prints_a_secret_is_found_out(leak: str, tmp_path: Path) -> None:
    environment = say_at_start(tmp_path, leak.replace("NAME", "'CALLBACK_API_KEY'"))
    with pytest.raises(SecretPrintedError):
        run_to_its_end(tmp_path, {**SECRETS, **environment}, "--version")


@pytest.mark.parametrize(
    ("connection_string", "password"),
    [
        ("DRIVER=x;UID=sam;PWD=hush-hush;", "hush-hush"),
        ("Driver=x;Pwd = {hush;}}hush};Server=y", "hush;}hush"),
        ("PASSWORD=hush-hush", "hush-hush"),
    ],
)
def test_a_password_inside_a_connection_string_is_searched_for(
    connection_string: str, password: str
) -> None:
    environment = {"SQL_SAM_CONNECTION_STRING": connection_string}
    search(environment, ["nothing of it"])
    with pytest.raises(SecretPrintedError):
        search(environment, ["fine", f"could not log in with {password}."])


def test_the_tests_own_secrets_are_searched_for_everywhere() -> None:
    for secret in (KEY, UNUSED_PASSWORD):
        with pytest.raises(SecretPrintedError):
            search({}, [secret])


# --- Where a secret could get out ---------------------------------------------------------------


def test_no_answer_repeats_a_key(service: Service) -> None:
    """Wherever in a request it stands: in its place, or put elsewhere by mistake."""
    misplaced = {
        "headers": {"Authorization": f"Bearer {KEY}", "X-Request-ID": "mine", "Cookie": KEY},
        "params": {"key": KEY},
        "content": json.dumps({"deploymentId": {"X-API-KEY": KEY}, KEY: KEY}).encode(),
    }
    with service.client() as with_key, httpx.Client(base_url=service.url) as without_key:
        for client in (with_key, without_key):
            for method in ("GET", "POST"):
                for path in ("/callback", "/metrics", "/health", "/ready", "/docs", "/nowhere"):
                    answer = client.request(method, path, **misplaced)  # type: ignore[arg-type]
                    assert KEY not in f"{answer.headers}{answer.text}"
        assert KEY not in with_key.get("/openapi.json").text
    assert service.stop() == 0  # which searches its log


def test_no_crash_shows_one(
    start_service: Callable[..., Service], postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Tracebacks have no local variables, in the log or in the answer."""
    service = start_service(
        SQL_SAM_CONNECTION_STRING=postgres_database.connection_string,
        CALLBACK_LOG_LEVEL="DEBUG",
        PYTHONASYNCIODEBUG="1",
        PYTHONFAULTHANDLER="1",
        **say_at_start(
            tmp_path,
            "from sam.callback.service.callback import CallbackReceiver\n"
            "async def crash(self, request):\n"
            "    key, all_of_them = dict(request.headers)['x-api-key'], dict(os.environ)\n"
            "    raise RuntimeError('boom')\n"
            "CallbackReceiver.receive = crash",
        ),
    )
    answer = service.post(body())
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal error."})
    line = service.wait_for_event("crash")
    assert line["exception"].endswith("RuntimeError: boom")
    assert service.stop() == 0


def test_no_crash_of_the_interpreter_shows_one(
    sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    run = run_to_its_end(
        tmp_path,
        {
            **SECRETS,
            "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
            "CALLBACK_HOST": "127.0.0.1",
            "CALLBACK_PORT": "0",
            **say_at_start(
                tmp_path,
                "import faulthandler\n"
                "from sam.callback.server.listener import Listener\n"
                "def start(self, sockets, key=os.environ['CALLBACK_API_KEY']):\n"
                "    faulthandler._sigsegv()\n"
                "Listener.start = start",
            ),
        },
    )
    assert run.returncode != 0
    assert "Segmentation fault" in run.stderr
    assert "sitecustomize.py" in run.stderr  # its traceback is there, and was searched


def test_a_crash_of_a_command_shows_none(tmp_path: Path) -> None:
    run = run_to_its_end(
        tmp_path,
        {
            **SECRETS,
            "CALLBACK_PORT": "1",
            **say_at_start(
                tmp_path,
                "from sam.callback.cli import client\n"
                "def crash(self, *arguments, **_):\n"
                "    key = os.environ['CALLBACK_API_KEY']\n"
                "    raise RuntimeError('boom')\n"
                "client.Target.client = crash",
            ),
        },
        "send",
        "d-1",
    )
    assert run.returncode != 0
    assert "RuntimeError: boom" in run.stderr


@pytest.mark.fresh
def test_neither_its_arguments_nor_a_child_has_one(service: Service) -> None:
    service.post(body())
    process = psutil.Process(service.pid)
    search({}, process.cmdline())
    assert process.children(recursive=True) == []


@pytest.mark.parametrize("arguments", [("serve",), ("send",), ("simulate",), ("spool",)])
def test_no_command_takes_one_as_an_argument(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Every user of the machine may read a process' arguments."""
    run = run_to_its_end(tmp_path, {"COLUMNS": "200"}, *arguments, "--help")
    assert run.returncode == 0
    assert "--key" not in run.stdout
    assert "--api-key" not in run.stdout
    assert "--password" not in run.stdout


def test_a_login_that_is_refused_does_not_show_its_password(
    start_service: Callable[..., Service], postgres_database: PostgresDatabase
) -> None:
    text = postgres_database.connection_string.replace("UID=sam", "UID=no-such-login")
    service = start_service(SQL_SAM_CONNECTION_STRING=text)
    assert service.post(body()).json()["outcome"] == "queued"
    service.wait_for_line(lambda line: "no-such-login" in json.dumps(line))
    assert service.stop() == 0
