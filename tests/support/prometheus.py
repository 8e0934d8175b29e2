"""Prometheus itself, its tools, and what the service exports as Prometheus sees it."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support import markdown
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import free_port
from tests.support.service import KEY, Service

ROOT: Final = Path(__file__).parent.parent.parent

# What Prometheus adds to every series that it scrapes, and the one series that it makes of alerts.
_ITS_LABELS = {"job", "instance", "alertname", "alertstate"}

_NAME = re.compile(r"\b(?:sam_callback|process|python)_\w+")
_MATCHERS = re.compile(r"\{([^{}]*)\}")
_LABEL_OF_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_LABEL_LIST = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^()]*)\)")
_STRING = re.compile(r'"[^"]*"')


def _program(name: str) -> Path:
    tools = ROOT / ".tools/bin" / name
    program = tools if tools.exists() else shutil.which(name)
    assert program, f"this test needs {name}: `make setup`"
    return Path(program)


def promtool(*arguments: "str | Path", text: str | None = None) -> str:
    """Run promtool; return what it printed.

    Raises:
        AssertionError: If it complained of anything.
    """
    done = subprocess.run(
        [_program("promtool"), *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A Prometheus that runs.

    Args:
        client: Which speaks to it.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def values(self, expression: str) -> list[float]:
        """The values that PromQL comes to now, but for those that are no number."""
        response = self._client.get("/api/v1/query", params={"query": expression})
        assert response.status_code == 200, response.text
        found = [float(each["value"][1]) for each in response.json()["data"]["result"]]
        return [value for value in found if not math.isnan(value)]

    def rules(self) -> dict[str, str]:
        """Each rule, with how its last evaluation went: ``ok``, ``err`` or ``unknown``."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}


@contextmanager
def prometheus(directory: Path, service: Service) -> Iterator[Prometheus]:
    """Prometheus as docs/prometheus configures it, but that it scrapes one service, and often.

    Debian 12's is too old for the header, so HAProxy adds it, as docs/metrics.md says.
    """
    config = yaml.safe_load((ROOT / "docs/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    [job] = config["scrape_configs"]
    del job["http_headers"]
    between, port = free_port(), free_port()
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{between}"]
    config["global"] = {
        "scrape_interval": "3s",
        "scrape_timeout": "3s",
        "evaluation_interval": "3s",
    }
    config["rule_files"] = [str(ROOT / "docs/prometheus" / name) for name in config["rule_files"]]
    (directory / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")

    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    [haproxy] = [code for language, code in markdown.blocks(page) if language == "haproxy"]
    for documented, here in {
        "127.0.0.1:9100": f"127.0.0.1:{between}",
        "127.0.0.1:8000": f"127.0.0.1:{service.port}",
        "THE-KEY": KEY,
    }.items():
        assert documented in haproxy
        haproxy = haproxy.replace(documented, here)
    (directory / "haproxy.cfg").write_text(haproxy, encoding="utf-8")

    commands: list[list[str]] = [
        [str(_program("haproxy")), "-db", "-f", f"{directory}/haproxy.cfg"],
        [
            str(_program("prometheus")),
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            server = Prometheus(client)
            eventually(server.is_ready)
            yield server
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(LIMIT_SECONDS)


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
