"""docs/tutorial.md: each command of it is run, in its order, and does what the page says."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import markdown
from tests.support.conditions import eventually
from tests.support.service import clean_environment

pytestmark = pytest.mark.server

TUTORIAL = markdown.ROOT.joinpath("docs/tutorial.md").read_text(encoding="utf-8")
START, *COMMANDS = [code for language, code in markdown.blocks(TUTORIAL) if language == "sh"]
EARLY, BANK = "too-early", "3e225573-4e78-48c8-bb08-efbeeb795c22"


class Reader:
    """A person with the page and a second terminal."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port

    def types(self, command: str) -> str:
        """Run a command of the page as it is, but for `uv run` and the port."""
        scripts = Path(sys.executable).parent
        run = subprocess.run(
            ["sh", "-ec", command.replace(":8000/", f":{self._port}/").replace("uv run ", "")],  # noqa: S607 - as a reader's
            cwd=self._directory,
            env=clean_environment(
                CALLBACK_PORT=str(self._port), PATH=f"{scripts}:{os.environ['PATH']}"
            ),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=30,
            check=True,
        )
        return run.stdout

    def status(self, deployment_id: str) -> str:
        """Look into the table."""
        with closing(sqlite3.connect(self._directory / "var/sam.db")) as database:
            [(status,)] = database.execute(
                "SELECT status FROM robots WHERE deploymentId = ?", [deployment_id]
            )
        return str(status)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Somebody whose first terminal has what `make run` starts."""
    assert START == "make run\n"
    process = subprocess.Popen(
        [sys.executable, "-m", "sam.callback", "serve", "--embedded"],
        cwd=tmp_path,
        env=clean_environment(CALLBACK_PORT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        yield Reader(tmp_path, next(line["port"] for line in lines if line["event"] == "listening"))
    finally:
        process.terminate()
        process.communicate(timeout=12)
    assert process.returncode == 0


def test_the_first_half_hour(reader: Reader) -> None:
    post, look, stranger, early, spool_list, appear, away, send, ready, back = COMMANDS
    shown = [code for language, code in markdown.blocks(TUTORIAL) if language in {"json", "text"}]
    updated, robots, refused, unmatched, _ = shown

    assert _but_for_the_request(reader.types(post)) == _but_for_the_request(updated)
    assert reader.types(look) == robots
    assert reader.types(stranger).strip() == refused.strip()

    assert _but_for_the_request(reader.types(early)) == _but_for_the_request(unmatched)
    assert "0 queued, 1 unmatched" in reader.types(spool_list)
    reader.types(appear)
    eventually(lambda: reader.status(EARLY) == "RUN_FAILED")

    reader.types(away)
    assert reader.types(send).startswith("queued")
    assert json.loads(reader.types(ready))["status"] == "degraded"
    reader.types(back)
    eventually(lambda: reader.status(BANK) == "RUN_COMPLETED")
    eventually(lambda: json.loads(reader.types(ready))["status"] == "ok")


def _but_for_the_request(answer: str) -> dict[str, str]:
    parsed: dict[str, str] = json.loads(answer)
    del parsed["requestId"]
    return parsed
