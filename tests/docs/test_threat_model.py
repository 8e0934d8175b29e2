"""Each threat of docs/security.md names a test, and the test exists."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs/security.md"
TEST = re.compile(r"\.\./tests/(\w+/)?test_")
LINK = re.compile(r"\]\(([^)#]+)")


def threats() -> dict[str, str]:
    """The threats, and the last column of each."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("## Threats and countermeasures\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cells[0].strip(): cells[-1].strip() for cells in rows[2:]}


def test_each_threat_names_a_test_or_says_that_there_is_none() -> None:
    named = threats()
    assert len(named) > 20
    for threat, shown_by in named.items():
        assert shown_by == "none" or TEST.search(shown_by), threat
    assert list(named.values()).count("none") == 1  # a replay by who has the key


def test_its_links_exist() -> None:
    for page in (PAGE, CHECKOUT / "SECURITY.md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            assert page.parent.joinpath(target).is_file(), target
