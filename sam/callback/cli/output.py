"""Command output: final messages, and escaping of text from outside."""

import json
from typing import Final, NoReturn

import typer

EXIT_FAILURE: Final = 1
EXIT_BAD_CONFIGURATION: Final = 2


def fail(message: str, exit_status: int = EXIT_FAILURE) -> NoReturn:
    """Print why on standard error, and end the command."""
    typer.echo("\n".join(map(printable, message.split("\n"))), err=True)
    raise typer.Exit(exit_status)


def refuse(message: str) -> NoReturn:
    """End the command before it has begun: a bad option, or bad configuration."""
    fail(message, EXIT_BAD_CONFIGURATION)


def printable(text: str, limit: int | None = None) -> str:
    """Return a text on one line, with JSON's escapes for what a terminal would obey.

    `str.isprintable` is false for controls (ESC, C1), for format characters (U+202E, which turns
    the direction of writing), for line ends and for lone surrogates.

    Args:
        text: From outside: a callback, a database, a server.
        limit: The most characters of it that are shown.
    """
    shown = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text[:limit])
    return shown if len(text) == len(text[:limit]) else f"{shown}..."


def print_json(fields: object) -> None:
    """Print one line of JSON: ASCII, so that any terminal and any pipe takes it as it is."""
    typer.echo(json.dumps(fields))
