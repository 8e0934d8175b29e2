"""SAM's operators read Spanish: their pages have the variables and commands of the English ones."""

import re

import pytest

from tests.support import markdown

PAGES = [
    "README.md",
    "docs/deploy.md",
    "docs/how-to/point-a360-at-it.md",
    "docs/how-to/trial.md",
    "docs/reference/settings.md",
    "docs/runbook.md",
]


def read(name: str, *, spanish: bool) -> str:
    path = name.replace(".md", ".es.md") if spanish else name
    return markdown.ROOT.joinpath(path).read_text(encoding="utf-8")


def variables(text: str) -> set[str]:
    return set(re.findall(r"\b(?:CALLBACK|SQL_SAM)_[A-Z_]*[A-Z]\b", text))


def code(text: str) -> list[tuple[str, str]]:
    """Commands and configuration; comments and pictures are in the page's language."""
    return [
        (language, re.sub(r"(?m)(?:^| +)# .*$", "", block))
        for language, block in markdown.blocks(text)
    ]


def targets(text: str) -> set[str]:
    """Where links lead; to a page that both languages have, by its English name."""
    english = {target.replace(".es.", ".").partition("#")[0] for target in markdown.links(text)}
    return english - {""}


def in_code(text: str) -> set[str]:
    """The texts in backticks, which no language changes."""
    return {" ".join(code.split()) for code in re.findall(r"`([^`]+)`", markdown.prose(text))}


@pytest.mark.parametrize("name", PAGES)
def test_both_name_the_same_variables(name: str) -> None:
    assert variables(read(name, spanish=True)) == variables(read(name, spanish=False))


@pytest.mark.parametrize("name", PAGES)
def test_both_have_the_same_commands(name: str) -> None:
    assert code(read(name, spanish=True)) == code(read(name, spanish=False))
    assert in_code(read(name, spanish=True)) == in_code(read(name, spanish=False))


@pytest.mark.parametrize("name", PAGES)
def test_both_have_the_same_parts_and_lead_to_the_same_places(name: str) -> None:
    english, spanish = read(name, spanish=False), read(name, spanish=True)
    levels = [level for level, _ in markdown.headings(english)]
    assert [level for level, _ in markdown.headings(spanish)] == levels
    assert targets(spanish) == targets(english)
