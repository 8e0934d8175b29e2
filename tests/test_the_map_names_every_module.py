"""The map in CONTRIBUTING.md names every module under sam/, and nothing that is not there."""

import re

from tests.support import pages
from tests.support.markdown import ROOT


def test_it_names_each_module_once() -> None:
    text = ROOT.joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
    the_map = text.split("<!-- begin: map -->")[1].split("<!-- end: map -->")[0]
    named = re.findall(r"\]\((sam/\S+\.py)\)", the_map)
    for folder, part in re.findall(r"(?ms)^#### (\S+/)$(.*?)(?=^####|\Z)", the_map):
        named += [f"{folder}__init__.py"] * part.count("`__init__.py`")
    in_the_tree = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("sam/**/*.py")]
    assert sorted(named) == sorted(in_the_tree), pages.HOW_TO


def test_each_is_told_in_a_sentence() -> None:
    for path, summary in pages.modules().items():
        assert summary.endswith((".", "?")), f"The first line of {path} is no sentence."
