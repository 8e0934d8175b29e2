"""docs/benchmarks.md: written by a run, so that no figure in it was typed."""

from pathlib import Path

from tests.benchmarks.databases import DatabaseName
from tests.benchmarks.machine import Machine
from tests.benchmarks.report import plots, tables, text
from tests.benchmarks.results import Results, Spread
from tests.benchmarks.run import best_pool_size
from tests.benchmarks.subject import DESCRIPTIONS, Subject
from tests.benchmarks.targets import targets_of
from tests.benchmarks.turns import TURNS

_SUMMARY = """\
{met} of {measured} targets met, on the machine [below](#machine). What counts is how the
subjects compare: absolute figures are this machine's."""
_HOW = """\
Each subject is a process of its own under uvicorn with uvloop and httptools, and takes the same
callbacks, over a fresh database of {rows:,} robots, from [wrk](https://github.com/wg/wrk) on the
same machine. Each callback changes its row. All that write are equally durable: the answer comes
after a COMMIT that has waited for the disk.

| | subject |
|---|---|
{subjects}

The figures are medians of {rounds} rounds of {seconds:g} s. In each round every subject is started
anew, in another order; a ratio is taken within a round, and the median of the ratios is given with
the lowest and the highest. Where a figure is compared that other circumstances hardly change (the
server's CPU time against (a), the size of the table, the spool), the servers run side by side, each
under load for a second in turn, so that what the machine does meanwhile meets all of them: {pairs}
such turns. wrk makes up for what it did not send while it waited ("coordinated omission"), for all
alike. "Server CPU" is user and system time of the server's processes over answers; memory is the
most that was resident. A latency that fewer than two answers a connection were measured for is left
out. In the tables, "open" is the number of connections, "CPU" that of the server per answer, "MB"
its memory.

Repeat it with `make bench` (half an hour), or `make bench-quick` (a minute, less of it);
`uv run --group bench -m tests.benchmarks run --help` tells what can be chosen. The figures behind
this page are in [results.json](benchmarks/results.json).
"""


def write(results: Results, docs: Path) -> Path:
    """Write the page, its plots and the figures behind it.

    Args:
        results: A run.
        docs: The directory of the documentation.
    """
    assets = docs / "benchmarks"
    drawn = plots.draw_all(results, assets)
    results.save(assets / "results.json")
    reached = targets_of(results)
    measured = [target for target in reached if target.is_met is not None]
    met = sum(target.is_met or False for target in measured)
    sections = [
        "# Benchmarks",
        "<!-- Written by `python -m tests.benchmarks`: change that, not this. -->",
        _SUMMARY.format(met=met, measured=len(measured)),
        *(f"![{caption}](benchmarks/{name})\n\n*{caption}*" for name, caption in drawn.items()),
        "## Targets",
        tables.targets(results).as_markdown(),
        "## Method",
        _how(results),
        "## Side by side",
        *(f"### {table.title}\n\n{table.as_markdown()}" for table in tables.comparisons(results)),
        "## Other conditions",
        *(f"### {table.title}\n\n{table.as_markdown()}" for table in tables.circumstances(results)),
    ]
    failed = tables.failures(results)
    if failed.rows:
        sections += [f"## {failed.title}", failed.as_markdown()]
    sections += ["## Machine", _machine(results.machine), _facts(results)]
    page = docs / "benchmarks.md"
    page.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")
    return page


def _how(results: Results) -> str:
    options = results.options
    subjects = "\n".join(
        f"| ({subject}) {DESCRIPTIONS[subject].name} | {DESCRIPTIONS[subject].text} |"
        for subject in Subject
        if subject in options.subjects
    )
    return _HOW.format(
        rows=options.rows,
        rounds=options.rounds,
        seconds=options.seconds,
        pairs=options.rounds * TURNS,
        subjects=subjects,
    ).rstrip()


def _machine(machine: Machine) -> str:
    versions = {**machine.libraries, **machine.packages}
    lines = {
        "measured": f"{machine.date}, commit {machine.commit}",
        "processor": f"{machine.cpu}, {machine.cores} cores",
        "memory": f"{machine.memory_gb:g} GiB",
        "system": f"{machine.system}, {machine.kernel}",
        "file system of the databases": machine.file_system,
        "Python": machine.python,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    return f"| | |\n|---|---|\n{rows}"


def _facts(results: Results) -> str:
    figures = [m.figures for m in results.measurements if m.figures]
    on_sqlite = [
        m.figures
        for m in results.measurements
        if m.figures and m.cell.database == DatabaseName.SQLITE
    ]
    facts = {
        **results.facts,
        "PostgreSQL's connection strings end with": f"`{results.options.postgresql_options}`",
        "4 KiB and an fsync, before each measurement": text.spread(
            Spread.of(each.disk_ms for each in figures), "ms"
        ),
        "what else ran, while SQLite was measured": text.spread(
            Spread.of(each.other_cores for each in on_sqlite), "cores"
        ),
        **{
            f"{name}: size of (b)'s pool": str(best_pool_size(results, DatabaseName(name)))
            for name in results.options.databases
        },
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
