"""`make up` before it builds, and where the stack does not come up: a plain message.

With something in Compose's place that answers as it does. tests/container/test_stack.py has the
real one.
"""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.databases import free_port
from tests.support.markdown import ROOT

pytestmark = pytest.mark.posix

VERSION: Final = "Docker Compose version v2.26.1"

Up = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """The file that has a line for each call of Compose."""
    return tmp_path / "calls"


@pytest.fixture
def up(tmp_path: Path, calls: Path) -> Up:
    """Runs `make up` with a Compose that does this for its commands, else nothing."""

    def run(port: int | None = None, **does: str) -> "subprocess.CompletedProcess[str]":
        compose = tmp_path / "compose"
        cases = "".join(f"{command}) {action} ;;\n" for command, action in does.items())
        compose.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$1" in\n{cases}esac\n')
        compose.chmod(0o755)
        return subprocess.run(
            ["make", "--no-print-directory", "up", f"COMPOSE={compose}"],  # noqa: S607 - on PATH
            cwd=ROOT,
            env={**os.environ, "STACK_PORT": str(port or free_port())},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    "answer", ["unknown flag: --build", "docker-compose version 1.29.2, build unknown"]
)
def test_another_thing_than_compose_2(up: Up, calls: Path, answer: str) -> None:
    run = up(version=f"echo '{answer}'; exit 125")
    assert run.returncode != 0
    assert "needs Docker Compose, version 2" in run.stderr
    assert calls.read_text().splitlines() == ["version"]


def test_an_engine_that_is_away(up: Up, calls: Path) -> None:
    run = up(version=f"echo {VERSION}", ps="echo 'Cannot connect to the daemon' >&2; exit 1")
    assert run.returncode != 0
    assert "Cannot connect to the daemon" in run.stderr
    assert "Port" not in run.stderr
    assert "up" not in calls.read_text().split()


def test_a_port_that_is_taken(up: Up, calls: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = up(port, version=f"echo {VERSION}")
        assert run.returncode != 0
        assert f"Port {port} of 127.0.0.1 is taken" in run.stderr
        assert f"STACK_PORT={port + 1} make up" in run.stderr
        assert "up" not in calls.read_text().split()

        mine = up(port, version=f"echo {VERSION}", ps="echo 4f1d")  # it is the stack's own
        assert mine.returncode == 0


def test_a_stack_that_does_not_get_healthy(up: Up) -> None:
    run = up(
        version=f"echo {VERSION}",
        up="echo 'container sqlserver-1 is unhealthy' >&2; exit 1",
        logs="echo 'sqlserver-1  | not enough memory'",
    )
    assert run.returncode != 0
    assert "sqlserver-1  | not enough memory" in run.stderr
    assert "logs SERVICE" in run.stderr


def test_all_parts_of_a_profile_are_waited_for(up: Up, calls: Path) -> None:
    parts = "printf 'sqlserver\\nschema\\ncallback\\nprometheus\\n'"
    assert up(version=f"echo {VERSION}", config=parts).returncode == 0
    assert "up --build --detach --wait callback prometheus" in calls.read_text().splitlines()
