"""`serve --embedded` (`make run`) and `demo` need nothing but this machine."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyodbc
import pytest

from sam.callback.cli import embedded
from tests.support import log_lines
from tests.support.conditions import LIMIT_SECONDS
from tests.support.service import clean_environment, run_to_its_end

pytestmark = pytest.mark.server

POST_IT = """
import sys, httpx
url, content, *headers = sys.argv[1:]
print(httpx.post(url, content=content, headers=[h.split(": ") for h in headers]).text)
"""


def _statuses(directory: Path) -> set[str]:
    with closing(sqlite3.connect(directory / "var/sam.db")) as connection:
        return {status for (status,) in connection.execute("SELECT status FROM robots")}


def test_the_line_that_is_printed_updates_a_robot(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sam.callback", "serve", "--embedded"],
        cwd=tmp_path,
        env=clean_environment(CALLBACK_PORT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stderr is not None
    listening = next(
        line for line in map(json.loads, process.stdout) if line["event"] == "listening"
    )
    assert listening["host"] == "127.0.0.1"
    hint = "".join(iter(process.stderr.readline, "\n"))  # to the empty line before the command
    command = "".join(iter(process.stderr.readline, "\n"))
    assert "var/sam.db" in hint

    headers = re.findall(r"-H '(.*)'", command)
    [content] = re.findall(r"-d '(.*)'", command)
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            POST_IT,
            f"http://127.0.0.1:{listening['port']}/callback",
            content,
            *headers,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    process.terminate()
    output, errors = process.communicate(timeout=LIMIT_SECONDS)

    assert json.loads(answer.stdout)["outcome"] == "updated"
    assert _statuses(tmp_path) == {"RUNNING", "RUN_COMPLETED"}
    assert (process.returncode, errors) == (0, "")
    log_lines.check([listening, *map(json.loads, output.splitlines())])


def test_existing_data_is_kept_at_the_next_start(tmp_path: Path) -> None:
    bad_start = {"CALLBACK_LOG_FORMAT": "nonsense"}
    assert run_to_its_end(tmp_path, bad_start, "serve", "--embedded").returncode == 2
    with closing(sqlite3.connect(tmp_path / "var/sam.db")) as connection, connection:
        connection.execute("UPDATE robots SET status = 'KEPT'")
    assert run_to_its_end(tmp_path, bad_start, "serve", "--embedded").returncode == 2
    assert _statuses(tmp_path) == {"KEPT"}


def test_the_demo_tells_the_whole_story_and_ends(tmp_path: Path) -> None:
    run = run_to_its_end(tmp_path, {}, "demo")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    story = ["Before", "RUNNING", "200 updated", "401 ", "After", "RUN_COMPLETED"]
    position = 0
    for part in story:
        position = run.stdout.index(part, position)
    assert list(tmp_path.iterdir()) == []
    assert all(len(line) <= 80 for line in run.stdout.splitlines())


def test_the_embedded_database_is_as_durable_as_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SQL_SAM_CONNECTION_STRING", "")
    monkeypatch.setenv("CALLBACK_API_KEY", "kept")
    monkeypatch.setenv("CALLBACK_HOST", "")
    embedded.prepare()
    with closing(pyodbc.connect(os.environ["SQL_SAM_CONNECTION_STRING"])) as connection:
        full = 2
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == full
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert os.environ["CALLBACK_API_KEY"] == "kept"
    assert os.environ["CALLBACK_HOST"] == "127.0.0.1"
