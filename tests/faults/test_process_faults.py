"""Process faults at any moment: each acknowledged callback is in a table or the spool."""

import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import Load, Sent, losses, spooled
from tests.support.prometheus import scrape
from tests.support.service import KEY, Service

pytestmark = pytest.mark.faults

DEPLOYMENTS = [f"d-{number}" for number in range(1, 41)]
KILLS = 25


@contextmanager
def going_up_and_down(database: SqliteDatabase) -> Iterator[None]:
    """The table is renamed away and back, at random, until the end; then it is there."""
    is_ending = threading.Event()

    def go() -> None:
        while not is_ending.wait(random.uniform(0.05, 0.4)):  # noqa: S311 - not a secret
            database.execute("ALTER TABLE robots RENAME TO away")
            is_ending.wait(random.uniform(0.05, 0.4))  # noqa: S311
            database.execute("ALTER TABLE away RENAME TO robots")

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        is_ending.set()
        thread.join()


@pytest.mark.parametrize("half", ["first 25", "second 25"])  # 50 in all, on two workers
def test_killed_at_50_random_moments_with_the_database_going_up_and_down(
    half: str, tmp_path: Path, sqlite_database: SqliteDatabase
) -> None:
    assert half
    sqlite_database.add_robots(DEPLOYMENTS[1:])
    spool = tmp_path / "var/callback-spool.db"
    environment = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    everything: list[Sent] = []
    with going_up_and_down(sqlite_database):
        for _ in range(KILLS):
            service = Service(tmp_path, environment, fresh=True)
            with Load(service.url, DEPLOYMENTS, connections=64) as load:
                load.wait_for(1)
                time.sleep(random.uniform(0.0, 0.6))  # noqa: S311 - the random moment itself
                service.kill()
            everything += load.all
            assert not load.refused
    answered = [sent for sent in everything if sent.outcome]
    assert len(answered) >= KILLS
    assert {sent.outcome for sent in answered} - {"superseded"} == {"updated", "queued"}
    assert losses(answered, everything, sqlite_database.statuses(), spool) == []

    service = Service(tmp_path, environment, fresh=True)  # and then all of it is applied
    eventually(lambda: spooled(spool) == {})
    assert losses(answered, everything, sqlite_database.statuses(), spool) == []
    assert service.stop() == 0


def test_told_to_end_at_random_moments(tmp_path: Path, sqlite_database: SqliteDatabase) -> None:
    sqlite_database.add_robots(DEPLOYMENTS[1:])
    spool = tmp_path / "var/callback-spool.db"
    environment = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    everything: list[Sent] = []
    with going_up_and_down(sqlite_database):
        for _ in range(10):
            service = Service(tmp_path, environment, fresh=True)
            with Load(service.url, DEPLOYMENTS, connections=32) as load:
                load.wait_for(random.randint(1, 300))  # noqa: S311 - not a secret
                assert service.stop(random.choice([signal.SIGTERM, signal.SIGINT])) == 0  # noqa: S311
            everything += load.all
            assert not load.refused
    answered = [sent for sent in everything if sent.outcome]
    assert losses(answered, everything, sqlite_database.statuses(), spool) == []


