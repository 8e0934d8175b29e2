"""Setting sources: values are taken literally, and an unusable file is named in one message."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam.callback import setting_sources
from sam.callback.settings import (
    ClientSettings,
    Settings,
    SettingsError,
    SpoolSettings,
)
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service, clean_environment, run_to_its_end

GOOD = "CALLBACK_API_KEY=k\nSQL_SAM_CONNECTION_STRING=x\n"
SERVE: tuple[str, ...] = ()
COMMANDS = {
    "serve": SERVE,
    "serve --embedded": ("serve", "--embedded"),
    "check": ("check",),
    "send": ("send", "d-1"),
    "simulate": ("simulate", "--yes"),
    "spool list": ("spool", "list"),
    "spool show": ("spool", "show", "1"),
    "spool retry": ("spool", "retry", "1"),
    "spool drop": ("spool", "drop", "1", "--yes"),
    "spool export": ("spool", "export"),
    "spool drain": ("spool", "drain"),
}
ONE_OF_EACH_KIND = ["serve", "send", "spool list"]
"""They load the settings of the service, of a client, and of the spool."""

SECRET = "contraseña-5b1e"
BAD_CONTENTS = {
    "Latin-1": f"CALLBACK_API_KEY={SECRET}\n".encode("latin-1"),
    "UTF-16": f"CALLBACK_API_KEY={SECRET}\n".encode("utf-16"),
    "UTF-16 without a BOM": f"CALLBACK_PORT=1\nSQL_SAM_PASSWORD={SECRET}\n".encode("utf-16-le"),
    "NUL": f"CALLBACK_API_KEY={SECRET}\0\n".encode(),
}
BAD_LINES = {
    r"\n in double quotes": f'SQL_SAM_PASSWORD="{SECRET}\\n"\n'.encode(),
    "one quotation mark": f"SQL_SAM_PASSWORD='{SECRET}\n".encode(),
}


@pytest.fixture(autouse=True)
def _nothing_but_the_tests_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.lower().startswith(setting_sources.PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    monkeypatch.setattr(setting_sources, "SECRETS_DIRECTORY", directory)
    return directory


def write_env_file(text: str | bytes) -> Path:
    path = Path(".env").absolute()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def password_in(text: str) -> str:
    write_env_file(GOOD + text)
    password = Settings.load().sql_sam_password
    assert password is not None
    return password.get_secret_value()


# --- As they are written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'ab${x}cd'", "ab${x}cd"),
        ('"ab${CALLBACK_API_KEY}$CALLBACK_API_KEY"', "ab${CALLBACK_API_KEY}$CALLBACK_API_KEY"),
        ("ab${x:-y}cd", "ab${x:-y}cd"),
        ("'0123456789abcdef${9dQ}0123456789'", "0123456789abcdef${9dQ}0123456789"),
        (r"SQL01\new", r"SQL01\new"),
        (r"'SQL01\new'", r"SQL01\new"),
        (r'"SQL01\SAM"', r"SQL01\SAM"),
        (r'"it' + "'" + r's \"so\" \\"', 'it\'s "so" \\'),
        ("'a # b'", "a # b"),
        ("a#b", "a#b"),
        ("'ñandú 🤖'", "ñandú 🤖"),
        ("'a\tb'", "a\tb"),
        ("' blanks '", " blanks "),
    ],
)
def test_a_value_of_the_env_file_is_taken_literally(written: str, value: str) -> None:
    assert password_in(f"SQL_SAM_PASSWORD={written}\n") == value


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_byte_order_mark_and_windows_line_ends_are_ignored(bom: str, line_end: str) -> None:
    write_env_file(f"{bom}CALLBACK_API_KEY='a$b'{line_end}CALLBACK_PORT=1{line_end}")
    settings = ClientSettings.load()
    assert settings.callback_api_key is not None
    assert settings.callback_api_key.get_secret_value() == "a$b"
    assert settings.callback_port == 1


@pytest.mark.parametrize("written", [f"ends so{end}" for end in ("", "\n", "\r\n", "\n\n")])
def test_only_the_trailing_line_end_is_no_part_of_a_secret(written: str, secrets: Path) -> None:
    secrets.joinpath("sql_sam_password").write_bytes(b"\xef\xbb\xbf ${x} " + written.encode())
    assert password_in("") == " ${x} ends so"


def test_a_value_of_the_environment_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("'${HOME}'", 'a\\nb"', " blanks\n"):
        monkeypatch.setenv("SQL_SAM_PASSWORD", value)
        assert password_in("SQL_SAM_PASSWORD=another\n") == value


@pytest.mark.posix
def test_bytes_of_the_environment_that_are_no_text_are_refused(tmp_path: Path) -> None:
    environment = {
        **{os.fsencode(name): os.fsencode(value) for name, value in clean_environment().items()},
        b"CALLBACK_API_KEY": b"k",
        b"SQL_SAM_CONNECTION_STRING": b"x",
        b"SQL_SAM_PASSWORD": SECRET.encode("latin-1"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "sam.callback"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert_it_is_refused(ended, "SQL_SAM_PASSWORD")


# --- Files that cannot be used --------------------------------------------------------------------


def assert_it_is_refused(
    ended: "subprocess.CompletedProcess[str]", named: object, reason: str = ""
) -> None:
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert ended.stderr.count(str(named)) == 1
    assert reason in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    for part in ("contrase", "5b1e"):
        assert part not in ended.stderr


@pytest.mark.parametrize("content", {**BAD_CONTENTS, **BAD_LINES}.values(), ids=str)
def test_an_env_file_that_cannot_be_used_ends_the_start(content: bytes, tmp_path: Path) -> None:
    path = write_env_file(content)
    assert_it_is_refused(run_to_its_end(tmp_path, {"CALLBACK_API_KEY": "k"}), path)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_it_ends_every_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    path = write_env_file(BAD_CONTENTS["Latin-1"])
    assert_it_is_refused(run_to_its_end(tmp_path, {"CALLBACK_API_KEY": "k"}, *arguments), path)


@pytest.mark.parametrize("command", ONE_OF_EACH_KIND)
def test_an_unreadable_env_file_ends_the_start(command: str, tmp_path: Path) -> None:
    """As where Docker made a folder of a file to mount that was not there."""
    path = tmp_path / ".env"
    path.mkdir()
    ended = run_to_its_end(tmp_path, {"CALLBACK_API_KEY": "k"}, *COMMANDS[command])
    assert_it_is_refused(ended, path, "cannot be read (")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("name", "command"),
    [
        *((".env", command) for command in ONE_OF_EACH_KIND),
        ("secrets/callback_api_key", "serve"),
    ],
)
def test_an_env_file_without_permission_ends_the_start(
    name: str, command: str, secrets: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(b"CALLBACK_API_KEY=x\n")
    path.chmod(0)
    tmp_path.joinpath("sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "from sam.callback import setting_sources\n"
        f"setting_sources.SECRETS_DIRECTORY = Path({str(secrets)!r})\n"
    )
    ended = subprocess.run(
        [*_without_roots_rights(), sys.executable, "-m", "sam.callback", *COMMANDS[command]],
        env=clean_environment(CALLBACK_API_KEY="k", PYTHONPATH=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert_it_is_refused(ended, path, "cannot be read (Permission denied)")


def _without_roots_rights() -> list[str]:
    """The prefix of a command, so that root may not read all."""
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv, "as root, this test needs setpriv, of util-linux"
    rights = "-dac_override,-dac_read_search"
    return [setpriv, f"--bounding-set={rights}", f"--inh-caps={rights}"]


LOADERS: dict[str, Callable[[], Any]] = {
    "service": Settings.load,
    "client": ClientSettings.load,
    "spool": SpoolSettings.load,
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("content", BAD_CONTENTS.values(), ids=BAD_CONTENTS)
def test_a_secret_that_is_no_text_in_utf_8_is_named(
    content: bytes, load: Callable[[], object], secrets: Path
) -> None:
    path = secrets / "sql_sam_password"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(path) in str(caught.value)
    assert "UTF-8" in str(caught.value)
    assert "contrase" not in str(caught.value)


def test_a_secret_that_is_a_folder_is_named(secrets: Path) -> None:
    path = secrets / "sql_sam_password"
    path.mkdir()
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(path) in str(caught.value)


def test_other_files_among_the_secrets_are_ignored(secrets: Path) -> None:
    (secrets / "..data").mkdir()  # as Kubernetes has it
    (secrets / "another").write_bytes(b"\xff")
    ClientSettings.load()


@pytest.mark.parametrize("letter", "abfnrtv")
def test_an_escape_that_is_a_control_character_is_refused_with_a_word_on_quotes(
    letter: str,
) -> None:
    path = write_env_file(f'# a comment\n\n{GOOD}SQL_SAM_SERVER="SQL01\\{letter}ew"\t# another\n')
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    message = str(caught.value)
    assert f"SQL_SAM_SERVER in the file {path}, line 5," in message
    assert "single quotes" in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CALLBACK_PORT=1\n\nthis is no setting\n", 3),
        ("CALLBACK_PORT=1\nSQL_SAM_PASSWORD='abc\n", 2),
        ('SQL_SAM_PASSWORD="abc\nCALLBACK_PORT="1\n', 1),
    ],
)
def test_a_line_that_cannot_be_parsed_is_told_by_its_number(text: str, line: int) -> None:
    write_env_file(text)
    with pytest.raises(SettingsError, match=f"line {line} of the file"):
        SpoolSettings.load()


def test_the_demo_has_settings_of_its_own(tmp_path: Path) -> None:
    write_env_file(BAD_CONTENTS["UTF-16"])
    tmp_path.joinpath("callback_api_key").write_text("a-secret-of-this-machine\n")
    tmp_path.joinpath("sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "from sam.callback import setting_sources\n"
        f"setting_sources.SECRETS_DIRECTORY = Path({str(tmp_path)!r})\n"
    )
    ended = run_to_its_end(tmp_path, {"PYTHONPATH": str(tmp_path)}, "demo")
    assert (ended.returncode, ended.stderr) == (0, "")
    # Which one, the machine's speed decides.
    assert {"updated", "queued"} & set(ended.stdout.split())


def test_the_service_runs_on_an_env_file(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    write_env_file(
        f"\ufeffCALLBACK_API_KEY='{KEY}${{x}}'\n"
        f"SQL_SAM_CONNECTION_STRING='{sqlite_database.connection_string}'\n"
    )
    service = start_service(CALLBACK_API_KEY="")
    with service.client() as client:
        assert client.get("/metrics").status_code == 401
        client.headers["X-API-KEY"] = f"{KEY}${{x}}"
        assert client.get("/metrics").status_code == 200
