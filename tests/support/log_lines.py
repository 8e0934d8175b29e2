"""The schema of a log line, and its documentation.

`python -m tests.support.log_lines` writes the tables of docs/logs.md anew, from the schema.
"""

import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

DOCS: Final = Path(__file__).parents[2] / "docs"
SCHEMA_FILE: Final = DOCS / "log-line.schema.json"
PAGE: Final = DOCS / "logs.md"
OWN: Final = "sam.callback"

HOW_TO_ADD: Final = (
    "For a new event or field: add it to docs/log-line.schema.json (an event under $defs/events "
    "and in the list `anyOf`; a field under $defs/fields and in its event's `properties`, and in "
    "`required` if it is always there), then run `uv run python -m tests.support.log_lines`, which "
    "writes docs/logs.md."
)


@functools.cache
def schema() -> dict[str, Any]:
    """Return the schema."""
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def check(lines: Iterable[dict[str, Any]]) -> None:
    """Hold log lines to the schema.

    Raises:
        AssertionError: If one does not match; it says why, and what to do.
    """
    is_valid = _validator().is_valid
    for line in lines:
        assert is_valid(line), f"{_mistakes(line)}\nThe line: {line}\n{HOW_TO_ADD}"


@functools.cache
def _validator(event: str | None = None) -> jsonschema_rs.Draft202012Validator:
    whole = schema()
    if event:
        whole = {"$ref": f"#/$defs/events/{event}", "$defs": whole["$defs"]}
    return jsonschema_rs.Draft202012Validator(whole)


def _mistakes(line: dict[str, Any]) -> str:
    event = None
    if str(line.get("logger")).startswith(OWN):
        event = line.get("event")
        if event not in schema()["$defs"]["events"]:
            return f"The event {event!r} is not documented."
    errors = _validator(event).iter_errors(line)
    return "A log line is not as documented: " + "; ".join(
        f"{'.'.join(map(str, error.instance_path))}: {error.message}".removeprefix(": ")
        for error in errors
    )


def event_fields(event: str) -> set[str]:
    """Return the fields of an event, without those of every line."""
    properties = schema()["$defs"]["events"][event]["properties"]
    return set(properties) - {"event", "level"}


def required_fields(event: str) -> set[str]:
    """Return the fields that every line of an event has, without those of every line."""
    return set(schema()["$defs"]["events"][event]["required"]) - {"request_id"}


def event_levels(event: str) -> set[str]:
    """Return the levels of an event."""
    level = schema()["$defs"]["events"][event]["properties"]["level"]
    return set(level.get("enum") or [level["const"]])


def page_with_tables() -> str:
    """Return docs/logs.md with its tables as the schema has them."""
    text = PAGE.read_text(encoding="utf-8")
    tables = {"common": _common_table(), "events": _event_tables(), "fields": _field_table()}
    for name, table in tables.items():
        begin, end = f"<!-- {name}: from the schema -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"docs/logs.md has no {begin} ... {end}"
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def _common_table() -> str:
    common = schema()["$defs"]["common"]
    rows = [
        (f"`{name}`", _type(field), field["description"])
        for name, field in common["properties"].items()
    ]
    return _table(("field", "type", "meaning"), rows)


def _event_tables() -> str:
    groups: dict[str, list[tuple[str, ...]]] = {}
    for name, event in schema()["$defs"]["events"].items():
        fields = [
            f"`{field}`" if field in event["required"] else f"(`{field}`)"
            for field in event["properties"]
            if field not in {"event", "level"}
        ]
        levels = [level for level in _levels_in_order() if level in event_levels(name)]
        groups.setdefault(event["x-group"], []).append(
            (
                f"`{name}`",
                ", ".join(levels),
                event["description"],
                event["x-action"] or "Nothing.",
                ", ".join(fields) or "-",
            )
        )
    header = ("event", "level", "what it means", "what to do", "fields")
    return "\n\n".join(f"### {group}\n\n{_table(header, rows)}" for group, rows in groups.items())


def _field_table() -> str:
    events = schema()["$defs"]["events"]
    rows = []
    for name, field in schema()["$defs"]["fields"].items():
        where = [f"`{event}`" for event, its in events.items() if name in its["properties"]]
        rows.append((f"`{name}`", _type(field), field["description"], ", ".join(where)))
    return _table(("field", "type", "meaning", "in"), rows)


def _levels_in_order() -> list[str]:
    levels: list[str] = schema()["$defs"]["common"]["properties"]["level"]["enum"]
    return levels


def _type(field: dict[str, Any]) -> str:
    if reference := field.get("$ref"):
        return {"time": "string, time", "text": "string"}[reference.rpartition("/")[2]]
    if values := field.get("enum"):
        return " or ".join(f"`{value}`" for value in values)
    if "const" in field:
        return f"`{field['const']}`"
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    text = " or ".join(kinds)
    return f"{text} of strings" if text == "array" else text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def examples(language: str) -> list[str]:
    """Return the code blocks of docs/logs.md in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(), encoding="utf-8")
