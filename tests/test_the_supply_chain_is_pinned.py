"""What is installed is what was reviewed: by hash, by commit, and listed."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
WORKFLOWS = sorted(CHECKOUT.glob(".github/workflows/*.yml"))


def locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads(
        CHECKOUT.joinpath("uv.lock").read_text(encoding="utf-8")
    )["package"]
    return packages


def test_every_file_that_is_installed_is_locked_with_its_hash() -> None:
    packages = locked()
    assert [p["name"] for p in packages if "registry" not in p["source"]] == ["sam-callback"]
    files = [
        file
        for package in packages
        for file in [*package.get("wheels", []), package.get("sdist")]
        if file is not None
    ]
    assert len(files) > 1_000
    for file in files:
        assert re.fullmatch("sha256:[0-9a-f]{64}", file["hash"]), file


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit(workflow: Path) -> None:
    """A tag can be moved; the comment says which it was, for people and for Dependabot."""
    uses = re.findall(r"uses: *(.*)", workflow.read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)


def test_a_workflow_may_only_read() -> None:
    for workflow in WORKFLOWS:
        text = workflow.read_text(encoding="utf-8")
        assert "\npermissions:\n  contents: read\n" in text
        assert "secrets." not in text
        assert "pull_request_target" not in text


@pytest.mark.posix
def test_the_bill_of_materials_has_all_of_it_with_hashes(tmp_path: Path) -> None:
    bill = tmp_path / "sbom.json"
    subprocess.run(["make", "sbom", f"SBOM={bill}"], cwd=CHECKOUT, check=True)  # noqa: S607 - make
    document = json.loads(bill.read_text(encoding="utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    versions = {each["name"]: each["version"] for each in locked() if "version" in each}
    components = {part["name"]: part for part in document["components"]}
    direct = {
        dependency["name"]
        for package in locked()
        if package["name"] == "sam-callback"
        for dependency in package["dependencies"]
    }
    assert components.keys() >= direct
    assert not components.keys() & {"pytest", "ruff", "mypy"}
    for name, part in components.items():
        assert part["version"] == versions[name]
        for reference in part["externalReferences"]:
            assert [each["alg"] for each in reference["hashes"]] == ["SHA-256"]
