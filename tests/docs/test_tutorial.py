"""docs/tutorial.md: each command of it is run, in its order, and does what the page says."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import markdown
from tests.support.conditions import eventually
from tests.support.reader import LOG, Reader, after_make_run

pytestmark = pytest.mark.server

TUTORIAL = markdown.ROOT.joinpath("docs/tutorial.md").read_text(encoding="utf-8")
START, *COMMANDS = [code for language, code in markdown.blocks(TUTORIAL) if language == "sh"]
EARLY, BANK = "too-early", "3e225573-4e78-48c8-bb08-efbeeb795c22"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader after the first step."""
    assert START == "make run\n"
    with after_make_run(tmp_path) as reader:
        yield reader


def test_the_first_half_hour(reader: Reader) -> None:
    post, look, without_key, early, spool_list, appear, away, send, ready, back = COMMANDS
    shown = [code for language, code in markdown.blocks(TUTORIAL) if language in {"json", "text"}]
    updated, robots, refused, unmatched, _ = shown

    assert _but_for_the_request(reader.types(post)) == _but_for_the_request(updated)
    assert reader.types(look) == robots
    assert reader.types(without_key).strip() == refused.strip()

    assert _but_for_the_request(reader.types(early)) == _but_for_the_request(unmatched)
    assert "0 queued, 1 unmatched" in reader.types(spool_list)
    reader.types(appear)
    eventually(lambda: _status(reader, EARLY) == "RUN_FAILED")

    reader.types(away)
    assert reader.types(send).startswith("queued")
    assert json.loads(reader.types(ready))["status"] == "degraded"
    reader.types(back)
    eventually(lambda: _status(reader, BANK) == "RUN_COMPLETED")
    eventually(lambda: json.loads(reader.types(ready))["status"] == "ok")


def test_the_readme_shows_its_first_callback_its_answer_and_its_line(reader: Reader) -> None:
    readme = markdown.ROOT.joinpath("README.md").read_text(encoding="utf-8")
    shown = markdown.blocks(readme)
    assert COMMANDS[0] in [code for language, code in shown if language == "sh"]
    answer, line = [json.loads(code) for language, code in shown if language == "json"]
    answered = json.loads(reader.types(COMMANDS[0]))
    assert {**answered, "requestId": answer["requestId"]} == answer
    eventually(lambda: bool(_callbacks(reader)))  # a line is written after its answer
    [written] = _callbacks(reader)
    assert list(written) == list(line)
    of_this_run = {"timestamp", "version", "instance", "pid", "request_id", "db_ms", "duration_ms"}
    assert {name: line[name] for name in line.keys() - of_this_run} == {
        name: written[name] for name in written.keys() - of_this_run
    }


def _status(reader: Reader, deployment_id: str) -> str:
    with closing(sqlite3.connect(reader.directory / "var/sam.db")) as database:
        [(status,)] = database.execute(
            "SELECT status FROM robots WHERE deploymentId = ?", [deployment_id]
        )
    return str(status)


def _callbacks(reader: Reader) -> list[dict[str, Any]]:
    log = (reader.directory / LOG).read_text(encoding="utf-8")
    whole = log[: log.rfind("\n") + 1]
    return [line for line in map(json.loads, whole.splitlines()) if line["event"] == "callback"]


def _but_for_the_request(answer: str) -> dict[str, str]:
    parsed: dict[str, str] = json.loads(answer)
    del parsed["requestId"]
    return parsed
