"""`make up smoke down`: compose.yaml's stack, with PostgreSQL in SQL Server's place.

The start order and the health checks are compose.yaml's own, and the checkout is one that only its
owner can read. With SQL Server itself, the workflow on GitHub runs the same three targets.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from sam.callback.cli import embedded
from tests.support import printed
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.containers import copy_checkout, docker, docker_fails

pytestmark = pytest.mark.container

ROBOT: Final = "f6d30428-15d1-41e9-a952-0742eaaa5a31"
COMPOSE_FILES: Final = [
    "compose.yaml",
    "tests/stack/compose.postgresql.yaml",
    *os.environ.get("SAM_TEST_COMPOSE_FILES", "").split(),
]

Make = Callable[..., str]


@pytest.fixture
def project() -> str:
    return f"sam-callback-test-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout, as it is made with umask 077."""
    copy = tmp_path_factory.mktemp("checkout")
    copy_checkout(copy)
    return copy


@pytest.fixture
def make(project: str, checkout: Path) -> Iterator[Make]:
    """Runs one of the Makefile's targets upon a stack of the test's own, which is up."""
    environment = {
        **os.environ,
        "COMPOSE_FILE": os.pathsep.join(COMPOSE_FILES),
        "COMPOSE_PROJECT_NAME": project,
        **dict.fromkeys(("STACK_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"), "0"),
    }

    def run(target: str, **variables: str) -> str:
        made = subprocess.run(
            ["make", "--no-print-directory", target],  # noqa: S607 - whichever is on PATH
            cwd=checkout,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert made.returncode == 0, f"make {target}: {made.stdout}\n{made.stderr}"
        return made.stdout

    run("up")
    yield run
    callback = f"{project}-callback-1"
    theirs = json.loads(docker("inspect", "--format={{json .Config.Env}}", callback))
    logged = docker_fails("logs", callback)
    run("down")
    variables = dict(variable.split("=", 1) for variable in theirs)
    printed.search(variables, [logged.stdout, logged.stderr])
    for kind in ("container", "volume", "network"):
        everything = ["--all"] * (kind == "container")
        assert docker(kind, "ls", *everything, "--quiet", f"--filter=name={project}") == ""


def state(project: str, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        docker("inspect", "--format={{json .State}}", f"{project}-{service}-1")
    )
    return found


@pytest.mark.usefixtures("make")
def test_each_part_waits_for_the_one_it_needs(project: str) -> None:
    database, schema, service = (
        state(project, name) for name in ("sqlserver", "schema", "callback")
    )
    healthy_at = min(check["End"] for check in database["Health"]["Log"] if not check["ExitCode"])
    times = [healthy_at, schema["StartedAt"], schema["FinishedAt"], service["StartedAt"]]
    moments = [datetime.fromisoformat(each) for each in times]
    assert moments == sorted(moments)
    assert schema["ExitCode"] == 0
    assert (database["Health"]["Status"], service["Health"]["Status"]) == ("healthy", "healthy")


def test_prometheus_and_grafana_come_with_their_profile_and_go_with_the_rest(
    make: Make, project: str
) -> None:
    make("up", COMPOSE_PROFILES="observability")
    at = docker("port", f"{project}-prometheus-1", "9090/tcp")
    target = "http://callback:8000/metrics"

    def is_scraped() -> bool:
        try:
            targets = httpx.get(f"http://{at}/api/v1/targets").json()["data"]["activeTargets"]
        except httpx.TransportError:
            return False
        return [(each["scrapeUrl"], each["health"]) for each in targets] == [(target, "up")]

    eventually(is_scraped, 60)
    assert state(project, "grafana")["Running"]


def test_nothing_starts_again_with_the_machine(make: Make, project: str) -> None:
    make("up", COMPOSE_PROFILES="observability")
    for service in ("sqlserver", "schema", "callback", "prometheus", "grafana"):
        policy = "--format={{.HostConfig.RestartPolicy.Name}}"
        assert docker("inspect", policy, f"{project}-{service}-1") in {"", "no"}


def test_a_callback_goes_through_to_the_row(make: Make) -> None:
    assert '"outcome":"updated"' in make("smoke")
    make("up")  # once more, upon what is there
    assert '"outcome":"updated"' in make("smoke")


def test_a_database_container_that_goes_costs_no_callback(make: Make, project: str) -> None:
    address = docker("port", f"{project}-callback-1", "8000/tcp")
    docker("stop", f"{project}-sqlserver-1")
    answer = httpx.post(
        f"http://{address}/callback",
        content=body(ROBOT, "WHILE_IT_WAS_AWAY"),
        headers={"X-API-KEY": embedded.KEY},
        timeout=20,
    )
    assert answer.json()["outcome"] == "queued"
    docker("start", f"{project}-sqlserver-1")

    def queued() -> int:
        key = {"X-API-KEY": embedded.KEY}
        state: dict[str, Any] = httpx.get(f"http://{address}/ready", headers=key).json()
        entries: int = state["spool"]["queued"]
        return entries

    eventually(lambda: queued() == 0, seconds=60)
    assert '"outcome":"updated"' in make("smoke")
