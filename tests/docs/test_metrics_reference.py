"""docs/metrics.md has every metric that the service exports, as it exports it, and no other."""

import re
import sys
from itertools import takewhile

from tests.support.callbacks import body
from tests.support.prometheus import ROOT, Scrape, promtool, scrape
from tests.support.service import Service

PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
OURS, PROCESS = "The service", "The process"


def table(heading: str, columns: str) -> list[list[str]]:
    """The rows of the table with these columns below a heading."""
    lines = iter(PAGE.split(f"\n## {heading}\n")[1].splitlines())
    for line in lines:
        if line == columns:
            break
    next(lines)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in takewhile(lambda line: line.startswith("|"), lines)
    ]


def words(cell: str) -> set[str]:
    """The texts in backticks before the first colon."""
    return set(re.findall(r"`([^`]+)`", cell.rsplit(":", maxsplit=1)[0]))


def documented(heading: str) -> set[tuple[str, str, frozenset[str], str]]:
    return {
        (name.strip("`"), kind, frozenset(words(labels)), meaning)
        for name, kind, labels, meaning in table(heading, "| name | type | labels | meaning |")
    }


def exported(seen: Scrape, *, ours: bool) -> set[tuple[str, str, frozenset[str], str]]:
    return {
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
            family.documentation,
        )
        for family in seen.families
        if family.name.startswith("sam_callback_") is ours
    }


def seen_by_prometheus(service: Service) -> Scrape:
    service.wait_for_event("database_up")
    service.post(body())
    return scrape(service)


def test_every_metric_is_there_with_its_type_labels_and_meaning(service: Service) -> None:
    seen = seen_by_prometheus(service)
    assert documented(OURS) == exported(seen, ours=True)
    if sys.platform == "linux":
        assert documented(PROCESS) == exported(seen, ours=False)


def test_every_label_is_there_with_its_values(service: Service) -> None:
    seen = seen_by_prometheus(service)
    values = {label.strip("`"): words(cell) for label, cell in table(OURS, "| label | values |")}
    assert values.keys() == seen.labels.keys() - {"le"}
    for label in ("outcome", "reason", "source", "result", "kind"):
        assert values[label] == seen.labels[label], label
    for label in ("route", "code"):  # as they occur
        assert values[label] >= seen.labels[label], label


def test_promtool_has_nothing_to_complain_of(service: Service) -> None:
    assert promtool("check", "metrics", text=seen_by_prometheus(service).text) == ""
