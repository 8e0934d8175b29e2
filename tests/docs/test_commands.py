"""Each command in the documentation is run by a test, or marked there as an example.

An example has a line above it, `<!-- example: why it is not run -->`. The Spanish pages have the
English ones' commands.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support import markdown
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import SqliteDatabase
from tests.support.reader import LOG, Reader, after_make_run
from tests.support.service import KEY, Service

pytestmark = pytest.mark.server

RUN_ELSEWHERE: Final = {
    "docs/how-to/point-a360-at-it.md": "tests/docs/test_point_a360_at_it.py",
    "docs/how-to/trial.md": "tests/docs/test_trial.py",
    "README.md": "tests/docs/test_tutorial.py",
    "docs/logs.md": "tests/docs/test_log_reference.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
}
RUN_HERE: Final = {
    "docs/how-to/rotate-keys.md",
    "docs/metrics.md",
    "docs/rehearsal.md",
    "docs/reliability.md",
    "docs/runbook.md",
}


def test_every_command_is_run_or_marked_as_an_example() -> None:
    pages = [str(page.relative_to(markdown.ROOT)) for page in markdown.pages()]
    with_commands = {page for page in pages if markdown.commands(page)}
    spanish = {page for page in with_commands if page.endswith(".es.md")}
    assert {page.replace(".es.md", ".md") for page in spanish} <= with_commands
    assert with_commands - spanish == RUN_HERE | RUN_ELSEWHERE.keys()
    for page, test in RUN_ELSEWHERE.items():
        text = markdown.ROOT.joinpath(test).read_text(encoding="utf-8")
        assert Path(page).name in text or "log_lines.examples" in text


def reader_of(service: Service, database: SqliteDatabase, directory: Path) -> Reader:
    """A reader on the machine of a service, with its variables."""
    return Reader(
        directory,
        service.port,
        CALLBACK_API_KEY=KEY,
        COLUMNS="160",
        KEY=KEY,
        SQL_SAM_CONNECTION_STRING=database.connection_string,
    )


def test_metrics(service: Service, sqlite_database: SqliteDatabase, tmp_path: Path) -> None:
    [scrape] = markdown.commands("docs/metrics.md")
    reader = reader_of(service, sqlite_database, tmp_path)
    assert "\nsam_callback_callbacks_total" in reader.types(scrape)


def test_commands_of_the_runbook(
    service: Service, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    [commands] = markdown.commands("docs/runbook.md")
    service.post(body("d-unknown"))
    ready, scrape, spool_list = commands.replace("HOST", "127.0.0.1").splitlines()
    reader = reader_of(service, sqlite_database, tmp_path)
    assert json.loads(reader.types(ready))["spool"]["unmatched"] == 1
    assert "\nsam_callback_callbacks_total" in reader.types(scrape)
    assert "d-unknown" in reader.types(spool_list)


def test_senders_that_use_the_previous_key(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    [who] = markdown.commands("docs/how-to/rotate-keys.md")
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_API_KEY_PREVIOUS="the-old-key",
    )
    service.post(body("d-1"))
    old = {"X-API-KEY": "the-old-key"}
    httpx.post(service.url + "/callback", content=body("d-2"), headers=old)
    reader = reader_of(service, sqlite_database, tmp_path)
    assert service.stop() == 0
    (tmp_path / "sam-callback.log").write_text("".join(service.output), encoding="utf-8")

    [line] = reader.types(who).splitlines()
    assert line.split()[1:] == ["127.0.0.1", "d-2"]


def test_the_spool_by_hand(
    service: Service, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    [commands] = markdown.commands("docs/reliability.md")
    spool_list, show, retry, by_hand, export, drop, drain = commands.splitlines()
    reader = reader_of(service, sqlite_database, tmp_path)
    service.post(body("d-unknown", "LATE"))
    [number] = re.findall(r"\d{19}", reader.types(spool_list))

    assert "LATE" in reader.types(show.replace("NUMBER", number))
    reader.types(retry.replace("NUMBER", number))
    reader.types(export.replace("FILE", "entries.jsonl"))
    [exported] = (tmp_path / "entries.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(exported)["status"] == "LATE"
    with pytest.raises(subprocess.CalledProcessError):
        reader.types(drop.replace("NUMBER", number), answer="n\n")
    reader.types(drop.replace("NUMBER", number), answer="y\n")
    assert "d-unknown" not in reader.types(spool_list)

    assert service.post(body("d-1", "FAILED")[:-5]).status_code == 422
    [number] = re.findall(r"\d{19}", reader.types(spool_list))
    by_hand = by_hand.partition("#")[0].replace("NUMBER", number)
    reader.types(by_hand.replace("ID", "d-1").replace("STATUS", "FAILED"))
    eventually(lambda: sqlite_database.statuses()["d-1"] == "FAILED")

    sqlite_database.execute("ALTER TABLE robots RENAME TO away")
    assert service.post(body("d-1", "LAST")).json()["outcome"] == "queued"
    assert service.stop() == 0
    sqlite_database.execute("ALTER TABLE away RENAME TO robots")
    reader.types(drain.replace("FILE", "var/callback-spool.db"))
    assert sqlite_database.statuses()["d-1"] == "LAST"


QUEUED = '"outcome":"queued"'
ANSWERED = '"event":"callback"'


def test_a_rehearsal(tmp_path: Path) -> None:
    simulate, lock = markdown.commands("docs/rehearsal.md")
    # The lock is held until callbacks are queued, however long that takes to come.
    hold = lock.replace(
        "time.sleep(10)",
        f"""
while 'outcome\\":\\"queued' not in open('{LOG}').read(): time.sleep(0.02)""",
    )
    assert hold != lock

    with (
        after_make_run(tmp_path, CALLBACK_DB_TIMEOUT="0.5") as reader,
        reader.begins(simulate.replace("30 s", "1 h")) as rehearsal,
    ):
        log = tmp_path / LOG
        eventually(lambda: '"outcome":"updated"' in log.read_text(encoding="utf-8"))
        reader.types(hold)
        # Of a hundred that come later some were sent after the answer to the first queued one.
        eventually(
            lambda: log.read_text(encoding="utf-8").partition(QUEUED)[2].count(ANSWERED) > 100
        )
        reader.press_ctrl_c(rehearsal)
        summary, _ = rehearsal.communicate(timeout=LIMIT_SECONDS)
        assert "updated" in summary
        assert "queued" in summary
        eventually(lambda: "0 queued" in reader.types(".venv/bin/sam-callback spool list"))
