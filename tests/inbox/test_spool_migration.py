"""Rule 8: the spool's file has a version. An older one is migrated, a newer one refused."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.ownership import open_beside
from sam.callback.inbox.sqlite.schema import VERSION, SpoolVersionError
from sam.callback.inbox.store import Entry, Kind
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase
from tests.support.load import spooled
from tests.support.service import KEY, Service, run_to_its_end

MIB = 2**20

OF_0_1_0: Final = """
CREATE TABLE IF NOT EXISTS entries (
    number        INTEGER PRIMARY KEY,
    kind          TEXT NOT NULL,
    deployment_id TEXT UNIQUE,
    status        TEXT,
    payload       BLOB,
    reason        TEXT NOT NULL,
    size          INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_kind ON entries (kind, number);
CREATE TABLE IF NOT EXISTS totals (
    kind    TEXT PRIMARY KEY,
    entries INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS last_number (number INTEGER NOT NULL);
INSERT INTO last_number SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM last_number);
CREATE TRIGGER IF NOT EXISTS count_insert AFTER INSERT ON entries BEGIN
    INSERT INTO totals VALUES (NEW.kind, 1, NEW.size)
        ON CONFLICT (kind) DO UPDATE SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER IF NOT EXISTS count_delete AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size WHERE kind = OLD.kind;
END;
CREATE TRIGGER IF NOT EXISTS count_update AFTER UPDATE OF kind, size ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size WHERE kind = OLD.kind;
    INSERT INTO totals VALUES (NEW.kind, 1, NEW.size)
        ON CONFLICT (kind) DO UPDATE SET entries = entries + 1, bytes = bytes + NEW.size;
END;
"""
"""The statements of 0.1.0 when it opened a file, before there were versions."""

ROWS: Final = [
    (1, "queued", "d-1", "DONE", b'{"a": "\xc3\xb1"}', "The database is down.", 200),
    (2, "unmatched", "d-2", "FAILED", None, "No row has this deployment yet.", 190),
    (3, "dead_letter", "d-3", "BAD", None, "too long", 180),
    (4, "invalid", None, None, b"\xff\x00", "Invalid JSON", 170),
]
LAST_NUMBER: Final = 2**62
ENTRIES: Final = [
    Entry(number, Kind(kind), deployment_id, status, payload, reason)
    for number, kind, deployment_id, status, payload, reason, _ in ROWS
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 0.1.0, in WAL mode, with an entry of each kind."""
    path = tmp_path / "var/callback-spool.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN IMMEDIATE; {OF_0_1_0} COMMIT;")
        with connection:
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", ROWS)
            connection.execute("UPDATE last_number SET number = ?", (LAST_NUMBER,))
    return path


@contextmanager
def opened(path: Path, max_bytes: int = 16 * MIB) -> Iterator[SpoolFile]:
    with closing(SpoolFile(path, max_bytes)) as file:
        yield file


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def make_newer(path: Path) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def test_a_file_of_0_1_0_keeps_its_entries(path: Path) -> None:
    assert version_of(path) == 0
    for _ in range(2):  # it is migrated once
        with opened(path) as file:
            assert file.page(list(Kind), after=0, limit=10) == ENTRIES
            assert {
                kind: (total.entries, total.bytes) for kind, total in file.totals().items()
            } == {
                Kind.QUEUED: (1, 200),
                Kind.UNMATCHED: (1, 190),
                Kind.DEAD_LETTER: (1, 180),
                Kind.INVALID: (1, 170),
            }
            assert file.last_number() == LAST_NUMBER
            assert file.due(10).entries == ENTRIES[:2]
    assert version_of(path) == VERSION


