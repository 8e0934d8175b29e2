"""The spool that a command works on: found, looked at, opened."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sam.callback.cli.refusal import refuse
from sam.callback.inbox.ownership import open_beside
from sam.callback.inbox.spool_file import SpoolFile
from sam.callback.inbox.spool_schema import (
    OlderSpoolError,
    SpoolVersionError,
    check_that_it_is_a_spool,
)
from sam.callback.settings import SettingsError, load_spool_settings

PathOption = Annotated[
    Path | None,
    typer.Option("--path", help="The spool's file. Without it: CALLBACK_SPOOL_PATH."),
]


@contextmanager
def opened(path: Path | None) -> Iterator[SpoolFile]:
    """Open the spool; end with exit status 1 if that cannot be done, 2 for bad settings.

    Args:
        path: Its file; None for that of the settings.
    """
    try:
        settings = load_spool_settings()
    except SettingsError as error:
        refuse(str(error))
    path = (path or settings.callback_spool_path).absolute()
    require_spool(path)
    try:
        with closing(open_beside(path, settings.callback_spool_max_bytes)) as file:
            yield file
    except SpoolVersionError as error:
        fail(str(error))
    except sqlite3.Error as error:
        fail(f"The spool {path} cannot be used: {error}.")


def require_spool(path: Path) -> None:
    """End unless there is a spool: another file must not be taken for a damaged one."""
    if not path.is_file():
        fail(f"There is no spool at {path}. Name it with --path or CALLBACK_SPOOL_PATH.")
    try:
        with suppress(OlderSpoolError):  # it can be migrated
            check_that_it_is_a_spool(path)
    except SpoolVersionError as error:
        fail(str(error))
    except sqlite3.Error as error:
        fail(f"{path} is no spool, or a damaged one: {error}.")


def fail(message: str) -> NoReturn:
    """Say what is wrong, and end with exit status 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)
