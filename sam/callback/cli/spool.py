"""``spool``: look into the spool and mend it, beside a running service or without one."""

import asyncio
import base64
import itertools
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.progress import Progress

from sam.callback import logs
from sam.callback.cli.output import fail, print_json
from sam.callback.cli.spool_access import (
    AllOption,
    KindOption,
    Numbers,
    PathOption,
    opened,
    require_one_way,
    required_spool,
    selected,
)
from sam.callback.cli.spool_retry import EPILOG as RETRY_EPILOG
from sam.callback.cli.spool_retry import retry
from sam.callback.inbox.store import Entry, Kind, StoreUnavailableError
from sam.callback.logs import printable
from sam.callback.model import received_at
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.settings import Settings

app = typer.Typer(
    name="spool",
    add_completion=False,
    help="Look into the spool and mend it, beside a running service or without one.",
    no_args_is_help=True,
)

_JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, one object per line.")]


@app.command("list")
def list_entries(
    path: PathOption = None,
    kind: KindOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 50,
    after: Annotated[int, typer.Option(help="Begin after this number: the next page.")] = 0,
    *,
    as_json: _JsonOption = False,
) -> None:
    """Show entries, the oldest first: when they came (UTC), what they wait for, and why."""
    with opened(path) as file:
        found = itertools.chain.from_iterable(selected(file, kind=kind, after=after))
        entries = [replace(entry, payload=None) for entry in itertools.islice(found, limit)]
        totals = file.totals()
    if as_json:
        for entry in entries:
            print_json(_as_dict(entry))
        return
    for entry in entries:
        received = f"{received_at(entry.number):%Y-%m-%d %H:%M:%S}"
        which = f"{entry.deployment_id or '-'}  {entry.status or '-'}"
        line = f"{entry.number}  {received}  {entry.kind:11}  {which}  {entry.reason}"
        typer.echo(printable(line))
    typer.echo(", ".join(f"{totals[each].entries} {each}" for each in Kind))
    if len(entries) == limit:
        typer.echo(f"More: spool list --after {entries[-1].number}")


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
    fields = _as_dict(entries[0])
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        typer.echo(f"{name:14} {printable(str(value))}")


app.command(epilog=RETRY_EPILOG)(retry)


@app.command()
def drop(
    numbers: Numbers = None,
    path: PathOption = None,
    kind: KindOption = None,
    *,
    everything: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete entries for good. Export them before."""
    require_one_way(numbers, kind, everything=everything)
    if not yes:
        of_kind = f" of the kind {kind}" if kind else ""
        what = f"all entries{of_kind}" if everything else f"{len(numbers or [])} entries"
        typer.confirm(f"Delete {what} for good?", abort=True)
    done = 0
    with opened(path) as file:
        for page in selected(file, numbers, kind):
            file.drop(page)
            done += len(page)
    typer.echo(f"{done} deleted.")


@app.command()
def export(
    output: Annotated[
        Path | None, typer.Option(help="A new file. Without it: standard output.")
    ] = None,
    path: PathOption = None,
    kind: KindOption = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there; a link never.")
    ] = False,
) -> None:
    """Write entries as JSON, one object per line, with their payload."""
    with opened(path) as file:
        pages = selected(file, kind=kind)
        if output is None:
            _write(pages, sys.stdout)
            return
        with _new_file(output, force=force) as stream:
            done = _write(pages, stream)
    typer.echo(f"{done} exported to {output}.")


@app.command(
    epilog="""Exit status

   0  no callback is left that waits for the database or for its row
   1  some are, or the spool cannot be used
   2  bad configuration, or a bad option"""
)
def drain(path: PathOption = None) -> None:
    """Apply what is in the spool of an instance that will not come back.

    Needs the settings of a service, CALLBACK_API_KEY too, and that none owns the spool. What has no
    row yet stays there, and what the database refuses for good, as a dead letter.

    With a shared inbox all of it is moved there, from where the instances apply it in its order.
    """
    from sam.callback.inbox.spool_drain import drain_spool  # noqa: PLC0415 - needs the driver manager
    from sam.callback.storage.odbc.connection_string import connection_string  # noqa: PLC0415

    settings = Settings.load()
    connection_string(settings)
    if path is not None:
        settings = settings.model_copy(update={"callback_spool_path": path.absolute()})
    logs.configure(LogLevel.ERROR, LogFormat.CONSOLE, sys.stderr)
    if settings.callback_inbox_connection_string is not None:
        _move(settings)
        return
    with (
        required_spool(settings.callback_spool_path),
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("Applying", total=None)
        drained = asyncio.run(
            drain_spool(
                settings,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        )
    dead = f"{drained.dead_letters} kept as dead letters, " if drained.dead_letters else ""
    reason = printable(drained.reason)
    typer.echo(f"{drained.applied} applied, {dead}{drained.remaining} left. {reason}".rstrip())
    if drained.remaining or drained.reason:
        raise typer.Exit(1)


def _move(settings: Settings) -> None:
    from sam.callback.inbox.fallback_store import move_spool  # noqa: PLC0415 - see drain

    with required_spool(settings.callback_spool_path):
        try:
            moved = asyncio.run(move_spool(settings))
        except StoreUnavailableError as error:
            fail(printable(str(error)))
    typer.echo(f"{moved} moved into the shared inbox, {settings.callback_inbox_table}.")


def _new_file(path: Path, *, force: bool) -> TextIO:
    """Make a file for its owner alone, as the spool is; through no link."""
    try:
        if force and path.is_file() and not path.is_symlink():
            path.unlink()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        fail(f"{path} is there already. --force replaces a file, but no link and no folder.")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}.")
    return open(descriptor, "w", encoding="utf-8")  # noqa: PTH123 - a descriptor


def _write(pages: Iterable[list[Entry]], stream: TextIO) -> int:
    done = 0
    for page in pages:
        stream.writelines(f"{json.dumps(_as_dict(entry))}\n" for entry in page)
        done += len(page)
    return done


def _as_dict(entry: Entry) -> dict[str, object]:
    fields: dict[str, object] = {
        "number": entry.number,
        "kind": entry.kind.value,
        "deploymentId": entry.deployment_id,
        "status": entry.status,
        "receivedAt": received_at(entry.number).isoformat(),
        "reason": entry.reason,
    }
    if entry.payload is not None:
        try:
            fields["payload"] = entry.payload.decode()
        except UnicodeDecodeError:
            fields["payloadBase64"] = base64.b64encode(entry.payload).decode()
    return fields
