"""Spool access of the commands: options that select the spool and its entries."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from sam.callback import logs
from sam.callback.cli.output import fail
from sam.callback.inbox.sqlite.ownership import open_beside
from sam.callback.inbox.sqlite.schema import (
    OlderSpoolError,
    SpoolVersionError,
    check_that_it_is_a_spool,
)
from sam.callback.inbox.store import Entry, Kind, StoreUnavailableError
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.settings import SpoolSettings

if TYPE_CHECKING:
    from sam.callback.inbox.sql.operator_access import InboxAccess
    from sam.callback.inbox.sqlite.file import SpoolFile

PAGE: Final = 1_000

PathOption = Annotated[
    Path | None,
    typer.Option(
        "--path",
        help="A spool's file. Without it: the shared inbox, or CALLBACK_SPOOL_PATH.",
    ),
]
KindOption = Annotated[Kind | None, typer.Option("--kind", help="Only entries of this kind.")]
Numbers = Annotated[list[int] | None, typer.Argument(help="Numbers, as `list` shows them.")]
AllOption = Annotated[bool, typer.Option("--all", help="All entries (of --kind).")]


Entries: TypeAlias = "SpoolFile | InboxAccess"
"""The entries of a spool, or of the shared inbox."""


@contextmanager
def opened(path: Path | None) -> Iterator[Entries]:
    """Open the shared inbox, or the spool; end with exit status 1 if that cannot be done.

    Args:
        path: The spool's file; None for the shared inbox, or where there is none the settings'.

    Raises:
        SettingsError: If a setting of the spool is wrong.
    """
    settings = SpoolSettings.load()
    if path is not None or settings.callback_inbox_connection_string is None:
        path = (path or settings.callback_spool_path).absolute()
        with (
            required_spool(path),
            closing(open_beside(path, settings.callback_spool_max_bytes)) as file,
        ):
            yield file
        return
    from sam.callback.inbox.sql.operator_access import InboxAccess  # noqa: PLC0415 - see serve

    logs.configure(LogLevel.CRITICAL, LogFormat.CONSOLE, sys.stderr)
    table = settings.callback_inbox_table
    typer.echo(f"The shared inbox, {table}. A spool: --path FILE", err=True)
    try:
        with InboxAccess.open(settings) as inbox:
            yield inbox
    except StoreUnavailableError as error:
        fail(str(error))


@contextmanager
def required_spool(path: Path) -> Iterator[None]:
    """End with exit status 1 unless there is a spool, and for as long as it can be used.

    Another file must not be taken for a damaged spool, and set aside.
    """
    if not path.is_file():
        fail(f"There is no spool at {path}. Name it with --path or CALLBACK_SPOOL_PATH.")
    try:
        with suppress(OlderSpoolError):  # it can be migrated
            check_that_it_is_a_spool(path)
        yield
    except SpoolVersionError as error:
        fail(str(error))
    except sqlite3.Error as error:
        fail(f"{path} is no spool, or one that cannot be used: {error}.")


def require_one_way(numbers: list[int] | None, kind: Kind | None, *, everything: bool) -> None:
    """End unless entries are named in one way: an option must not be ignored."""
    if everything and numbers:
        fail("Name entries by their numbers, or say --all; not both.")
    if not everything and not numbers:
        fail("Name entries by their numbers, or say --all.")
    if numbers and kind:
        fail("--kind goes with --all: a number names one entry, whatever its kind.")


def selected(
    file: Entries, numbers: list[int] | None = None, kind: Kind | None = None, after: int = 0
) -> Iterator[list[Entry]]:
    """Yield entries, a page at a time: those with the numbers, or else all of a kind, or of all.

    Args:
        file: Where they are.
        numbers: Theirs.
        kind: Theirs, unless they have numbers.
        after: The number that they begin after.
    """
    if numbers:
        entries = file.get(numbers)
        if missing := set(numbers) - {entry.number for entry in entries}:
            typer.echo(f"Not there: {', '.join(map(str, sorted(missing)))}.", err=True)
        yield entries
        return
    last = file.last_number()  # what comes in meanwhile has higher numbers
    while page := [
        entry
        for entry in file.page([kind] if kind else list(Kind), after=after, limit=PAGE)
        if entry.number <= last
    ]:
        yield page
        after = page[-1].number
