"""Control characters from outside never reach a terminal that would obey them."""

import json
import unicodedata
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sam.callback.cli import app
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.store import Entry, Kind
from sam.callback.logs import printable
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, run_to_its_end

# To clear the screen, to set the title, the same in C1, to turn the direction, to forge a line.
DECEPTIVE = "a\x1b[2J\x1b]0;title\x07\x9b2J\u202eb\u2066\x7f\r\nforged\u2028"
ENTRIES = [
    Entry(1, Kind.QUEUED, DECEPTIVE, DECEPTIVE, json.dumps({"a": DECEPTIVE}).encode(), DECEPTIVE),
    Entry(2, Kind.INVALID, None, None, DECEPTIVE.encode(), DECEPTIVE),
]
HUMAN = [["list"], ["show", "1"], ["show", "2"], ["retry", "1", "2"]]
PROGRAMS = [["list", "--json"], ["show", "1", "--json"], ["show", "2", "--json"], ["export"]]


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    path = tmp_path / "spool.db"
    monkeypatch.setenv("CALLBACK_SPOOL_PATH", str(path))
    with closing(SpoolFile(path, 2**24)) as file:
        file.put(ENTRIES, 2)
    return path


def printed_by(*arguments: str) -> str:
    return CliRunner().invoke(app, list(arguments)).output


def deceptive_in(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}} - {
        "\n"
    }


@pytest.mark.parametrize("arguments", HUMAN + PROGRAMS, ids=" ".join)
@pytest.mark.usefixtures("spool")
def test_a_command_of_the_spool_prints_none(arguments: list[str]) -> None:
    output = printed_by("spool", *arguments)
    assert output
    assert not deceptive_in(output)
    assert "\nforged" not in output


@pytest.mark.usefixtures("spool")
def test_json_is_exact() -> None:
    for command in (["show", "1", "--json"], ["export"]):
        entry = json.loads(printed_by("spool", *command).splitlines()[0])
        assert (entry["deploymentId"], entry["reason"]) == (DECEPTIVE, DECEPTIVE)
        assert json.loads(entry["payload"]) == {"a": DECEPTIVE}


@pytest.mark.usefixtures("spool")
def test_escaped_characters_stay_visible() -> None:
    assert r"a\u001b[2J\u001b]0;title\u0007\u009b2J\u202eb" in printed_by("spool", "show", "1")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_send_prints_none_of_a_servers(
    arguments: list[str],
    respx_mock: respx.MockRouter,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBACK_API_KEY", KEY)
    url = "http://127.0.0.1:8000/callback"
    answer = {
        "status": "ok",
        "outcome": "updated",
        "deploymentId": DECEPTIVE,
        "requestId": DECEPTIVE,
    }
    detail = [{"loc": ["body", DECEPTIVE], "msg": DECEPTIVE}]
    for response in (
        httpx.Response(200, json=answer),
        httpx.Response(500, json={"detail": DECEPTIVE}),
        httpx.Response(422, json={"detail": detail}),
    ):
        respx_mock.post(url).mock(return_value=response)
        output = printed_by("send", "d-1", "--url", url, *arguments)
        assert "title" in output
        assert not deceptive_in(output)


@pytest.mark.posix  # elsewhere a file cannot be named so
def test_check_prints_none_of_a_name(sqlite_database: SqliteDatabase, tmp_path: Path) -> None:
    variables = {
        "CALLBACK_API_KEY": KEY,
        "CALLBACK_PORT": "0",
        "CALLBACK_SPOOL_PATH": "\x1b]0;title\x07/\u202espool.db",
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    output = run_to_its_end(tmp_path, variables, "check").stdout
    assert r"\u001b]0;title\u0007/\u202espool.db" in output
    assert not deceptive_in(output)


@given(st.text())
def test_any_text_becomes_one_line_and_a_printable_one_is_kept(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not text.isprintable() or shown == text


def test_a_long_text_is_cut() -> None:
    assert printable("\x1b" + "y" * 9, 3) == r"\u001byy..."
    assert printable("yyy", 3) == "yyy"
