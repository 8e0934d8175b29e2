"""docs/logs.md and the schema list what the code can write: no more, no less.

That each line which any test makes the service write matches the schema is checked by
`Service.stop`, for every test.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from sam.callback.metrics import CutReason, RefusalReason
from tests.support import log_lines
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.log_calls import LogCall, gathered_fields, log_calls
from tests.support.service import KEY, Service

EVENTS: dict[str, Any] = log_lines.schema()["$defs"]["events"]
LINE = {
    "timestamp": "2026-11-24T03:31:07.415712Z",
    "level": "info",
    "event": "database_up",
    "logger": "sam.callback.inbox.circuit_breaker",
    "service": "sam-callback",
    "version": "0.1.0",
    "instance": "sam-1",
    "pid": 4711,
}


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(log_lines.schema())
    listed = [each["$ref"].rpartition("/")[2] for each in log_lines.schema()["then"]["anyOf"]]
    assert listed == list(EVENTS), log_lines.HOW_TO_ADD


@pytest.fixture(scope="module")
def calls() -> dict[str, list[LogCall]]:
    return log_calls()


def test_every_event_is_documented_and_written(calls: dict[str, list[LogCall]]) -> None:
    assert set(calls) - set(EVENTS) == set(), log_lines.HOW_TO_ADD
    assert set(EVENTS) - set(calls) == set(), "no code writes these any more: take them out"


def test_an_event_has_the_levels_and_fields_that_are_documented(
    calls: dict[str, list[LogCall]],
) -> None:
    for event in set(calls) & set(EVENTS):
        places = ", ".join(call.place for call in calls[event])
        levels = set[str]().union(*(call.levels for call in calls[event]))
        assert levels == log_lines.event_levels(event), f"{places}: {log_lines.HOW_TO_ADD}"
        for call in calls[event]:
            _compare(event, call)


def _compare(event: str, call: LogCall) -> None:
    documented, required = log_lines.event_fields(event), log_lines.required_fields(event)
    assert call.fields <= documented, f"{call.place}: {log_lines.HOW_TO_ADD}"
    if call.is_gathered:
        assert documented <= call.fields | gathered_fields(), call.place
    else:
        assert required <= call.fields, call.place


def test_every_field_is_documented_and_written(calls: dict[str, list[LogCall]]) -> None:
    written = gathered_fields().union(*(call.fields for each in calls.values() for call in each))
    documented = set[str]().union(*map(log_lines.event_fields, EVENTS))
    assert written == documented, log_lines.HOW_TO_ADD
    assert documented == set(log_lines.schema()["$defs"]["fields"])


def test_the_page_agrees_with_the_schema() -> None:
    assert log_lines.PAGE.read_text(encoding="utf-8") == log_lines.page_with_tables(), (
        log_lines.HOW_TO_ADD
    )
    page = log_lines.PAGE.read_text(encoding="utf-8")
    for event in ("refused", "refused_early", "disconnected", "connection_cut"):
        for reason in EVENTS[event]["properties"]["reason"]["enum"]:
            assert f"`{reason}`" in page.partition("## Reasons")[2], reason


def test_the_reasons_are_those_of_the_code() -> None:
    documented = {
        event: EVENTS[event]["properties"]["reason"]["enum"]
        for event in ("refused", "refused_early", "disconnected", "connection_cut")
    }
    assert set(documented.pop("connection_cut")) == set(CutReason)
    assert set[str]().union(*documented.values()) == set(RefusalReason)


def test_the_readme_shows_a_line_as_it_is() -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    lines = [json.loads(text) for text in readme.splitlines() if text.startswith('{"timestamp"')]
    assert lines
    log_lines.check(lines)


def test_a_line_that_matches_passes() -> None:
    log_lines.check([LINE, {**LINE, "logger": "uvicorn.error", "event": "Shutting down", "x": 1}])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"event": "database_sideways"}, "'database_sideways' is not documented"),
        ({"mood": "good"}, "mood"),
        ({"level": "critical"}, "level"),
        ({"pid": "4711"}, "pid"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"event": "listening", "port": 8000}, "host"),
        ({"event": "listening", "port": "8000", "host": "0.0.0.0"}, "port"),  # noqa: S104 - a value
        ({"logger": "uvicorn.error", "service": "another"}, "service"),
        ({"event": "driver", "driver": "x" * 2000, "reason": ""}, "driver"),
    ],
)
def test_a_line_that_does_not_match_fails_and_says_why(change: dict[str, Any], says: str) -> None:
    with pytest.raises(AssertionError, match=says) as caught:
        log_lines.check([{**LINE, **change}])
    assert "docs/log-line.schema.json" in str(caught.value)


def test_the_jq_examples_find_their_lines(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_API_KEY_PREVIOUS="the-old-key",
    )
    for deployment_id, key in (("d-1", KEY), ("d-unknown", KEY), ("d-1", "the-old-key")):
        content = body(deployment_id, "DONE")
        httpx.post(service.url + "/callback", content=content, headers={"X-API-KEY": key})
    httpx.post(service.url + "/callback", content=body(), headers={"X-API-KEY": "guess"})
    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    assert service.post(body("d-1", "LAST")).json()["outcome"] == "queued"
    assert service.stop() == 0
    (tmp_path / "sam-callback.log").write_text("".join(service.output), encoding="utf-8")
    callbacks = [line for line in service.lines if line["event"] == "callback"]
    slowest = max(callbacks, key=lambda line: float(line["duration_ms"]))

    one, by_outcome, refusals, the_slowest, bad, previous = (
        [" ".join(line.split()) for line in _run(example, tmp_path)]
        for example in log_lines.examples("sh")
    )

    assert [json.loads(line)[1:] for line in one] == [
        ["callback", "DONE", "updated"],
        ["callback", "DONE", "updated"],
        ["callback", "LAST", "queued"],
    ]
    assert by_outcome == ["1 queued", "1 unmatched", "2 updated"]
    assert refusals == ["1 wrong_key 127.0.0.1"]
    assert json.loads(the_slowest[0]) == [
        slowest["deployment_id"],
        slowest["duration_ms"],
        slowest["db_ms"],
    ]
    assert [line.split()[1] for line in bad] == ["database_down"]
    assert previous == ["1 127.0.0.1"]


def _run(example: str, directory: Path) -> list[str]:
    assert shutil.which("jq"), "This test needs jq: `make setup`."
    run = subprocess.run(
        ["sh", "-ec", example],  # noqa: S607 - found as by an operator
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    assert run.stderr == ""
    return run.stdout.splitlines()
