"""Prometheus' own tools, and the service's metrics as Prometheus sees them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import Service

ROOT: Final = Path(__file__).parent.parent.parent

# What Prometheus adds to every series that it scrapes, and the one series that it makes of alerts.
_ITS_LABELS = {"job", "instance", "alertname", "alertstate"}

_NAME = re.compile(r"\b(?:sam_callback|process|python)_\w+")
_MATCHERS = re.compile(r"\{([^{}]*)\}")
_LABEL_OF_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_LABEL_LIST = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^()]*)\)")
_STRING = re.compile(r'"[^"]*"')


def promtool(*arguments: "str | Path", text: str | None = None) -> str:
    """Run promtool; return what it printed.

    Raises:
        AssertionError: If it complained of anything.
    """
    here = ROOT / ".tools/bin/promtool"
    program = here if here.exists() else shutil.which("promtool")
    assert program, "this test needs promtool: `make setup`"
    done = subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Scrape:
    """The answer to one GET of /metrics."""

    text: str
    families: list[Metric]

    @property
    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in self.families
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.series}

    @property
    def labels(self) -> dict[str, set[str]]:
        """The values of every label of the service's own metrics."""
        found: dict[str, set[str]] = {}
        for name, labels in self.series:
            for label, value in labels:
                if name.startswith("sam_callback_"):
                    found.setdefault(label, set()).add(value)
        return found

    def value(self, name: str, **labels: str) -> float:
        """The value of one series, or the sum of all that have these labels."""
        values = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"sam_callback_{name}" and labels.items() <= sample.labels.items()
        ]
        assert values, f"no such series: {name} {labels}"
        return sum(values)


def parse(text: str) -> Scrape:
    """Parse Prometheus' text format."""
    return Scrape(text, list(text_string_to_metric_families(text)))


def scrape(service: Service) -> Scrape:
    """Scrape a service, with the key."""
    with service.client() as client:
        return read(client.get("/metrics"))


def read(response: httpx.Response) -> Scrape:
    """Parse the answer to a scrape."""
    assert response.status_code == 200, response.text
    return parse(response.text)


def missing_series(expressions: Iterable[str], exported: Scrape) -> set[str]:
    """The names of metrics and labels in PromQL expressions that the service does not export."""
    labels = set(exported.labels) | {label for _, pairs in exported.series for label, _ in pairs}
    missing = set()
    for expression in expressions:
        without_strings = _STRING.sub('""', expression)
        missing |= set(_NAME.findall(without_strings)) - exported.names
        used = {
            label
            for matchers in _MATCHERS.findall(without_strings)
            for label in _LABEL_OF_MATCHER.findall(matchers)
        }
        for each in _LABEL_LIST.findall(without_strings):
            used |= {label.strip() for label in each.split(",") if label.strip()}
        missing |= used - labels - _ITS_LABELS
    return missing


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def as_rules(expressions: Mapping[str, str]) -> str:
    """A file of recording rules, as JSON is YAML, with an expression each."""
    rules = [{"record": name, "expr": expression} for name, expression in expressions.items()]
    return json.dumps({"groups": [{"name": "generated", "rules": rules}]})
