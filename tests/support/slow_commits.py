"""Databases with a costly COMMIT: a synchronous replica, a trigger, a slow disk."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.databases import Database, PostgresDatabase, SqliteDatabase


@contextmanager
def slow_commits(database: Database, pid: int, seconds: float) -> Iterator[None]:
    """Let each COMMIT of a process, the service, take longer by so many seconds."""
    if isinstance(database, PostgresDatabase):
        make_commits_slow(database, seconds=seconds)
        yield
        return
    assert isinstance(database, SqliteDatabase)
    with slow_fsync(pid, Path(f"{database.path}-wal"), seconds):
        yield


def make_commits_slow(
    database: PostgresDatabase, *, seconds: float = 0.0, per_row: float = 0.0
) -> None:
    """Let each COMMIT take so long, and longer for each row; to be called again for other times.

    Args:
        database: Whose table `robots` gets a trigger.
        seconds: What a COMMIT takes, however many rows it has.
        per_row: What each of its rows takes beside.
    """
    if not database.execute("SELECT 1 FROM pg_trigger WHERE tgname = 'slow_commit'"):
        database.execute("CREATE TABLE cost AS SELECT 0::float8 AS fixed, 0::float8 AS per_row")
        database.execute(
            """
            CREATE FUNCTION sleep_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE is_first boolean := coalesce(current_setting('sam.slept', true), '') = '';
            BEGIN
                PERFORM set_config('sam.slept', 'yes', true);
                PERFORM pg_sleep(per_row + CASE WHEN is_first THEN fixed ELSE 0 END) FROM cost;
                RETURN NULL;
            END $$
            """
        )
        database.execute(
            "CREATE CONSTRAINT TRIGGER slow_commit AFTER UPDATE ON robots"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep_at_commit()"
        )
    database.execute("UPDATE cost SET fixed = ?, per_row = ?", seconds, per_row)


@contextmanager
def slow_fsync(pid: int, file: Path, seconds: float) -> Iterator[None]:
    """Let each fsync of a file by a process take longer by so many seconds."""
    strace = shutil.which("strace")
    assert strace, "this test needs strace: `make setup`"
    calls = "fsync,fdatasync"
    tracer = subprocess.Popen(
        [
            *[strace, "-f", "-p", str(pid), "-P", str(file), "-o", "/dev/null"],
            *["-e", f"trace={calls}"],
            *["-e", f"inject={calls}:delay_enter={round(seconds * 1e6)}"],
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=60)