@pytest.mark.parametrize("is_database_up", [True, False])
def test_the_fsync_comes_before_the_answer(
    *,
    is_database_up: bool,
    service: Service,
    sqlite_database: SqliteDatabase,
    tmp_path: Path,
) -> None:
    service.post(body("d-1", "WARM-UP"))
    if not is_database_up:
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        assert service.post(body("d-1", "DOWN")).json()["outcome"] == "queued"
    trace = tmp_path / "trace"
    strace = shutil.which("strace")
    assert strace, "this test needs strace: `make setup`"
    tracer = subprocess.Popen(
        [
            *[strace, "-f", "-y", "-s", "400", "-o", str(trace), "-p", str(service.pid)],
            *["-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg,pwrite64"],
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    answer = service.post(body("d-1", "TRACED"))
    tracer.send_signal(signal.SIGINT)
    tracer.communicate(timeout=LIMIT_SECONDS)

    assert answer.json()["outcome"] == ("updated" if is_database_up else "queued")
    log = "sam.db-wal" if is_database_up else "callback-spool.db-wal"
    calls = trace.read_text(errors="replace").splitlines()
    written = [i for i, call in enumerate(calls) if "pwrite64" in call and log in call]
    synced = [i for i, call in enumerate(calls) if re.search(rf"f(data)?sync\(.*{log}", call)]
    sent = [i for i, call in enumerate(calls) if "HTTP/1.1 200" in call]
    assert written
    assert synced
    assert len(sent) == 1
    assert written[0] < synced[-1] < sent[0]


def replays_without_a_row(service: Service) -> float:
    return scrape(service).value("replay_attempts_total", result="unmatched")


def test_the_clock_set_back_and_forward(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    clock = tmp_path / "clock"
    environment = {
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
        "SQL_SAM_FINISHED_COLUMN": "finished",
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    clock.write_text("+0")
    service = start_service(**environment)
    service.wait_for_event("database_up")
    statuses = iter(f"S{number}" for number in range(100))

    def check() -> None:
        status = next(statuses)
        service.post(body("d-1", status))
        eventually(lambda: sqlite_database.statuses()["d-1"] == status)

    for offset in ("+0", "-1d", "+2d", "-3d", "+0"):
        clock.write_text(offset)
        check()
        sqlite_database.execute("ALTER TABLE robots RENAME TO away")
        service.post(body("d-1", next(statuses)))
        clock.write_text("-5d")
        last = next(statuses)
        assert service.post(body("d-1", last)).json()["outcome"] == "queued"
        sqlite_database.execute("ALTER TABLE away RENAME TO robots")
        eventually(lambda: sqlite_database.statuses()["d-1"] == last)  # noqa: B023 - waited for here
        check()
    service.post(body("early"))
    clock.write_text("+9d")  # an unmatched entry does not expire for that
    before = replays_without_a_row(service)
    eventually(lambda: replays_without_a_row(service) > before + 1)
    assert spooled(service.directory / "var/callback-spool.db")["early"][0] == "unmatched"
    sqlite_database.add_robots(["early"])
    eventually(lambda: sqlite_database.statuses()["early"] == "RUN_COMPLETED")

    assert service.stop() == 0  # and a restart, with the clock back
    clock.write_text("-1d")
    service = start_service(**environment)
    check()


def test_100_000_spooled_callbacks_drain_while_new_ones_are_answered(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    waiting = [f"w-{number}" for number in range(100_000)]
    sqlite_database.add_robots(waiting)
    sqlite_database.add_robots(DEPLOYMENTS[1:])
    environment = {"SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string}
    service = start_service(**environment)
    assert service.stop() == 0
    spool = service.directory / "var/callback-spool.db"
    now = time.time_ns()
    with closing(sqlite3.connect(spool)) as connection, connection:
        connection.executemany(
            "INSERT INTO entries (number, kind, key, status, reason, size)"
            " VALUES (?, 'queued', ?, 'DRAINED', 'test', 100)",
            [(now + number, name) for number, name in enumerate(waiting)],
        )
    service = start_service(**environment)
    with Load(service.url, DEPLOYMENTS, connections=16, pause=0.01) as load:
        load.wait_for(300)
        listed = subprocess.run(
            [sys.executable, "-m", "sam.callback", "spool", "list", "--limit", "3"],
            cwd=service.directory,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "queued" in listed.stdout
        while waiting_in(spool):  # it takes as long as it takes
            load.wait_for(10)
    assert not load.refused
    assert losses(load.answered, load.all, sqlite_database.statuses(), spool) == []
    statuses = sqlite_database.statuses()
    assert {statuses[name] for name in waiting} == {"DRAINED"}


def waiting_in(spool: Path) -> bool:
    """Whether one of the deployments still waits there."""
    with closing(sqlite3.connect(spool, timeout=LIMIT_SECONDS)) as connection:
        statement = "SELECT 1 FROM entries WHERE key LIKE 'w-%' LIMIT 1"
        return connection.execute(statement).fetchone() is not None
