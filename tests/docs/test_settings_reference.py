"""Every setting is in the reference, in English and in Spanish, with its default."""

from pathlib import Path

import pytest

from sam.callback.settings import Settings
from tests.support import markdown

REFERENCE = ["docs/reference/settings.md", "docs/reference/settings.es.md"]
REQUIRED = {"CALLBACK_API_KEY": "k", "SQL_SAM_CONNECTION_STRING": "DRIVER=SQLite3;"}


def table(name: str) -> dict[str, tuple[str, str]]:
    """Each variable's meaning and default."""
    text = markdown.ROOT.joinpath(name).read_text(encoding="utf-8")
    rows = [row for row in markdown.rows(text) if row[0].strip("`").isupper()]
    listed = [row[0].strip("`") for row in rows]
    assert len(listed) == len(set(listed)), "a variable is listed twice"
    return {row[0].strip("`"): (row[1], row[2].strip("`")) for row in rows}


@pytest.mark.parametrize("name", REFERENCE)
def test_each_is_listed_with_a_meaning(name: str) -> None:
    listed = table(name)
    assert listed.keys() == {field.upper() for field in Settings.model_fields}
    assert all(meaning for meaning, _ in listed.values())


@pytest.mark.parametrize("name", REFERENCE)
def test_the_defaults_are_those_of_the_service(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = table(name)
    monkeypatch.chdir(tmp_path)
    for variable in listed:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in REQUIRED.items():
        monkeypatch.setenv(variable, value)
    defaults = Settings.load()
    for variable, (_, default) in listed.items():
        field = Settings.model_fields[variable.lower()]
        has_default = not field.is_required() and field.default not in {None, ""}
        assert bool(default) == has_default, variable
        if default:
            monkeypatch.setenv(variable, default)
    assert Settings.load() == defaults


@pytest.mark.parametrize("language", ["md", "es.md"])
def test_a_readme_has_what_is_required_as_the_reference_has_it(language: str) -> None:
    readme = table(f"README.{language}")
    reference = table(f"docs/reference/settings.{language}")
    assert readme.items() <= reference.items()
    required = {"CALLBACK_API_KEY", "SQL_SAM_SERVER", "SQL_SAM_DATABASE", "SQL_SAM_USER"}
    assert readme.keys() >= required | {"SQL_SAM_PASSWORD"}
