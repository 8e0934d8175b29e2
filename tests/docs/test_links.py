"""Every link of the documentation leads to a file that is there, and to a heading that it has."""

import pytest

from tests.support import markdown


@pytest.mark.parametrize(
    "name", [path.relative_to(markdown.ROOT).as_posix() for path in markdown.pages()]
)
def test_the_links_of_a_page_resolve(name: str) -> None:
    page = markdown.ROOT / name
    for target in markdown.links(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_relative_to(markdown.ROOT), target
        assert linked.exists(), target
        if anchor:
            assert anchor in markdown.anchors(linked.read_text(encoding="utf-8")), target
