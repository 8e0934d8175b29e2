"""Spool access of the commands: options that select the spool and its entries."""

import sqlite3
import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, Protocol

import typer

from sam.callback import logs
from sam.callback.cli.output import fail
from sam.callback.inbox.sqlite.ownership import open_beside
from sam.callback.inbox.sqlite.schema import (
    OlderSpoolError,
    SpoolVersionError,
    check_that_it_is_a_spool,
)
from sam.callback.inbox.store import Entry, Kind, StoreUnavailableError, Total
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.settings import SpoolSettings

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


class Entries(Protocol):
    """Entries of a spool, or of the shared inbox."""

    key_rule: str

    def page(self, kinds: Collection[Kind], *, after: int, limit: int) -> list[Entry]:
        """Return entries of these kinds with numbers above `after`, the lowest first."""

    def get(self, numbers: Collection[int]) -> list[Entry]:
        """Return the entries with these numbers that are still there."""

    def totals(self) -> dict[Kind, Total]:
        """Return what there is, for every kind."""

    def last_number(self) -> int:
        """Return the highest sequence number."""

    def drop(self, entries: Collection[Entry]) -> None:
        """Delete entries for good."""

    def requeue(self, entries: Collection[Entry], reason: str) -> None:
        """Let entries be applied again."""

    def replace_dead(self, entry: Entry) -> bool:
        """Put an entry in the place of the dead one with its number; say whether it is there."""


@contextmanager
def opened(path: Path | None) -> Iterator[Entries]:
    """Open the shared inbox, or the spool; end with exit status 1 if that cannot be done.

    Args:
        path: The spool's file; None for the shared inbox, or where there is none the settings'.

    Raises:
        SettingsError: If a setting of the spool is wrong.
    """
    settings = SpoolSettings.load()
    if path is None and settings.callback_inbox_connection_string is not None:
        with _opened_inbox(settings) as entries:
            yield entries
        return
    path = (path or settings.callback_spool_path).absolute()
    with (
        required_spool(path),
        closing(open_beside(path, settings.callback_spool_max_bytes)) as file,
    ):
        yield file


@contextmanager
def _opened_inbox(settings: SpoolSettings) -> Iterator[Entries]:
    from sam.callback.inbox.sql.operator_access import InboxAccess  # noqa: PLC0415 - see serve

    logs.configure(LogLevel.CRITICAL, LogFormat.CONSOLE, sys.stderr)
    table = settings.callback_inbox_table
    typer.echo(f"The shared inbox, {table}. A spool: --path FILE", err=True)
    try:
        with InboxAccess.open(settings) as entries:
            yield entries
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
    file: Entries, numbers: list[int] | None = None, kind: Kind | None = None
) -> Iterator[list[Entry]]:
    """Yield entries, a page at a time: those with the numbers, or else all of a kind, or of all."""
    if numbers:
        entries = file.get(numbers)
        if missing := set(numbers) - {entry.number for entry in entries}:
            typer.echo(f"Not there: {', '.join(map(str, sorted(missing)))}.", err=True)
        yield entries
        return
    after, last = 0, file.last_number()  # what comes in meanwhile has higher numbers
    while page := [
        entry
        for entry in file.page([kind] if kind else list(Kind), after=after, limit=PAGE)
        if entry.number <= last
    ]:
        yield page
        after = page[-1].number