def test_a_migrated_file_works_like_a_new_one(path: Path, tmp_path: Path) -> None:
    with opened(path) as migrated, opened(tmp_path / "new.db") as new:
        new.put(ENTRIES, LAST_NUMBER)
        for file in (migrated, new):
            newer = Entry(9, Kind.UNMATCHED, "d-2", "NEWER", attempts=1)
            file.put([newer], 9)
            first, _, dead, _ = ENTRIES
            file.settle([first], [(dead, Kind.QUEUED, "By hand.")], [(newer, 3)])
            file.rekey("upper", str.upper)
            assert file.with_entries(["d-2", "D-2", "D-1"]) == {"D-2"}
        for kinds in ([Kind.UNMATCHED], list(Kind)):
            assert migrated.page(kinds, after=0, limit=9) == new.page(kinds, after=0, limit=9)


def test_a_full_file_is_migrated_too(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO entries VALUES (?, 'queued', ?, 'DONE', zeroblob(900), '', 1000)",
            [(number, f"d-{number}") for number in range(10, 1_000)],
        )
    full = path.stat().st_size
    with opened(path, max_bytes=full) as file:
        assert len(file.due(2_000).entries) == 992


def test_an_interrupted_migration_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam.callback.inbox.sqlite import schema as spool_schema  # noqa: PLC0415 - whose statements are changed

    broken = ((*spool_schema._MIGRATIONS[0], "no statement"),)  # noqa: SLF001
    with monkeypatch.context() as patched:
        patched.setattr(spool_schema, "_MIGRATIONS", broken)
        with pytest.raises(sqlite3.OperationalError):
            SpoolFile(path, 16 * MIB)
    assert version_of(path) == 0
    with opened(path) as file:
        assert file.page(list(Kind), after=0, limit=10) == ENTRIES


def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    make_newer(path)
    before = path.read_bytes()
    for open_it in (SpoolFile, open_beside):
        with pytest.raises(SpoolVersionError, match=r"newer release.*Run that release, or let"):
            open_it(path, 16 * MIB)
    assert path.read_bytes() == before


def test_without_its_spool_the_service_serves_a_healthy_database(
    path: Path, start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    make_newer(path)
    service = start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    assert "newer release" in service.wait_for_event("spool_unavailable")["reason"]
    assert service.post(body("d-1", "DONE")).json()["outcome"] == "updated"
    assert service.ready().json()["status"] == "degraded"
    assert service.stop() == 0
    assert [file.name for file in path.parent.iterdir() if "corrupt" in file.name] == []
    assert version_of(path) == VERSION + 1


def test_the_commands_say_what_to_do_about_a_newer_file(
    path: Path, sqlite_database: SqliteDatabase
) -> None:
    make_newer(path)
    environment = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    for arguments in (("spool", "list"), ("spool", "drain"), ("check",)):
        run = run_to_its_end(path.parents[1], environment, *arguments)
        assert run.returncode == 1
        said = " ".join((run.stdout + run.stderr).split())
        assert "A newer release of this service made the spool" in said
        assert "Traceback" not in said


def test_the_service_applies_entries_of_an_older_release(
    path: Path, start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.add_robots(["d-2"])
    start_service(SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string)
    eventually(lambda: spooled(path).keys() == {"d-3"})
    assert sqlite_database.statuses() == {"d-1": "DONE", "d-2": "FAILED"}


def test_the_commands_migrate_a_file_without_an_owner(path: Path) -> None:
    run = run_to_its_end(path.parents[1], {}, "spool", "list", "--json")
    assert (run.returncode, len(run.stdout.splitlines())) == (0, 4)
    assert version_of(path) == VERSION


def test_beside_a_service_of_an_older_release_nothing_is_migrated(
    path: Path, sqlite_database: SqliteDatabase
) -> None:
    environment = {
        "CALLBACK_API_KEY": KEY,
        "SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string,
    }
    with FileLock(f"{path}.lock"):
        listed = run_to_its_end(path.parents[1], environment, "spool", "list")
        checked = run_to_its_end(path.parents[1], environment, "check")
    assert listed.returncode == 1
    assert "must be ended first" in listed.stderr
    assert "An older release" in checked.stdout
    assert version_of(path) == 0
