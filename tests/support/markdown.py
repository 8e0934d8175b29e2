"""Markdown for tests: code blocks, links, headings, tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SHELLS: Final = ("sh", "powershell")

_EXAMPLE = re.compile(
    r"^ *<!-- example: [^\n]+ -->\n(?P<indent> *)```.*?^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^(?P<level>#+) (?P<text>.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """Return the Markdown files at the top and under docs/."""
    return sorted([*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md")])


def blocks(text: str) -> list[tuple[str, str]]:
    """Return each code block: its language, and its code."""
    return [(match["language"], match["code"]) for match in _BLOCK.finditer(text)]


def commands(page: str) -> list[str]:
    """Return the shell's blocks of a page, given by its path, but for those marked as examples."""
    text = ROOT.joinpath(page).read_text(encoding="utf-8")
    return [code for language, code in blocks(_EXAMPLE.sub("", text)) if language in SHELLS]


def prose(text: str) -> str:
    """Return what is in no code block."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """Return where links lead, in their order."""
    return [match["target"] for match in _LINK.finditer(prose(text))]


def headings(text: str) -> list[tuple[int, str]]:
    """Return each heading: its level, and its text."""
    return [(len(match["level"]), match["text"]) for match in _HEADING.finditer(prose(text))]


def anchors(text: str) -> set[str]:
    """Return what a link can lead to on this page, as GitHub and Zensical name it."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for _, heading in headings(text)
    }


def rows(text: str) -> Iterator[list[str]]:
    """Return the cells of each row of each table, in their order."""
    for line in prose(text).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]
