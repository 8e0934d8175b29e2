"""`simulate`: many callbacks to a real service, and an honest account of the answers."""

import asyncio
import itertools
import json
import math
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import respx
from pydantic import SecretStr

from sam.callback.cli import embedded
from sam.callback.cli.bodies import made_up
from sam.callback.cli.client import Fault, Target
from sam.callback.cli.load import Tally, schedule, send_load
from sam.callback.model import Outcome
from sam.callback.service.schemas import CallbackPayload
from tests.support import printed
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import spooled
from tests.support.service import KEY, Service, clean_environment, run_to_its_end

NO_ROBOT = "The deployments are made up"


def simulate(
    service: Service, *arguments: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    environment = {"CALLBACK_API_KEY": KEY, **variables}
    return run_to_its_end(
        service.directory, environment, "simulate", "--url", service.url, *arguments
    )


def start(service: Service, *arguments: str) -> "subprocess.Popen[str]":
    """Start it; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "sam.callback", "simulate", "--url", service.url, *arguments],
        cwd=service.directory,
        env=clean_environment(CALLBACK_API_KEY=KEY),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def callbacks(service: Service) -> list[dict[str, object]]:
    return [line for line in service.lines if line["event"] == "callback"]


# --- Against the real service -------------------------------------------------------------------


def test_on_the_embedded_database_every_callback_updates_a_robot(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SQL_SAM_CONNECTION_STRING", "CALLBACK_API_KEY", "CALLBACK_HOST"):
        monkeypatch.setenv(name, "")  # so that what is set next does not outlive this test
    embedded.prepare()
    service = start_service(
        SQL_SAM_CONNECTION_STRING=os.environ["SQL_SAM_CONNECTION_STRING"],
        CALLBACK_API_KEY=embedded.KEY,
    )

    run = simulate(service, "--embedded", "--connections", "64", CALLBACK_API_KEY="")

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("1000 callbacks in ")
    assert [line.split() for line in run.stdout.splitlines() if "updated" in line] == [
        ["updated", "1000"]
    ]
    assert "p50" in run.stdout
    with closing(sqlite3.connect(tmp_path / "var/sam.db")) as connection:
        counts = connection.execute(
            "SELECT status = 'RUNNING', count(*) FROM robots WHERE name LIKE 'Simul%' GROUP BY 1"
        ).fetchall()
    assert counts == [(0, 1000)]


def test_deployments_come_from_a_file_once_each(
    service: Service, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    sqlite_database.add_robots(["d-2", "d-3"])
    (tmp_path / "ids").write_text("d-1\n\n d-2 \nd-3\n")

    run = simulate(service, "--deployments", "ids", "--json")

    assert (run.returncode, run.stderr) == (0, "")
    summary = json.loads(run.stdout)
    assert summary["callbacks"] == 3
    assert summary["outcomes"] == {"updated": 3}
    assert summary["failures"] == {}
    assert list(summary["latencyMs"]) == ["p50", "p95", "p99", "max"]
    assert "RUNNING" not in sqlite_database.statuses().values()


def test_bodies_come_from_a_file_and_begin_again(
    service: Service, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    sqlite_database.add_robots(["d-2"])
    bodies = [{"deploymentId": "d-1", "status": "ONE"}, {"deploymentId": "d-2", "status": "TWO"}]
    (tmp_path / "bodies").write_text("\n\n".join(map(json.dumps, bodies)))

    assert json.loads(simulate(service, "--bodies", "bodies", "--json").stdout)["callbacks"] == 2
    assert sqlite_database.statuses() == {"d-1": "ONE", "d-2": "TWO"}
    run = simulate(service, "--bodies", "bodies", "--count", "5", "--connections", "1")
    assert run.stdout.startswith("5 callbacks in ")
    eventually(lambda: len(callbacks(service)) == 7)
    assert [line["status"] for line in callbacks(service)][2:] == ["ONE", "TWO"] * 2 + ["ONE"]


def test_made_up_deployments_are_warned_about(service: Service) -> None:
    run = simulate(service, "--count", "5")
    assert run.returncode == 0
    assert NO_ROBOT in run.stderr
    assert "spool" in run.stderr
    assert len(spooled(service.directory / "var/callback-spool.db")) == 5


def test_another_machines_spool_is_not_filled_without_a_yes(service: Service) -> None:
    elsewhere = "http://no-such-host.invalid"
    asked = simulate(service, "--url", elsewhere)
    assert asked.returncode == 1
    assert "Fill the spool behind" in asked.stderr
    told = simulate(service, "--url", elsewhere, "--yes")
    assert told.returncode == Fault.UNREACHABLE.exit_status


def test_a_database_that_is_locked_shows_as_queued_and_as_no_failure(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DB_TIMEOUT="0.5"
    )
    sqlite_database.add_robots(f"r-{number}" for number in range(50))
    (tmp_path / "ids").write_text("\n".join(f"r-{number}" for number in range(50)))
    with closing(sqlite3.connect(sqlite_database.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        run = simulate(service, "--deployments", "ids", "--json")
    assert run.returncode == 0
    assert json.loads(run.stdout)["outcomes"] == {"queued": 50}
    eventually(lambda: "RUNNING" not in {**sqlite_database.statuses(), "d-1": "-"}.values())


def test_a_service_that_dies_is_counted_and_is_exit_status_1(service: Service) -> None:
    process = start(service, "--rate", "100", "--duration", "3", "--json")
    eventually(lambda: len(callbacks(service)) > 0)
    service.kill()
    output, errors = process.communicate(timeout=LIMIT_SECONDS)
    printed.search({}, [output, errors])
    assert process.returncode == 1
    summary = json.loads(output)
    assert summary["callbacks"] == 300
    assert summary["outcomes"]["unmatched"] > 0
    assert summary["failures"]["unreachable"] > 0
    assert sum(summary["outcomes"].values()) + sum(summary["failures"].values()) == 300
    assert any("cannot connect" in message for message in summary["messages"])


def test_a_stopped_service_is_reported_at_once(service: Service) -> None:
    service.stop()
    run = simulate(service)
    assert (run.returncode, run.stdout) == (Fault.UNREACHABLE.exit_status, "")
    assert f"{service.url}/callback: cannot connect" in run.stderr
    assert "That was the first callback; no other was sent." in run.stderr


def test_a_wrong_key_is_reported_after_one_callback(service: Service) -> None:
    run = simulate(service, CALLBACK_API_KEY="another-key")
    assert (run.returncode, run.stdout) == (Fault.WRONG_KEY.exit_status, "")
    assert "the key is refused" in run.stderr
    assert "another-key" not in run.stderr
    assert service.stop() == 0  # by then its last line is written
    assert len([line for line in service.lines if line.get("reason") == "wrong_key"]) == 1


def test_ctrl_c_sums_up_so_far(service: Service) -> None:
    process = start(service, "--rate", "50", "--duration", "1 h")
    eventually(lambda: len(callbacks(service)) > 10)  # by then it has the first one's answer
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT_SECONDS)
    printed.search({}, [output, errors])
    assert process.returncode == 130
    assert " callbacks in " in output
    assert "unmatched" in output
    assert "Traceback" not in errors


# --- What a person sees -------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_and_a_pipe_none(service: Service) -> None:
    import pty  # noqa: PLC0415 - not on Windows

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sam.callback", "simulate", "--url", service.url, "--count", "20"],
        cwd=service.directory,
        env=clean_environment(CALLBACK_API_KEY=KEY, TERM="xterm", COLUMNS="60"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    # Linux says EIO once the other end is closed.
    while part := _read_or_nothing(ours):
        seen += part
    output, _ = process.communicate(timeout=LIMIT_SECONDS)
    os.close(ours)
    printed.search({}, [seen.decode(), output.decode()])
    assert process.returncode == 0
    assert "100%" in seen.decode()
    assert "20 unmatched" in seen.decode()
    assert "100%" not in output.decode()

    piped = simulate(service, "--count", "20")
    assert "100%" not in piped.stdout + piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr


def _read_or_nothing(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bodies", "no-such-file"], "no-such-file cannot be read"),
        (["--deployments", "no-such-file"], "no-such-file cannot be read"),
        (["--bodies", "empty"], "--bodies empty is empty"),
        (["--deployments", "empty"], "--deployments empty is empty"),
        (["--bodies", "pretty"], "line 1 is not JSON"),
        (["--bodies", "pretty", "--deployments", "empty"], "give one"),
        (["--embedded"], "There is no var/sam.db here"),
        (["--duration", "soon"], "is no time"),
        (["--rate", "0"], "--rate"),
        (["--connections", "0"], "--connections"),
        (["--ca-file", "empty"], "--ca-file empty cannot be used"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_sent(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "pretty").write_text('{\n  "deploymentId": "d-1"\n}')
    run = run_to_its_end(tmp_path, {"CALLBACK_API_KEY": KEY}, "simulate", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr
    assert "Traceback" not in run.stderr


# --- What is sent, and how it is measured -------------------------------------------------------


def test_made_up_bodies_are_callbacks_of_every_kind() -> None:
    bodies = list(itertools.islice(made_up(["a", "b"], seed=1), 2_000))
    parsed = [CallbackPayload.model_validate_json(body) for body in bodies]
    assert [each.deploymentId for each in parsed[:4]] == ["a", "b", "a", "b"]
    assert {each.status for each in parsed} >= {"RUN_COMPLETED", "RUN_FAILED", "RUN_TIMED_OUT"}
    sizes = sorted(map(len, bodies))
    assert sizes[0] < 150
    assert 60_000 < sizes[-1] < 2**20
    new = [json.loads(each) for each in itertools.islice(made_up(None, seed=1), 100)]
    assert len({each["deploymentId"] for each in new}) == 100


TARGET = Target(httpx.URL("http://x/callback"), SecretStr(KEY), 60, ssl.create_default_context())


def scripted(respx_mock: respx.MockRouter, script: Iterable[float | int]) -> None:
    """Answer each callback after so many seconds, or with a status."""
    steps = iter(script)

    async def answer(_request: httpx.Request) -> httpx.Response:
        step = next(steps)
        if isinstance(step, int):
            return httpx.Response(step, json={"detail": "no"})
        await asyncio.sleep(step)
        taken = {"status": "ok", "outcome": "updated", "deploymentId": "d-1", "requestId": "r-1"}
        return httpx.Response(200, json=taken)

    respx_mock.post(str(TARGET.url)).mock(side_effect=answer)


async def test_at_a_rate_a_standstill_counts_for_all_that_were_due(
    respx_mock: respx.MockRouter,
) -> None:
    scripted(respx_mock, itertools.chain([0.0, 0.4], itertools.repeat(0.0)))
    tally = Tally()
    due_times = schedule(math.inf, 0.4, 500)
    await send_load(TARGET, itertools.repeat(b"{}"), due_times, tally, connections=1)
    # Measured from when it could be sent, one of 200 would be slow.
    latencies = tally.milliseconds()
    assert latencies is not None
    assert latencies["p50"] >= 190
    assert latencies["max"] >= 400
    assert tally.answered == tally.sent == 200


async def test_each_failure_is_counted_and_the_first_of_its_kind_is_kept(
    respx_mock: respx.MockRouter,
) -> None:
    scripted(respx_mock, [0.0, 503, 503, 413, 0.0])
    tally = Tally()
    due_times = schedule(5, math.inf, 1_000)
    await send_load(TARGET, itertools.repeat(b"{}"), due_times, tally, connections=1)
    assert tally.outcomes == {Outcome.UPDATED: 2}
    assert tally.faults == {Fault.UNAVAILABLE: 2, Fault.TOO_LARGE: 1}
    assert list(tally.examples) == [Fault.UNAVAILABLE, Fault.TOO_LARGE]
    assert len(tally.latencies) == 2


@pytest.mark.parametrize(
    ("latencies", "expected"),
    [
        ([], None),
        ([0.1], {"p50": 100, "p95": 100, "p99": 100, "max": 100}),
        (
            [number / 1_000 for number in range(1, 101)],
            {"p50": 50.5, "p95": 95.05, "p99": 99.01, "max": 100},
        ),
    ],
)
def test_percentiles(latencies: list[float], expected: dict[str, float] | None) -> None:
    assert Tally(latencies=latencies).milliseconds() == expected
