"""Setting sources: the environment, Docker secrets, a file ``.env``."""

import io
import os
import re
import unicodedata
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

ENV_FILE: Final = Path(".env")
SECRETS_DIRECTORY: Final = Path("/run/secrets")
PREFIXES: Final = ("callback_", "sql_sam_")
"""What the name of a setting begins with, in small letters."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class SourceError(Exception):
    """Unusable source. The message names it, with cause and remedy; it holds no value."""


def read_variables() -> dict[str, str]:
    """Return every variable whose name begins like a setting's, by its name in small letters.

    A value is what is written there; nothing in it is replaced. The environment comes before the
    secrets, and these before ``.env``. A variable that is empty counts as one that is not set.

    Raises:
        SourceError: If ``.env`` or a secret cannot be read, or if a value is no text in UTF-8.
    """
    variables = {
        name.lower(): value
        for source in (_env_file(), _secrets(), os.environ)
        for name, value in source.items()
        if value and name.lower().startswith(PREFIXES)
    }
    for name, value in variables.items():
        if _SURROGATE.search(value):  # Python's way to hold bytes that it cannot decode
            raise SourceError(f"the value of {name.upper()} in the environment is not in UTF-8.")
    return variables


def _secrets() -> dict[str, str]:
    """Return the secrets by their names; a line end behind a value is the file's, not its own."""
    try:
        paths = list(SECRETS_DIRECTORY.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _unreadable(SECRETS_DIRECTORY, error) from None
    return {
        path.name: _text(path).rstrip("\r\n")
        for path in paths
        if path.name.lower().startswith(PREFIXES)
    }


def _env_file() -> dict[str, str | None]:
    path = ENV_FILE.absolute()
    try:
        text = _text(path)
    except FileNotFoundError:
        return {}
    # Python-dotenv's own functions replace ${NAME}, and pass over a line that they cannot parse.
    bindings = list(parse_stream(io.StringIO(text)))
    for binding in bindings:
        _require_as_written(path, binding)
    return {binding.key: binding.value for binding in bindings if binding.key}


def _require_as_written(path: Path, binding: Binding) -> None:
    text = binding.original.string
    line = binding.original.line + len(text[: -len(text.lstrip())].splitlines())
    if binding.error:
        raise SourceError(
            f"line {line} of the file {path} is not NAME=value, or a quotation mark in it has no "
            "second one. A value in single quotes may hold any other character."
        )
    value = binding.value or ""
    if value not in text and any(unicodedata.category(char) == "Cc" for char in value):
        raise SourceError(
            f"{binding.key} in the file {path}, line {line}, has a control character in it: in "
            r"double quotes \n, \r, \t and the like stand for one. Write the value in single "
            "quotes, where a backslash is a backslash."
        )


def _text(path: Path) -> str:
    """Return a file's text.

    Raises:
        FileNotFoundError: If there is no such file.
        SourceError: If it cannot be read, or is no text in UTF-8, with or without a BOM.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError:
        raise SourceError(f"the file {path} is not in UTF-8. Save it in that encoding.") from None
    if "\0" in text:
        raise SourceError(
            f"the file {path} holds NUL characters; it may be in UTF-16. Save it in UTF-8."
        )
    return text


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{path} cannot be read ({error.strerror}). Let the user that this runs as read it, or "
        "take it away."
    )
