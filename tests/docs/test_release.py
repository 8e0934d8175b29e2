"""`.ci/release` builds what a tag names, and nothing else; the notes are the changelog's."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.markdown import ROOT

pytestmark = pytest.mark.posix

CHANGELOG = """\
# Changelog

## 0.2.0 (unreleased)

- Not yet.

## 0.1.1 (2026-12-02)

- A second one.

## 0.1.0 (2026-12-01)

### Added

- The first.
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in a repository with one commit, and with `.ci` and a changelog."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    identity = {
        f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }

    def run_here(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **identity},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    for command in ("git init --quiet", "git add .", "git commit --quiet --message=x"):
        assert run_here(*command.split()).returncode == 0
    return run_here


@pytest.mark.parametrize(
    ("version", "notes"),
    [("0.1.0", "### Added\n\n- The first."), ("0.1.1", "- A second one.")],
)
def test_the_notes_are_the_changelogs_section_of_the_version(
    run: Run, version: str, notes: str
) -> None:
    said = run(".ci/release-notes", version)
    assert (said.returncode, said.stdout.strip()) == (0, notes)


@pytest.mark.parametrize("version", ["0.2.0", "0.1", "1.0"])
def test_a_version_without_a_day_has_no_notes(run: Run, version: str) -> None:
    said = run(".ci/release-notes", version)
    assert said.returncode == 1
    assert f'no heading "## {version} (YYYY-MM-DD)"' in said.stderr


def test_this_changelog_has_the_next_release_on_top() -> None:
    text = ROOT.joinpath("CHANGELOG.md").read_text(encoding="utf-8")
    first, *_ = re.findall(r"(?m)^## (.*)$", text)
    assert re.fullmatch(r"\d+\.\d+\.\d+ \((unreleased|\d{4}-\d{2}-\d{2})\)", first)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("git tag anything", "HEAD has no tag such as v0.1.0"),
        ("git tag v0.2.0", "no heading"),
        ("touch another-file", "The checkout has changes"),
    ],
)
def test_an_invalid_release_is_refused_before_anything_is_built(
    run: Run, tmp_path: Path, before: str, says: str
) -> None:
    assert run(*before.split()).returncode == 0
    refused = run(".ci/release")
    assert refused.returncode != 0
    assert says in refused.stderr
    assert not list(tmp_path.glob("dist/*.whl"))
