"""Generated pages of the documentation are up to date with the code."""

import pytest

from sam.callback.model import Outcome
from tests.support import flow_chart, pages

# The app looks for SQLite's driver, as the tests that start a server do.
NEED_A_DRIVER = {"docs/reference/http.md"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.server) if name in NEED_A_DRIVER else name
        for name in pages.PAGES
    ],
)
def test_a_page_is_as_it_would_be_written_now(name: str) -> None:
    page = pages.ROOT.joinpath(name).read_text(encoding="utf-8")
    assert page == pages.PAGES[name](), f"{name} is not current. {pages.HOW_TO}"


@pytest.mark.parametrize("words", [flow_chart.ENGLISH, flow_chart.SPANISH])
def test_the_picture_has_every_outcome(words: dict[str, str]) -> None:
    shown = set(f"{words['committed']} {words['kept']}".replace(",", "").split())
    assert shown >= {outcome.value for outcome in Outcome}
