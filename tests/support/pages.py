"""Generated pages of the documentation, and their sources.

`python -m tests.support.pages` writes all of it anew. A part of a page that is written by hand
stands between two comments, `<!-- begin: NAME -->` and `<!-- end: NAME -->`.
"""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

from sam.callback.service.main import create_app
from sam.callback.setting_types import Seconds
from sam.callback.settings import Settings
from tests.support import flow_chart

ROOT: Final = Path(__file__).parents[2]
HOW_TO: Final = "Run `uv run python -m tests.support.pages`, which writes it anew."

_NOT_BY_HAND: Final = "<!-- Written by tests/support/pages.py: not to be edited by hand. -->"
_SETTINGS: Final = """\
# Settings

*[En español](settings.es.md)*

They come from the environment, then from files in `/run/secrets` that are named like the variable,
in small letters, then from a file `.env` in the working directory. An empty variable counts as one
that is not set. Durations take a unit (`ms`, `s`, `min`, `h`, `d`; seconds without one), sizes too
(`KiB`, `MiB`, `GiB`; bytes without one). A missing or bad value ends the start with exit status 2,
and one message that names every such variable. `true` and `false` are `yes` and `no`.

Values are taken as they are written: nothing in them is replaced, and only the line end behind a
secret is not a part of it. Files are in UTF-8, with or without a BOM. One that is not, or that
cannot be read, ends the start likewise, and the message names it; so does, in `.env`, a line that
cannot be parsed, and an escape in double quotes that stands for a control character, as in
`"SQL01\\new"`: single quotes keep it as it is.
[.env.example](../../.env.example) says what to write where.

What can be used and is probably not meant is a warning in the log, `suspicious_setting`, and a line
of `check`: quotation marks or blanks round a value, and a variable that is no setting.

`CALLBACK_API_KEY` is required, and so are `SQL_SAM_SERVER`, `SQL_SAM_DATABASE`, `SQL_SAM_USER` and
`SQL_SAM_PASSWORD` where `SQL_SAM_CONNECTION_STRING` is not set.
"""
_ESSENTIAL: Final = (
    "CALLBACK_API_KEY",
    "SQL_SAM_SERVER",
    "SQL_SAM_DATABASE",
    "SQL_SAM_USER",
    "SQL_SAM_PASSWORD",
    "SQL_SAM_TABLE",
)

_UNITS: Final = {3600: "h", 60: "min", 1: "s"}
_SIZES: Final = {2**30: "GiB", 2**20: "MiB", 2**10: "KiB"}


def default_of(field: FieldInfo) -> str:
    """Return a setting's default as one would write it into .env; none is the empty string."""
    value = field.default
    if field.is_required() or value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, ByteSize):
        size = next(size for size in _SIZES if value % size == 0)
        return f"{value // size} {_SIZES[size]}"
    if get_args(Seconds)[1] in field.metadata:
        unit = next((unit for unit in _UNITS if value and value % unit == 0), 1)
        return f"{value / unit:g} {_UNITS[unit]}"
    return value.as_posix() if isinstance(value, Path) else str(value)


def setting_names() -> list[str]:
    """Return the variables in the order of .env.example, which is told by subject."""
    example = ROOT.joinpath(".env.example").read_text(encoding="utf-8")
    return re.findall(r"(?m)^(?:# )?([A-Z_]+)=", example)


def settings_table(names: Iterable[str]) -> str:
    """Return settings with their meanings, in the words of the message about a bad value."""
    rows = ["| variable | meaning | default |", "|---|---|---|"]
    for name in names:
        field = Settings.model_fields[name.lower()]
        default = f"`{default_of(field)}`" if default_of(field) else ""
        rows.append(f"| `{name}` | {field.description} | {default} |")
    return "\n".join(rows) + "\n"


def cli_page() -> str:
    """Return the page of the command line, by Typer's own generator."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "typer", "sam.callback.cli", "utils", "docs"),
            *("--name", "sam-callback", "--title", "The command line"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    text = html.unescape(run.stdout).strip()
    # What follows an exit status in the help is laid out for a terminal.
    text = re.sub(r"(?m)^ +(\d+)  (.+)$", r"* `\1`: \2", text)
    text = re.sub(r"(?m)^(\* `\d+`: .+)\n(?=[^*\n])", r"\1\n\n", text)
    # Typer cuts a long summary short in the list of commands; each has it in full below.
    summaries = dict(re.findall(r"(?m)^#+ `sam-callback (?:\w+ )?(\w+)`\n\n(.+)$", text))
    text = re.sub(
        r"(?m)^\* `(\w+)`: .*\.\.\.$", lambda cut: f"* `{cut[1]}`: {summaries[cut[1]]}", text
    )
    return _generated(text.replace("Exit status\n", "**Exit status**:\n"))


def http_page() -> str:
    """Return the page of HTTP, from the OpenAPI document."""
    settings = Settings(
        callback_api_key=SecretStr("no-secret"),
        sql_sam_connection_string=SecretStr("DRIVER=SQLite3;Database=unused.db;"),
    )
    return _generated("\n".join(_operations(create_app(settings).openapi())).strip())


def _operations(document: dict[str, Any]) -> Iterator[str]:
    yield "# HTTP\n"
    yield f"{document['info']['description']}\n"
    yield (
        "The service itself has this as `/openapi.json`, and as a page to try it out at `/docs`. "
        "Without a valid key anything but `/health`, `/ready`, `/docs` and `/openapi.json` is "
        "answered 401, known path or not.\n"
    )
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            yield f"## {method.upper()} {path}\n"
            yield f"{operation.get('description') or operation['summary']}\n"
            for parameter in operation.get("parameters", ()):
                yield f"Header `{parameter['name']}`: {parameter['description']}\n"
            if body := operation.get("requestBody"):
                yield f"The body: {body['description']}\n"
                yield "As JSON Schema:\n"
                yield _code(body["content"]["application/json"]["schema"])
            for status, response in operation["responses"].items():
                yield f"**{status}** {response['description']}\n"
                for name, header in response.get("headers", {}).items():
                    yield f"Header `{name}`: {header['description']}\n"
                for content in response.get("content", {}).values():
                    if example := content.get("example"):
                        yield _code(example)


def _code(value: object) -> str:
    language, text = (
        ("text", value) if isinstance(value, str) else ("json", json.dumps(value, indent=2))
    )
    return f"```{language}\n{str(text).rstrip()}\n```\n"


def settings_page() -> str:
    """Return the page of the settings."""
    return _generated(f"{_SETTINGS}\n{settings_table(setting_names())}")


def _generated(text: str) -> str:
    return f"{_NOT_BY_HAND}\n\n{text.strip()}\n"


def _between(path: str, name: str, text: str) -> str:
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->\n"
    page = ROOT.joinpath(path).read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{path} has no part between {begin.strip()} and {end.strip()}."
    return f"{before}{begin}\n{text}\n{end}{after}"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "README.md": lambda: _between("README.md", "settings", settings_table(_ESSENTIAL)),
    "docs/reference/settings.md": settings_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/http.md": http_page,
    "docs/images/callback.svg": lambda: flow_chart.picture(flow_chart.ENGLISH),
    "docs/images/callback.es.svg": lambda: flow_chart.picture(flow_chart.SPANISH),
}
"""Each page that is generated, wholly or in part, and what makes it."""


if __name__ == "__main__":
    for name, make in PAGES.items():
        ROOT.joinpath(name).write_text(make(), encoding="utf-8")
