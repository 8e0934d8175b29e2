"""The pages of the site, made of the repository's.

`python -m tests.support.site` lays them out in build/docs, where Zensical takes them (`make docs`).
The pages are written to be read in the repository. A site has no files but its pages, so what a
page links to otherwise (a test, a manifest, a module) becomes a page that shows it.
"""

import os
import re
import shutil
from pathlib import PurePosixPath
from typing import Final

from tests.support.markdown import ROOT, pages

STAGE: Final = ROOT / "build/docs"

_TOP: Final = {"README.md": "index.md", "README.es.md": "es.md"}
_COPIED: Final = {".css", ".png", ".svg"}
_LANGUAGES: Final = {".py": "python", ".yml": "yaml", ".cfg": "text", ".conf": "nginx"}
_CODE_OR_LINK: Final = re.compile(
    r"(?P<code>^ *```.*?^ *```$)|(?P<before>\]\()(?P<target>[^()\s#]+)", re.MULTILINE | re.DOTALL
)


def place(path: PurePosixPath) -> PurePosixPath:
    """Return where something of the repository is on the site."""
    if path.suffix in _COPIED:
        return path.relative_to("docs")
    if path.suffix != ".md":
        # Zensical takes no page whose name begins with a dot.
        shown = "source" / PurePosixPath(*(part.lstrip(".") for part in path.parts))
        return shown / "index.md" if (ROOT / path).is_dir() else shown.with_name(f"{shown.name}.md")
    if path.parts[0] == "docs":
        path = path.relative_to("docs")
        return path.with_name("index.md") if path.name == "README.md" else path
    return PurePosixPath(_TOP.get(path.name, path.name.lower()))


class Site:
    """Pages, and all that they lead to."""

    def __init__(self) -> None:
        self._written: set[PurePosixPath] = set()

    def lay_out(self, path: PurePosixPath) -> None:
        """Write the page of a file or folder of the repository, and those that it leads to."""
        if path in self._written:
            return
        self._written.add(path)
        page = STAGE / place(path)
        page.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in _COPIED:
            shutil.copy(ROOT / path, page)
            return
        page.write_text(self._text(path), encoding="utf-8")

    def _text(self, path: PurePosixPath) -> str:
        source = ROOT / path
        if source.is_dir():
            inside = sorted(each for each in source.iterdir() if each.name != "__pycache__")
            entries = [f"- [{each.name}]({each.name})" for each in inside]
            return self._linked("\n".join([f"# {path}/", "", *entries, ""]), path, place(path))
        text = source.read_text(encoding="utf-8")
        if path.suffix == ".md":
            return self._linked(text, path.parent, place(path))
        language = _LANGUAGES.get(path.suffix, path.suffix.removeprefix("."))
        return f"# {path.name}\n\n`{path}`\n\n`````{language}\n{text}`````\n"

    def _linked(self, text: str, folder: PurePosixPath, here: PurePosixPath) -> str:
        return _CODE_OR_LINK.sub(lambda match: self._link(match, folder, here), text)

    def _link(self, match: "re.Match[str]", folder: PurePosixPath, here: PurePosixPath) -> str:
        target = match["target"]
        if match["code"] or "://" in target:
            return match[0]
        linked = PurePosixPath(os.path.normpath(folder / target))
        self.lay_out(linked)
        return f"{match['before']}{os.path.relpath(place(linked), here.parent)}"


def main() -> None:
    """Lay out the site anew."""
    shutil.rmtree(STAGE, ignore_errors=True)
    site = Site()
    site.lay_out(PurePosixPath("docs/site.css"))
    for page in pages():
        site.lay_out(PurePosixPath(page.relative_to(ROOT)))


if __name__ == "__main__":
    main()
