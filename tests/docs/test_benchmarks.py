"""The benchmarks run and write their page, and their figures are numbers.

Which numbers, no test asks: that is what the benchmarks are for.
"""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.results import Results
from tests.benchmarks.subject import Subject
from tests.support.conditions import LIMIT_SECONDS

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A run of a second for each of two subjects."""
    output = tmp_path / "results.json"
    options = {
        "--subjects": "a,d",
        "--databases": "sqlite",
        "--connections": "64",
        "--parts": "compare",
        "--rounds": "1",
        "--seconds": "1",
        "--robots": "20",
        "--output": str(output),
    }
    arguments = [text for option in options.items() for text in option]
    subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "run", *arguments],
        cwd=CHECKOUT,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=2 * LIMIT_SECONDS,  # it starts several services, one after the other
    )
    return Results.load(output)


@pytest.mark.server
def test_a_small_run_has_figures_for_each_subject_and_a_page(
    results: Results, tmp_path: Path
) -> None:
    assert not results.failures
    measured = {m.cell.subject: m.figures for m in results.measurements if m.figures}
    assert measured.keys() == {Subject.EMPTY, Subject.SERVICE}
    for figures in measured.values():
        assert math.isfinite(figures.answers)
        assert math.isfinite(figures.cpu_us)
    # Every answer that was counted has its line in the log.
    ours = measured[Subject.SERVICE]
    assert sum(ours.outcomes.values()) >= ours.answers

    # Not at the top: collecting the tests need not wait for the plots' library.
    from tests.benchmarks.report.page import write  # noqa: PLC0415

    page = write(results, tmp_path).read_text(encoding="utf-8")
    assert "Server CPU per callback against (a)" in page
    assert "(d) this service" in page
    for plot in ("throughput.svg", "cpu.svg", "latency.svg"):
        assert f"benchmarks/{plot}" in page
        assert (tmp_path / "benchmarks" / plot).stat().st_size > 0


def test_the_time_of_a_refusal_is_measured_with_its_controls() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.key_timing", "--rounds", "100"],
        cwd=CHECKOUT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert len(re.findall(r"^ .* median +\d+ ns .*means.* t ", run.stdout, re.MULTILINE)) == 11
    assert run.stdout.count("Control: ") == 2


@pytest.mark.server
def test_what_slow_clients_take_is_measured_beside_a_service_without_them() -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.slow_clients", "--kind", "headers, no key"),
            *("--turns", "2", "--seconds", "0.1", "--ramp", "0"),
        ],
        cwd=CHECKOUT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * LIMIT_SECONDS,  # it starts several services, one after the other
    )
    *_, calm, besieged, alone, added, _new, _longest, refused, cut, sent = run.stdout.splitlines()[
        -1
    ].split()
    for number in (calm, besieged, alone, added, refused, cut, sent):
        assert math.isfinite(float(number))


@pytest.mark.server
def test_what_a_siege_takes_through_a_proxy_is_measured_beside_one_without_it() -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.behind_a_proxy", "--proxy", "nginx"),
            *("--siege", "150 a second", "--body", "a byte"),
            *("--turns", "2", "--seconds", "0.1", "--ramp", "0"),
        ],
        cwd=CHECKOUT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * LIMIT_SECONDS,  # it starts two proxies and two services, one after the other
    )
    figures, _, ended = run.stdout.splitlines()[-1].partition("   {")
    assert ended.endswith("}")
    *_, calm, besieged, alone, added, refused = figures.split()
    for number in (calm, besieged, alone, added, refused):
        assert math.isfinite(float(number))
