"""``spool``: look into the spool and mend it, beside a running service or without one."""

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from sam.callback.cli.spool_access import PathOption, fail, opened
from sam.callback.cli.spool_drain import EPILOG as DRAIN_EPILOG
from sam.callback.cli.spool_drain import drain
from sam.callback.cli.spool_retry import Retried, retry_as, retry_entries
from sam.callback.inbox.entries import Entry, Kind
from sam.callback.inbox.spool_file import SpoolFile
from sam.callback.model import received_at

PAGE: Final = 1_000
WIDE: Final = 120
"""Columns of a terminal from which on there is room for the time and the reason."""

app = typer.Typer(
    name="spool",
    add_completion=False,
    help="Look into the spool and mend it, beside a running service or without one.",
    no_args_is_help=True,
)

_KindOption = Annotated[Kind | None, typer.Option("--kind", help="Only entries of this kind.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, one object per line.")]
_Numbers = Annotated[list[int] | None, typer.Argument(help="Numbers, as `list` shows them.")]
_AllOption = Annotated[bool, typer.Option("--all", help="All entries (of --kind).")]
_YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_entries(
    path: PathOption = None,
    kind: _KindOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 50,
    after: Annotated[int, typer.Option(help="Begin after this number: the next page.")] = 0,
    *,
    as_json: _JsonOption = False,
) -> None:
    """Show entries, the oldest first."""
    entries: list[Entry] = []
    with opened(path) as file:
        while len(entries) < limit and (
            page := file.page(_kinds(kind), after=after, limit=limit - len(entries))
        ):
            entries += [replace(entry, payload=None) for entry in page]
            after = page[-1].number
        totals = file.totals()
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(_as_dict(entry, with_payload=False), ensure_ascii=False))
        return
    console = Console()
    if entries:
        console.print(_table(entries, is_wide=console.width >= WIDE))
    parts = [f"{totals[each].entries} {each}" for each in Kind]
    console.print(", ".join(parts), highlight=False)
    if len(entries) == limit:
        console.print(f"More: spool list --after {entries[-1].number}", highlight=False)


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="Its number, as `list` shows it.")],
    path: PathOption = None,
    *,
    as_json: _JsonOption = False,
) -> None:
    """Show one entry with all that is known of it."""
    with opened(path) as file:
        entries = file.get([number])
    if not entries:
        fail(f"There is no entry {number}. It may have been applied, or replaced by a newer one.")
    fields = _as_dict(entries[0], with_payload=True)
    if as_json:
        typer.echo(json.dumps(fields, ensure_ascii=False))
        return
    for name, value in fields.items():
        typer.echo(f"{name:14} {value}")


@app.command(
    epilog="""Exit status

   0  all are to be applied
   1  a body is still not understood, or the spool cannot be used
   2  bad configuration, or a bad option"""
)
def retry(
    numbers: _Numbers = None,
    path: PathOption = None,
    kind: _KindOption = None,
    deployment: Annotated[
        str | None, typer.Option(help="Of one number: the deployment that it means.")
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="Of one number: the status that it means.")
    ] = None,
    *,
    everything: _AllOption = False,
) -> None:
    """Let entries be applied again: dead letters once the database takes them.

    The service does so within seconds; without one, see `spool drain`. A body that was not
    understood is read anew: a newer release may understand it. What one means that still is not,
    --deployment and --status say. Look into the table first: a later status of the deployment may
    be there, and would be overwritten.
    """
    _require_one_way(numbers, kind, everything=everything)
    by_hand = deployment is not None or status is not None
    if by_hand and (deployment is None or status is None or len(numbers or []) != 1):
        fail("--deployment and --status go together, and with one number.")
    with opened(path) as file:
        if numbers and deployment is not None and status is not None:
            retry_as(file, numbers[0], deployment, status).report()
            return
        retried = Retried()
        for page in _selected(file, numbers, kind, everything=everything):
            retry_entries(file, page, retried)
    retried.report()


