"""The map in CONTRIBUTING.md names every module under sam/, and nothing that is not there."""

import re

import pytest

from tests.support import pages
from tests.support.markdown import ROOT


@pytest.fixture
def the_map() -> str:
    text = ROOT.joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split("<!-- begin: map -->")[1].split("<!-- end: map -->")[0]


def test_it_names_each_module_once(the_map: str) -> None:
    named = re.findall(r"\]\((sam/\S+\.py)\)", the_map)
    for folder, part in re.findall(r"(?ms)^#### (\S+/)$(.*?)(?=^####|\Z)", the_map):
        named += [f"{folder}__init__.py"] * part.count("`__init__.py`")
    in_the_tree = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("sam/**/*.py")]
    assert sorted(named) == sorted(in_the_tree), pages.HOW_TO


@pytest.mark.parametrize("path", pages.modules())
def test_a_module_is_told_in_one_line(path: str, the_map: str) -> None:
    summary = pages.modules()[path]
    assert summary in the_map, pages.HOW_TO
    assert summary.endswith((".", "?")), f"The first line of {path} is no sentence."
