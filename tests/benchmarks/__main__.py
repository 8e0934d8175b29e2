"""``python -m tests.benchmarks``: see ``--help``."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console

from tests.benchmarks import database_side
from tests.benchmarks.databases import POSTGRESQL_OPTIONS, DatabaseName, Databases
from tests.benchmarks.machine import this_machine
from tests.benchmarks.parts import compare, cpu, memory, outage, pool, rows, shared_inbox, spool
from tests.benchmarks.results import Options, Results
from tests.benchmarks.run import Run
from tests.benchmarks.subject import Subject

PARTS: Final = {
    module.PART: module.run
    for module in (pool, compare, cpu, outage, rows, spool, shared_inbox, memory)
}
CHECKOUT: Final = Path(__file__).parents[2]
RESULTS: Final = CHECKOUT / "var" / "benchmarks.json"
OPEN_FILES: Final = 8192
FILE_WIDTH: Final = 130

QUICK: Final = Options(
    subjects=[Subject.EMPTY, Subject.AIOODBC, Subject.SERVICE],
    databases=[DatabaseName.SQLITE],
    connections=[64],
    parts=[compare.PART],
    rounds=3,
    seconds=2,
    rows=1000,
    most_rows=1000,
    spooled=0,
    growth_callbacks=0,
    postgresql_options=POSTGRESQL_OPTIONS,
)
FULL: Final = Options(
    subjects=[*Subject],
    databases=[*DatabaseName],
    connections=[1, 64, 512],
    parts=[*PARTS],
    rounds=5,
    seconds=2,
    rows=1000,
    most_rows=10_000_000,
    spooled=1_000_000,
    growth_callbacks=1_000_000,
    postgresql_options=POSTGRESQL_OPTIONS,
)

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def run(  # noqa: PLR0913 - each is an option
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="(a), (b) and (d) on SQLite, under a minute.")
    ] = False,
    subjects: Annotated[str, typer.Option(help="Such as 'a,b,d'.")] = "",
    databases: Annotated[str, typer.Option(help=f"Of {', '.join(DatabaseName)}.")] = "",
    connections: Annotated[str, typer.Option(help="Such as '1,64,512'.")] = "",
    parts: Annotated[str, typer.Option(help=f"Of {', '.join(PARTS)}.")] = "",
    rounds: Annotated[int, typer.Option(help="How many.", min=0)] = 0,
    seconds: Annotated[int, typer.Option(help="Of each measurement; whole ones.", min=0)] = 0,
    robots: Annotated[int, typer.Option(help="Rows of the table, and deployments.", min=0)] = 0,
    most_rows: Annotated[int, typer.Option(help="The largest table.", min=0)] = 0,
    spooled: Annotated[int, typer.Option(help="Entries of the full spool.", min=0)] = 0,
    growth_callbacks: Annotated[
        int, typer.Option(help="Callbacks over which memory is watched.", min=0)
    ] = 0,
    postgresql_options: Annotated[
        str, typer.Option(help="What PostgreSQL's connection strings end with.")
    ] = "",
    output: Annotated[Path, typer.Option(help="The file for what is measured.")] = RESULTS,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped, as it was set up.")
    ] = False,
    page: Annotated[
        bool, typer.Option(help="Whether to write docs/benchmarks.md in the end.")
    ] = False,
) -> None:
    """Measure, print tables, and keep all figures in a file. Without options: everything."""
    console = _console()
    _allow_open_files()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with what was started ended, too
    chosen = {
        "subjects": [Subject(name) for name in _list(subjects)],
        "databases": [DatabaseName(name) for name in _list(databases)],
        "connections": sorted(map(int, _list(connections))),
        "parts": _list(parts),
        "rounds": rounds,
        "seconds": seconds,
        "rows": robots,
        "most_rows": most_rows,
        "spooled": spooled,
        "growth_callbacks": growth_callbacks,
        "postgresql_options": postgresql_options,
    }
    options = (QUICK if quick else FULL).model_copy(
        update={name: value for name, value in chosen.items() if value}
    )
    results = _begin(output, options, resume=resume)
    options = results.options
    with Databases(options.postgresql_options) as made:
        run = Run(results, output, made, console)
        if not results.facts:
            names = [DatabaseName(name) for name in options.databases]
            results.facts = {**made.facts(names), "other load at the start": _load()}
            run.say(f"other load: {results.facts['other load at the start']}")
        for name, measure in PARTS.items():
            if name in options.parts:
                run.say(f"[bold]{name}[/]")
                measure(run)
    _report(results, console, page=page)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="What a run has kept.")] = RESULTS,
    *,
    page: Annotated[bool, typer.Option(help="Whether to write docs/benchmarks.md.")] = True,
) -> None:
    """Print the tables of a run again, and write the page anew."""
    _report(Results.load(results), _console(), page=page)


@app.command("database-side")
def measure_database_side(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 1.0,
) -> None:
    """Compare ways to execute a batch, without HTTP."""
    with Databases("") as databases:
        database_side.run(_console(), seconds, databases)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _begin(output: Path, options: Options, *, resume: bool) -> Results:
    results = Results(machine=this_machine(), options=options)
    if not resume:
        return results
    before = Results.load(output)
    if before.machine.commit != results.machine.commit:
        raise typer.BadParameter(
            f"{output} is of commit {before.machine.commit}, this is {results.machine.commit}: "
            "figures of two commits do not belong together"
        )
    return before


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH)


def _load() -> str:
    """Tell how busy the machine is while nothing is measured: figures mean little if it is."""
    return f"{psutil.cpu_percent(interval=1) / 100 * (psutil.cpu_count() or 1):.2f} cores"


def _allow_open_files() -> None:
    """Raise the limit for this process and those it starts: a connection is a file."""
    if hasattr(psutil, "RLIMIT_NOFILE"):
        _, most = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)
        psutil.Process().rlimit(psutil.RLIMIT_NOFILE, (min(OPEN_FILES, most), most))


def _report(results: Results, console: Console, *, page: bool) -> None:
    # Here, as matplotlib is in the dependency group "bench" alone.
    from tests.benchmarks.report import tables  # noqa: PLC0415

    tables.print_all(results, console)
    if page:
        from tests.benchmarks.report.page import write  # noqa: PLC0415

        console.print(f"written: {write(results, CHECKOUT / 'docs')}")


if __name__ == "__main__":
    app()
