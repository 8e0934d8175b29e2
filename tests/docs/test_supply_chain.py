"""Installed packages are those that were reviewed: by hash, by commit, and listed."""

import json
import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
WORKFLOWS = sorted(CHECKOUT.glob(".github/workflows/*.yml"))


def uv() -> str:
    """The uv that runs these tests, else the one that `make` would take."""
    found = os.environ.get("UV") or shutil.which(
        "uv", path=f"{CHECKOUT}/.tools/bin{os.pathsep}{os.environ['PATH']}"
    )
    assert found, "this test needs uv, as `make setup` gets it"
    return found


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


def test_uv_is_locked_with_its_hashes_and_installed_by_them() -> None:
    lines = CHECKOUT.joinpath(".ci/uv.txt").read_text(encoding="utf-8").replace("\\\n", "")
    [uv] = [line for line in lines.splitlines() if not line.startswith("#")]
    version, *hashes = uv.split()
    assert re.fullmatch(r"uv==[\d.]+", version)
    assert len(hashes) > 10  # one for each platform
    assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, check=True)  # noqa: S607 - git
    for name in listed.stdout.decode().split():
        if name.startswith("tests/") or not CHECKOUT.joinpath(name).is_file():
            continue
        text = CHECKOUT.joinpath(name).read_bytes().decode(errors="replace").replace("\\\n", "")
        for install in re.findall(r"\bpip3? install\b.*", text):
            assert re.search(r"--require-hashes -r \.ci.uv\.txt", install), (name, install)


def test_the_build_backend_is_locked_with_its_hashes() -> None:
    project = tomllib.loads(CHECKOUT.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["uv"]["require-build-hashes"] is True
    constraints = project["tool"]["uv"]["build-constraint-dependencies"]
    assert {each["requirement"].partition("==")[0] for each in constraints} >= {
        requirement.partition(">")[0] for requirement in project["build-system"]["requires"]
    }
    for each in constraints:
        assert re.fullmatch(r"[\w-]+==[\d.]+", each["requirement"])
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in each["hashes"])


def test_the_wheel_is_built_by_locked_packages_alone(tmp_path: Path) -> None:
    for name in ("hatchling", "hatch_vcs"):
        with zipfile.ZipFile(tmp_path / f"{name}-99-py3-none-any.whl", "w") as newest:
            newest.writestr(f"{name}/build.py", "raise SystemExit('the newest')")
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n"
            newest.writestr(f"{name}-99.dist-info/METADATA", about)
            newest.writestr(f"{name}-99.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            newest.writestr(f"{name}-99.dist-info/RECORD", "")
    command = [uv(), "build", "--wheel", "--quiet", f"--find-links={tmp_path}"]
    subprocess.run([*command, f"--out-dir={tmp_path}/dist"], cwd=CHECKOUT, check=True)
    [wheel] = tmp_path.glob("dist/*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "sam/callback/storage/schema/sqlserver.sql" in names


def test_the_image_is_built_of_locked_packages() -> None:
    dockerfile = CHECKOUT.joinpath("Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    syncs = re.findall(r"^RUN .*?(uv .*)", dockerfile, re.MULTILINE)
    assert len(syncs) == 2
    assert all(sync.startswith("uv sync --locked ") for sync in syncs)
    assert "--no-install-project --no-build" in syncs[0]  # wheels, by their hashes
    assert "--only-install-project" in syncs[1]


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
