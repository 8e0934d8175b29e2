"""Command output: final messages, and JSON."""

import json
from typing import Final, NoReturn

import typer

from sam.callback.logs import printable

EXIT_FAILURE: Final = 1
EXIT_BAD_CONFIGURATION: Final = 2


def fail(message: str, exit_status: int = EXIT_FAILURE) -> NoReturn:
    """Print why on standard error, and end the command."""
    typer.echo("\n".join(map(printable, message.split("\n"))), err=True)
    raise typer.Exit(exit_status)


def refuse(message: str) -> NoReturn:
    """End the command before it has begun: a bad option, or bad configuration."""
    fail(message, EXIT_BAD_CONFIGURATION)


def print_json(fields: object) -> None:
    """Print one line of JSON: ASCII, so that any terminal and any pipe takes it as it is."""
    typer.echo(json.dumps(fields))
