"""The plots of the page, as SVG: this service in colour, the others in grey."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tests.benchmarks.databases import TITLES, DatabaseName
from tests.benchmarks.parts import outage, rows, spool
from tests.benchmarks.report import text
from tests.benchmarks.results import Figures, Results, has_enough_answers, median
from tests.benchmarks.subject import DESCRIPTIONS, Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

CONNECTIONS: Final = 64

_OURS, _OTHERS, _PALE = "#0b6bcb", "#8a949e", "#c9ced4"
_STYLE: Final[dict["RcKeyType", Any]] = {
    "svg.fonttype": "none",  # letters stay letters: small, and a reader can search them
    "svg.hashsalt": "sam-callback",  # the same figures make the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def draw_all(results: Results, directory: Path) -> dict[str, str]:
    """Draw what there are figures for; return the files' names and what they show."""
    plots: dict[str, tuple[str, Callable[[Results], Figure | None]]] = {
        "throughput.svg": (
            f"Answers per second at {CONNECTIONS} connections: more is better.",
            _throughput,
        ),
        "cpu.svg": (
            (
                f"Server CPU per answer, µs, at {CONNECTIONS} connections: less is better. "
                "SQLite works in the server's process and is in it; PostgreSQL is not."
            ),
            _cpu,
        ),
        "latency.svg": (
            (
                "Latency: the dot is the median, the line ends at the 99th percentile. "
                "Logarithmic; further left is better."
            ),
            _latency,
        ),
        "circumstances.svg": (
            "This service's latency in other circumstances, drawn in the same way.",
            _circumstances,
        ),
        "memory.svg": ("This service's memory while callbacks come in.", _memory),
    }
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with mpl.rc_context(_STYLE):
        for name, (caption, draw) in plots.items():
            if figure := draw(results):
                figure.savefig(directory / name, format="svg", metadata={"Date": None})
                drawn[name] = caption
    return drawn


def _name(subject: Subject) -> str:
    description = DESCRIPTIONS[subject]
    return f"({subject}) {description.name}{'' if description.writes else ', no database'}"


def _compared(results: Results, database: DatabaseName) -> dict[Subject, dict[int, Figures]]:
    found = {
        subject: results.rounds("compare", database, subject, CONNECTIONS) for subject in Subject
    }
    return {subject: rounds for subject, rounds in found.items() if rounds}


def _databases(results: Results) -> list[DatabaseName]:
    return [name for name in DatabaseName if _compared(results, name)]


def _throughput(results: Results) -> Figure | None:
    return _bars(results, "per_second", _databases(results))


def _cpu(results: Results) -> Figure | None:
    return _bars(results, "cpu_us", _databases(results))


def _bars(results: Results, figure: str, databases: list[DatabaseName]) -> Figure | None:
    if not databases:
        return None
    heights = [len(_compared(results, name)) for name in databases]
    drawing = Figure(figsize=(8, 0.8 * len(databases) + 0.32 * sum(heights)), layout="constrained")
    all_axes = drawing.subplots(len(databases), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, database in zip(all_axes, databases, strict=True):
        values = {
            subject: median(figure, rounds) or 0.0
            for subject, rounds in _compared(results, database).items()
        }
        bars = axes.barh(
            [_name(subject) for subject in values],
            [*values.values()],
            color=[_OURS if subject is Subject.SERVICE else _OTHERS for subject in values],
        )
        axes.bar_label(bars, [text.number(value) for value in values.values()], padding=4)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(TITLES[database], loc="left", fontweight="bold")
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
    return drawing


def _latency(results: Results) -> Figure | None:
    databases = _databases(results)
    if not databases:
        return None
    lines = {
        database: [
            (f"({subject}), {connections}", rounds, subject is Subject.SERVICE, connections)
            for connections in results.options.connections
            for subject in Subject
            if DESCRIPTIONS[subject].writes
            and (rounds := results.rounds("compare", database, subject, connections))
        ]
        for database in databases
    }
    drawing = Figure(
        figsize=(8, sum(0.9 + 0.24 * len(each) for each in lines.values())), layout="constrained"
    )
    all_axes = drawing.subplots(
        len(databases),
        1,
        squeeze=False,
        sharex=True,
        height_ratios=[max(1, len(each)) for each in lines.values()],
    )[:, 0]
    for axes, database in zip(all_axes, databases, strict=True):
        _ranges(axes, lines[database])
        axes.set_title(f"{TITLES[database]}: (subject), connections", loc="left", fontweight="bold")
    all_axes[-1].set_xlabel("milliseconds")
    return drawing


def _ranges(axes: "Axes", lines: list[tuple[str, dict[int, Figures], bool, int]]) -> None:
    names: list[str] = []
    for name, rounds, is_ours, connections in lines:
        if not has_enough_answers(rounds, connections):
            continue
        p50, p99 = median("p50_ms", rounds) or 0.0, median("p99_ms", rounds) or 0.0
        colour = _OURS if is_ours else _OTHERS
        axes.plot([p50, p99], [len(names)] * 2, color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot([p50], [len(names)], "o", color=colour)
        axes.plot([p99], [len(names)], "|", color=colour, markersize=9)
        names.append(name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color=_PALE, linewidth=0.6)


def _circumstances(results: Results) -> Figure | None:
    cells = [
        *(
            (f"{name} (PostgreSQL)", (outage.PART, DatabaseName.POSTGRESQL, 64, name))
            for name in (outage.UP, outage.DOWN)
        ),
        *(
            (rows.variant(size), (rows.PART, DatabaseName.SQLITE, 64, rows.variant(size)))
            for size in rows.sizes(results.options.most_rows)
        ),
        *(
            (name, (spool.PART, DatabaseName.SQLITE, 64, name))
            for name in (*spool.STATES, spool.CATCHING_UP)
        ),
    ]
    lines = [
        (name, measured, True, connections)
        for name, (part, database, connections, variant) in cells
        if (measured := results.rounds(part, database, Subject.SERVICE, connections, variant))
    ]
    if not lines:
        return None
    drawing = Figure(figsize=(8, 0.9 + 0.26 * len(lines)), layout="constrained")
    axes = drawing.subplots()
    _ranges(axes, lines)
    axes.set_xlabel("milliseconds")
    return drawing


def _memory(results: Results) -> Figure | None:
    if not results.growth:
        return None
    drawing = Figure(figsize=(8, 2.4), layout="constrained")
    axes = drawing.subplots()
    axes.plot(
        [growth.callbacks / 1e6 for growth in results.growth],
        [growth.rss_mb for growth in results.growth],
        color=_OURS,
    )
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("million callbacks")
    axes.set_ylabel("resident memory, MB")
    axes.grid(axis="y", color=_PALE, linewidth=0.6)
    return drawing
