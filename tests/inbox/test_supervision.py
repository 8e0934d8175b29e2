"""An exception in a background task is logged and counted, and ends neither a loop nor a timer."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sam.callback.log_throttle import LogThrottle
from sam.callback.metrics import BackgroundTask, Metrics
from sam.callback.tasks import Supervisor
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase
from tests.support.prometheus import scrape
from tests.support.raw import Wire
from tests.support.service import Service

FAIL_AT_FIRST = """
from sam.callback.inbox import database_writer, replayer
from sam.callback.server import connections, listener, protocol

def fail_at_first(owner, name, times=1):
    works = getattr(owner, name)
    calls = []
    def fail(*arguments, **options):
        calls.append(name)
        if len(calls) <= times:
            raise ZeroDivisionError("at first")
        return works(*arguments, **options)
    setattr(owner, name, fail)

"""

StartWith = Callable[[str], Service]


@pytest.fixture
def start_with(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> StartWith:
    """Starts the service with a mistake in it: what is named fails the first time."""

    def start(mistake: str) -> Service:
        tmp_path.joinpath("sitecustomize.py").write_text(FAIL_AT_FIRST + mistake, encoding="utf-8")
        return start_service(
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
            PYTHONPATH=str(tmp_path),
            CALLBACK_HEADER_TIMEOUT="0.3",
        )

    return start


def assert_one_failure_is_told(service: Service, task: BackgroundTask) -> None:
    line = service.wait_for_event("task_failed")
    assert (line["level"], line["task"]) == ("error", task)
    assert "ZeroDivisionError: at first" in line["exception"]
    assert scrape(service).value("task_failures_total", task=task) == 1
    assert scrape(service).value("task_failures_total") == 1


def wait_until_silence_is_cut_off(service: Service) -> None:
    with Wire(service) as wire:
        assert wire.rest() == b""


def test_one_connection_that_cannot_expire_is_closed_and_others_still_expire(
    start_with: StartWith,
) -> None:
    service = start_with("fail_at_first(protocol.HttpProtocol, 'expire')")
    wait_until_silence_is_cut_off(service)
    assert_one_failure_is_told(service, BackgroundTask.DEADLINES)
    wait_until_silence_is_cut_off(service)
    eventually(
        lambda: (
            scrape(service).value("connections_cut_total", reason="nothing_sent") == 1
            and scrape(service).value("connections") == 1
        )
    )


def test_the_sweep_of_deadlines_begins_anew_when_it_fails(start_with: StartWith) -> None:
    service = start_with("fail_at_first(connections.Connections, 'sweep')")
    assert_one_failure_is_told(service, BackgroundTask.DEADLINES)
    wait_until_silence_is_cut_off(service)


def test_connections_that_cannot_be_taken_hold_up_no_other(start_with: StartWith) -> None:
    """A pause for each would be minutes."""
    service = start_with("fail_at_first(connections.Connections, 'add', times=100)")
    for _ in range(100):
        wait_until_silence_is_cut_off(service)
    assert service.post(body()).json()["outcome"] == "updated"
    assert scrape(service).value("task_failures_total", task=BackgroundTask.ACCEPT) == 100
    assert service.stop() == 0
    failures = [line for line in service.lines if line["event"] == "task_failed"]
    assert {line["task"] for line in failures} == {BackgroundTask.ACCEPT}
    assert 10 <= len(failures) <= 20  # of those of a minute


def test_accepting_begins_anew_when_it_fails(start_with: StartWith) -> None:
    service = start_with("fail_at_first(listener.Listener, '_accept')")
    assert service.post(body()).json()["outcome"] == "updated"
    assert_one_failure_is_told(service, BackgroundTask.ACCEPT)


async def _return() -> None:
    """Return, which a background task should not."""


async def _be_cancelled_by_what_it_waits_for() -> None:
    waited_for = asyncio.get_running_loop().create_future()
    waited_for.cancel()
    await waited_for


async def _fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("work", [_return, _be_cancelled_by_what_it_waits_for, _fail])
async def test_however_a_task_ends_it_runs_again_until_it_is_cancelled(
    work: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam.callback.tasks.RESTART_SECONDS", 0)
    metrics, throttle = Metrics(), LogThrottle()
    runs = 0
    has_run_twice = asyncio.Event()

    async def run_once_more() -> None:
        nonlocal runs
        runs += 1
        if runs > 2:
            has_run_twice.set()
            await asyncio.Event().wait()
        await work()  # type: ignore[misc]  # each is a coroutine function

    task = asyncio.create_task(
        Supervisor(metrics, throttle).run(BackgroundTask.ACCEPT, run_once_more)
    )
    await has_run_twice.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    failures = metrics.registry.get_sample_value(
        "sam_callback_task_failures_total", {"task": "accept"}
    )
    assert failures == 2
    throttle.sum_up()


def test_an_error_in_a_replay_ends_no_replay_of_others(start_with: StartWith) -> None:
    service = start_with("fail_at_first(replayer.Replayer, 'step')")
    assert_one_failure_is_told(service, BackgroundTask.REPLAY)
    assert service.post(body("d-9")).json()["outcome"] == "unmatched"
    eventually(lambda: scrape(service).value("replay_attempts_total", result="unmatched") > 0)


def test_an_error_in_a_batch_costs_none_of_its_callbacks_and_no_later_batch(
    start_with: StartWith, sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.add_robots(["d-2"])
    service = start_with("fail_at_first(database_writer.DatabaseWriter, 'write')")
    assert service.post(body("d-1")).json()["outcome"] == "queued"
    assert "ZeroDivisionError: at first" in service.wait_for_event("write_failed")["exception"]
    assert service.post(body("d-2")).json()["outcome"] == "updated"
    eventually(lambda: sqlite_database.statuses()["d-1"] == "RUN_COMPLETED")
