"""`make` on a machine without a network: the set-up says so at its first try, and what is missing.

With an apt-get in the real one's place that answers as it does.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.markdown import ROOT

pytestmark = pytest.mark.posix

NO_NAME: Final = (
    "Failed to fetch http://lists.invalid/InRelease  Temporary failure resolving 'lists.invalid'"
)
REFUSED: Final = "Failed to fetch http://lists.invalid/InRelease  Connection refused"


def set_up(directory: Path, *, update: str, install: str) -> tuple[int, str, list[str]]:
    """Set up where nothing is installed; return the status, what is said and apt-get's commands."""
    programs = {
        "apt-get": f"""
            for word; do case $word in
                update) echo update >>calls; {update} ;;
                install) echo install >>calls; {install} ;;
            esac; done""",
        "dpkg-query": "exit 1",
        "id": "echo 0",  # root, whoever runs the test
        "sudo": "exit 1",
    }
    for name, script in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    run = subprocess.run(
        [str(ROOT / ".ci/system-packages"), "run"],
        cwd=directory,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return run.returncode, run.stderr, (directory / "calls").read_text().split()


@pytest.mark.parametrize("install", [NO_NAME, "Package 'unixodbc' has no installation candidate"])
def test_where_no_name_resolves_nothing_is_tried_again(tmp_path: Path, install: str) -> None:
    status, said, calls = set_up(
        tmp_path, update=f'echo "W: {NO_NAME}"', install=f'echo "E: {install}"; exit 100'
    )
    assert (status, calls) == (1, ["update", "install"])
    assert "Is there a network" in said
    assert "apt-get install --no-install-recommends python3-venv unixodbc" in said


def test_a_server_that_refuses_is_asked_again(tmp_path: Path) -> None:
    refused = f'echo "E: {REFUSED}"; exit 100'
    status, said, calls = set_up(tmp_path, update=f'echo "W: {REFUSED}"', install=refused)
    assert (status, calls) == (1, ["update", "install"] * 3)
    assert "Is there a network" in said


def test_one_name_that_does_not_resolve_hinders_nothing(tmp_path: Path) -> None:
    status, said, calls = set_up(tmp_path, update=f'echo "W: {NO_NAME}"', install="true")
    assert (status, said, calls) == (0, "", ["update", "install"])
