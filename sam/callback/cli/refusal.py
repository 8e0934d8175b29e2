"""What ends a command before it has begun: one plain message, and exit status 2."""

from typing import Final, NoReturn

import typer

EXIT_BAD_CONFIGURATION: Final = 2


def refuse(message: str) -> NoReturn:
    """Say why on standard error, and end."""
    typer.echo(message, err=True)
    raise typer.Exit(EXIT_BAD_CONFIGURATION)


def require_driver_manager() -> None:
    """End unless unixODBC's driver manager is here, which no Python package brings along."""
    try:
        import pyodbc  # noqa: F401, PLC0415 - what is tried
    except ImportError as error:
        refuse(
            f"The ODBC driver manager is missing ({error}).\n"
            "Debian and Ubuntu: apt install unixodbc. macOS: brew install unixodbc."
        )
