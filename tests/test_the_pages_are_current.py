"""What is generated of the documentation is what the code says now."""

import pytest

from tests.support import pages


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_is_as_it_would_be_written_now(name: str) -> None:
    page = pages.ROOT.joinpath(name).read_text(encoding="utf-8")
    assert page == pages.PAGES[name](), f"{name} is not current. {pages.HOW_TO}"
