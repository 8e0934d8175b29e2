"""Scripts that make the shared inbox, one for each kind of database; by hand, or by `init`."""

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Final

VERSION: Final = 1
"""The version of the schema that this release reads and writes."""

DEFAULT_TABLE: Final = "sam_callback_inbox"

_NAME = re.compile(rf"\b{DEFAULT_TABLE}(_version\b|_\w+|\b)")


def version_table(table: str) -> str:
    """Return the name of the table that holds the schema's version, beside the inbox."""
    return f"{table}_version"


def script(name: str, table: str, quote: Callable[[str], str]) -> str:
    """Return a script, for a table of this name.

    Args:
        name: ``postgresql`` or ``sqlserver``.
        table: The inbox's table: 'name', 'schema.name' or 'database.schema.name'.
        quote: Quotes an identifier, each part of a dotted one by itself.
    """
    text = (files(__name__) / f"{name}.sql").read_text(encoding="utf-8")

    def named(found: re.Match[str]) -> str:
        suffix = found[1]
        # An index is named without the schema of its table.
        is_table = suffix in {"", "_version"}
        return quote((table if is_table else table.rpartition(".")[2]) + suffix)

    return _NAME.sub(named, text)
