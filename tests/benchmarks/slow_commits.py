"""The share of callbacks that a database with a slow COMMIT takes, and how long they wait.

``python -m tests.benchmarks.slow_commits`` sends callbacks at a rate, each for a robot of its own.
What is not `updated` is in the spool. PostgreSQL's COMMIT is made slow by a trigger that sleeps,
SQLite's by its fsync, which strace (which must be installed) delays.
"""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tests.benchmarks.databases import LOCK_WAIT_MS
from tests.benchmarks.server import KEY, Server, running
from tests.benchmarks.subject import Subject
from tests.support.databases import PostgresServer, SqliteDatabase
from tests.support.service import clean_environment
from tests.support.slow_commits import slow_commits

CONNECTIONS: Final = 500
COMMITS: Final = (0.05, 0.3, 0.6, 1.0)


def main(
    *,
    commit: Annotated[
        list[float] | None,
        typer.Option(help="Seconds that a COMMIT takes longer; may be repeated."),
    ] = None,
    rate: Annotated[int, typer.Option(help="Callbacks a second.")] = 60,
    duration: Annotated[int, typer.Option(help="For so many seconds.")] = 12,
    time_limit: Annotated[str, typer.Option(help="CALLBACK_DB_TIMEOUT.")] = "4",
) -> None:
    """Measure with each COMMIT on each database."""
    typer.echo("database    COMMIT  updated     median   COMMITs")
    robots = [f"r-{number}" for number in range(rate * duration)]
    options = ("--rate", str(rate), "--duration", str(duration))
    with ExitStack() as stack:
        server = PostgresServer(durable=True)
        stack.callback(server.destroy)
        for seconds in commit or COMMITS:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            file = SqliteDatabase(directory / "sam.db")
            database = server.create_database()
            for name, each, connection_string in (
                ("sqlite", file, file.waiting_for_locks(LOCK_WAIT_MS)),
                ("postgresql", database, database.connection_string),
            ):
                each.add_robots(robots)
                environment = {
                    "SQL_SAM_CONNECTION_STRING": connection_string,
                    "CALLBACK_DB_TIMEOUT": time_limit,
                    "CALLBACK_SPOOL_PATH": str(directory / f"{name}.spool.db"),
                }
                with (
                    running(Subject.SERVICE, environment, directory) as service,
                    slow_commits(each, service.pid, seconds),
                ):
                    summary = _simulate(service, robots, directory, options)
                updated = summary["outcomes"].get("updated", 0) / len(robots)
                median = summary["latencyMs"]["p50"]
                typer.echo(
                    f"{name:<11}{seconds:>5g} s {updated:>8.1%} {median:>7.0f} ms"
                    f" {median / 1000 / seconds:>9.2f}",
                )


def _simulate(
    server: Server, robots: list[str], directory: Path, options: tuple[str, ...]
) -> dict[str, Any]:
    (directory / "robots.txt").write_text("\n".join(robots))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "sam.callback", "simulate", "--json"),
            *("--url", f"http://127.0.0.1:{server.port}", "--connections", str(CONNECTIONS)),
            *("--deployments", "robots.txt", *options),
        ],
        cwd=directory,
        env=clean_environment(CALLBACK_API_KEY=KEY, PYTHONPATH=str(Path(__file__).parents[2])),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    summary: dict[str, Any] = json.loads(run.stdout)
    return summary


if __name__ == "__main__":
    typer.run(main)
