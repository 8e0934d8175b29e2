"""The wheel on a system that has Python alone: installed, tried, served."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.containers import BASE_IMAGE, BUILD_OPTIONS, ROOT, docker, docker_fails
from tests.support.databases import free_port

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

# For the build of an image; a container that installs needs the same network.
NETWORK: Final = [f"--network={name}" for name in BUILD_OPTIONS[1:2]]
SERVE_AND_SEND: Final = """
export CALLBACK_API_KEY=for-this-test-only
sam-callback serve --embedded >/tmp/log &
service=$!
until grep -q '"event":"listening"' /tmp/log; do kill -0 $service; sleep 0.2; done
sam-callback send --embedded
SQL_SAM_CONNECTION_STRING="DRIVER=SQLite3;Database=$PWD/var/sam.db" sam-callback check >&2
kill $service
wait $service
"""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[str]:
    """A container of the base, with the wheel installed by pip."""
    directory = tmp_path / "dist"
    uv = os.environ.get("UV", "uv")  # as `uv run` says
    subprocess.run([uv, "build", "--wheel", "--out-dir", directory, ROOT], check=True)
    [wheel] = directory.glob("*.whl")
    container = docker("run", "--detach", *NETWORK, BASE_IMAGE, "sleep", "infinity")
    try:
        docker("cp", str(wheel), f"{container}:/")
        install = f"python -m venv /venv && /venv/bin/pip install --quiet /{wheel.name}"
        docker("exec", container, "sh", "-c", install, timeout=600)
        yield container
    finally:
        docker("rm", "--force", container)


def test_without_the_driver_manager_it_says_what_is_missing(system: str) -> None:
    for command in ("demo", "check", "serve"):
        run = docker_fails("exec", system, "/venv/bin/sam-callback", command)
        assert run.returncode == 2
        assert "apt install unixodbc" in run.stderr
        assert "Traceback" not in run.stderr


def test_with_it_the_demo_runs_and_a_callback_is_served(system: str, tmp_path: Path) -> None:
    packages = "unixodbc libsqliteodbc libgssapi-krb5-2"
    install = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}"
    docker("exec", system, "sh", "-c", install, timeout=600)
    assert "RUN_COMPLETED" in docker("exec", system, "/venv/bin/sam-callback", "demo", timeout=120)

    script = tmp_path / "script"
    script.write_text(SERVE_AND_SEND)
    docker("cp", str(script), f"{system}:/script")
    variables = ["--env=PATH=/venv/bin:/usr/bin:/bin", f"--env=CALLBACK_PORT={free_port()}"]
    assert docker("exec", *variables, system, "bash", "-e", "/script").startswith("updated")
