"""The alert rules are valid, fire when they should and only then, and lead to the runbook."""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.databases import SqliteDatabase
from tests.support.prometheus import ROOT, missing_series, promtool, scrape, slug
from tests.support.service import Service

RULES = ROOT / "docs/prometheus/alerts.yml"
CASES = ROOT / "tests/prometheus/alerts_test.yml"
RUNBOOK = ROOT / "docs/runbook.md"


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_are_valid() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_they_fire_when_they_should() -> None:
    promtool("test", "rules", CASES)


def test_each_is_seen_to_fire_and_to_be_silent() -> None:
    expected: dict[str, set[bool]] = defaultdict(set)
    for test in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]:
        for case in test["alert_rule_test"]:
            expected[case["alertname"]].add(bool(case["exp_alerts"]))
    assert expected == {alert["alert"]: {True, False} for alert in alerts()}


def test_their_metrics_are_exported(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_INBOX_CONNECTION_STRING="DRIVER={PostgreSQL Unicode};Server=127.0.0.1;Port=1;",
    )
    scrape(service)
    assert missing_series([alert["expr"] for alert in alerts()], scrape(service)) == set()


def test_each_has_an_entry_in_the_runbook_that_says_what_to_do() -> None:
    entries: dict[str, str] = {}
    for entry in RUNBOOK.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, text = entry.split("\n", 1)
        entries[slug(heading)] = text
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "runbook_url"}
        file, anchor = alert["annotations"]["runbook_url"].split("#")
        assert Path(file) == RUNBOOK.relative_to(ROOT)
        for part in ("**Means.**", "**Look at.**", "**Do.**"):
            assert part in entries[anchor], (anchor, part)
    assert len(entries) == len(alerts())


def test_names_in_the_runbook_exist(service: Service) -> None:
    """Metrics as they are exported, events and fields as the code has them, links that lead on."""
    text = RUNBOOK.read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("sam/**/*.py"))
    families = {family.name for family in scrape(service).families}
    for name in re.findall(r"`([a-z]+_[a-z_]+)", text):
        in_code = f'"{name}"' in code or f" {name}=" in code
        assert name.removesuffix("_total") in families or in_code, name
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        file = RUNBOOK.parent / target if target else RUNBOOK
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings)