@app.command()
def drop(
    numbers: _Numbers = None,
    path: PathOption = None,
    kind: _KindOption = None,
    *,
    everything: _AllOption = False,
    yes: _YesOption = False,
) -> None:
    """Delete entries for good. Export them before."""
    _require_one_way(numbers, kind, everything=everything)
    if not yes:
        of_kind = f" of the kind {kind}" if kind else ""
        what = f"all entries{of_kind}" if everything else f"{len(numbers or [])} entries"
        typer.confirm(f"Delete {what} for good?", abort=True)
    with opened(path) as file:
        done = 0
        for page in _selected(file, numbers, kind, everything=everything):
            file.settle([entry.number for entry in page], [])
            done += len(page)
    typer.echo(f"{done} deleted.")


@app.command()
def export(
    output: Annotated[
        Path | None, typer.Option(help="The file. Without it: standard output.")
    ] = None,
    path: PathOption = None,
    kind: _KindOption = None,
) -> None:
    """Write entries as JSON, one object per line, with their payload."""
    with opened(path) as file:
        pages = _selected(file, None, kind, everything=True)
        if output is None:
            _write(pages, sys.stdout.write)
            return
        # Like the spool, for its owner alone: it holds what the bots put out.
        descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)  # it may have been there
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            done = _write(pages, stream.write)
    typer.echo(f"{done} exported to {output}.")


app.command(epilog=DRAIN_EPILOG)(drain)


def _require_one_way(numbers: list[int] | None, kind: Kind | None, *, everything: bool) -> None:
    """End unless entries are named in one way: what is not heeded would be misunderstood."""
    if everything and numbers:
        fail("Name entries by their numbers, or say --all; not both.")
    if not everything and not numbers:
        fail("Name entries by their numbers, or say --all.")
    if numbers and kind:
        fail("--kind goes with --all: a number names one entry, whatever its kind.")


def _selected(
    file: SpoolFile, numbers: list[int] | None, kind: Kind | None, *, everything: bool
) -> Iterator[list[Entry]]:
    if numbers and not everything:
        entries = file.get(numbers)
        if missing := set(numbers) - {entry.number for entry in entries}:
            typer.echo(f"Not there: {', '.join(map(str, sorted(missing)))}.", err=True)
        yield entries
        return
    kinds = _kinds(kind)
    totals = file.totals()
    after = 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(totals[each].entries for each in kinds))
        # Entries that come in meanwhile have higher numbers; they are for the next run.
        last = file.last_number()
        while page := [
            entry for entry in file.page(kinds, after=after, limit=PAGE) if entry.number <= last
        ]:
            after = page[-1].number
            yield page
            progress.advance(task, len(page))


def _write(pages: Iterable[list[Entry]], write: Any) -> int:  # noqa: ANN401 - a stream's
    done = 0
    for page in pages:
        for entry in page:
            write(json.dumps(_as_dict(entry, with_payload=True), ensure_ascii=False) + "\n")
        done += len(page)
    return done


def _as_dict(entry: Entry, *, with_payload: bool) -> dict[str, object]:
    fields: dict[str, object] = {
        "number": entry.number,
        "kind": entry.kind.value,
        "deploymentId": entry.deployment_id,
        "status": entry.status,
        "receivedAt": received_at(entry.number).isoformat(),
        "reason": entry.reason,
    }
    if with_payload and entry.payload is not None:
        try:
            fields["payload"] = entry.payload.decode()
        except UnicodeDecodeError:
            fields["payloadBase64"] = base64.b64encode(entry.payload).decode()
    return fields


def _table(entries: list[Entry], *, is_wide: bool) -> Table:
    # A number that is cut short is of no use: it is what the other commands take.
    table = Table(Column("number", no_wrap=True), "kind", box=SIMPLE_HEAD)
    for name in ("deployment", "status"):
        table.add_column(name, overflow="fold")
    if is_wide:
        table.add_column("received (UTC)", no_wrap=True)
        table.add_column("reason")
    for entry in entries:
        cells = [str(entry.number), entry.kind, entry.deployment_id or "-", entry.status or "-"]
        if is_wide:
            cells += [f"{received_at(entry.number):%Y-%m-%d %H:%M:%S}", entry.reason]
        table.add_row(*map(escape, cells))
    return table


def _kinds(kind: Kind | None) -> list[Kind]:
    return [kind] if kind else list(Kind)
