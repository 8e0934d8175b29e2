"""The dashboard is sound, each panel has data in Prometheus, and it is provisioned with it."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sam.callback.inbox.sql.schema import DEFAULT_TABLE, script
from sam.callback.storage.odbc.dialects import POSTGRESQL
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.prometheus import (
    ROOT,
    as_rules,
    missing_series,
    prometheus,
    promtool,
    scrape,
)
from tests.support.service import Service

DASHBOARD = json.loads((ROOT / "docs/grafana/sam-callback.json").read_text(encoding="utf-8"))
PROVISIONING = ROOT / "docs/grafana/provisioning"
COLUMNS = 24


@pytest.fixture
def service(
    start_service: Callable[..., Service],
    sqlite_database: SqliteDatabase,
    postgres_database: PostgresDatabase,
) -> Service:
    """A service with a shared inbox, which has panels of its own."""
    postgres_database.execute(script("postgresql", DEFAULT_TABLE, POSTGRESQL.quote))
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_INBOX_CONNECTION_STRING=postgres_database.connection_string,
    )


def load(path: Path) -> Any:  # noqa: ANN401 - whatever is there
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    found = {
        f"panel:{panel['id']}:{target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }
    for number, annotation in enumerate(DASHBOARD["annotations"]["list"]):
        if "expr" in annotation:
            found[f"annotation:{number}"] = annotation["expr"]
    return {name: text.replace("$__rate_interval", "1m") for name, text in found.items()}


def test_no_two_panels_have_one_id_or_one_place() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_each_panel_says_what_it_shows() -> None:
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    assert all(panel["description"] for panel in panels())
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels())


def test_every_expression_is_valid(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(as_rules(expressions()), encoding="utf-8")
    said = promtool("check", "rules", rules)
    assert f"{len(expressions())} rules found" in said


def test_its_metrics_are_exported(service: Service) -> None:
    scrape(service)
    variables = [
        # label_values(METRIC, LABEL) is Grafana's, and not PromQL.
        variable["definition"].removeprefix("label_values(").split(", ")[0]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert missing_series([*expressions().values(), *variables], scrape(service)) == set()


def test_each_panel_has_data_in_prometheus(
    service: Service, sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    """And each rule for an alert can be evaluated."""
    empty = {
        name: text.replace("$job", "sam-callback").replace("$instance", ".*")
        for name, text in expressions().items()
        if name.startswith("panel:")  # nothing to annotate has happened
    }
    numbers = itertools.count()

    def all_have_data() -> bool:
        late = f"late-{next(numbers)}"
        service.post(body("d-1"))
        service.post(body(late))
        sqlite_database.add_robots([late])  # so that there is something to replay
        service.get("/metrics")  # without the key
        for name, expression in list(empty.items()):
            if server.values(expression):
                del empty[name]
        return not empty and set(server.rules().values()) == {"ok"}

    with prometheus(tmp_path, service) as server:
        try:
            eventually(all_have_data, 3 * LIMIT_SECONDS)
        except AssertionError:
            raise AssertionError(f"without data: {empty}, or rules: {server.rules()}") from None


def test_the_stack_is_made_of_parts_that_find_one_another() -> None:
    stack = load(ROOT / "compose.yaml")
    services = stack["services"]
    prometheus, grafana, callback = (
        services[name] for name in ("prometheus", "grafana", "callback")
    )
    mounts = {}
    for name, service in (("prometheus", prometheus), ("grafana", grafana)):
        assert service["profiles"] == ["observability"]
        for volume in service["volumes"]:
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                mounts[name, target] = ROOT / source

    config = load(mounts["prometheus", "/etc/prometheus/prometheus.yml"])
    for rules in config["rule_files"]:
        assert ("prometheus", f"/etc/prometheus/{rules}") in mounts
    [job] = config["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert services[name] is callback
    assert any(str(each).endswith(f":{port}") for each in callback["ports"])
    [key_file] = job["http_headers"]["X-API-KEY"]["files"]
    [key] = prometheus["configs"]
    assert key["target"] == f"/etc/prometheus/{key_file}"
    key_of_service = callback["environment"]["CALLBACK_API_KEY"]
    assert stack["configs"][key["source"]]["content"] == key_of_service

    [source] = load(PROVISIONING / "datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert mounts["grafana", "/etc/grafana/provisioning"] == PROVISIONING
    [provider] = load(PROVISIONING / "dashboards/sam-callback.yml")["providers"]
    shown = f"{provider['options']['path']}/sam-callback.json"
    assert mounts["grafana", shown] == ROOT / "docs/grafana/sam-callback.json"
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == shown


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """All but the header, which Debian 12's Prometheus is too old for."""
    config = load(ROOT / "docs/prometheus/prometheus.yml")
    for job in config["scrape_configs"]:
        del job["http_headers"]
    (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    for rules in config["rule_files"]:
        (tmp_path / rules).symlink_to(ROOT / "docs/prometheus" / rules)
    promtool("check", "config", tmp_path / "prometheus.yml")
