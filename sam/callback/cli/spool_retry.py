"""``spool retry``: another try for dead letters and for bodies that were not understood."""

from dataclasses import replace
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from sam.callback.cli.output import fail
from sam.callback.cli.spool_access import (
    AllOption,
    Entries,
    KindOption,
    Numbers,
    PathOption,
    opened,
    require_one_way,
    selected,
)
from sam.callback.inbox.store import DEAD, Entry, Kind
from sam.callback.logs import printable
from sam.callback.service.callback_body import decode, mistakes_in
from sam.callback.service.schemas import CallbackPayload
from sam.callback.storage.key_rule import KeyRule

EPILOG: Final = """Exit status

   0  all are to be applied
   1  a body is still not understood, or the spool cannot be used
   2  bad configuration, or a bad option"""
REASON: Final = "Retried by hand."
MAX_LISTED: Final = 20


def retry(
    numbers: Numbers = None,
    path: PathOption = None,
    kind: KindOption = None,
    deployment: Annotated[
        str | None, typer.Option(help="Of one number: the deployment that it means.")
    ] = None,
    status: Annotated[
        str | None, typer.Option(help="Of one number: the status that it means.")
    ] = None,
    *,
    everything: AllOption = False,
) -> None:
    """Let entries be applied again: dead letters once the database takes them.

    The service does so within seconds; without one, see `spool drain`. A body that was not
    understood is read anew: a newer release may understand it. What one means that still is not,
    --deployment and --status say. Look into the table first: a later status of the deployment may
    be there, and would be overwritten.
    """
    require_one_way(numbers, kind, everything=everything)
    results: dict[int, bool | str] = {}
    with opened(path) as file:
        if deployment is not None or status is not None:
            if deployment is None or status is None or len(numbers or []) != 1:
                fail("--deployment and --status go together, and with one number.")
            [number] = numbers or []
            results[number] = _apply_by_hand(file, number, deployment, status)
        else:
            for page in selected(file, numbers, kind):
                known = [entry for entry in page if entry.kind is not Kind.INVALID]
                file.requeue(known, REASON)
                results |= {entry.number: True for entry in known}
                results |= {
                    entry.number: _read_anew(file, entry)
                    for entry in page
                    if entry.kind is Kind.INVALID
                }
    _report(results)


def _report(results: dict[int, bool | str]) -> None:
    """Print what became of each entry: due, overtaken (False), or what is wrong with it."""
    typer.echo(f"{list(results.values()).count(True)} to be applied.")
    if overtaken := list(results.values()).count(False):
        typer.echo(f"{overtaken} deleted: a later callback of the deployment is there.")
    not_understood = {number: why for number, why in results.items() if isinstance(why, str)}
    if not_understood:
        typer.echo(f"{len(not_understood)} not understood:")
        for number, why in list(not_understood.items())[:MAX_LISTED]:
            typer.echo(f"  {number}: {printable(why)}")
        if len(not_understood) > MAX_LISTED:
            typer.echo(f"  and {len(not_understood) - MAX_LISTED} more")
        typer.echo("Say what one means: spool retry NUMBER --deployment ID --status STATUS")
        raise typer.Exit(1)


def _read_anew(file: Entries, entry: Entry) -> bool | str:
    """Apply a body that was not understood; return as `_apply_as`, or what is wrong with it."""
    try:
        payload, body = decode(entry.payload or b"")
    except ValidationError as error:
        return "; ".join(mistakes_in(error))
    return _apply_as(file, replace(entry, payload=body), payload)


def _apply_by_hand(file: Entries, number: int, deployment_id: str, status: str) -> bool:
    entries = file.get([number])
    if not entries or entries[0].kind not in DEAD:
        fail(f"{number} is no dead letter and no body that was not understood.")
    try:
        payload = CallbackPayload(deploymentId=deployment_id, status=status)
    except ValidationError as error:
        fail(f"It cannot be that: {'; '.join(mistakes_in(error))}.")
    return _apply_as(file, entries[0], payload)


def _apply_as(file: Entries, entry: Entry, payload: CallbackPayload) -> bool:
    """Make an entry due as that callback; False if a later one of the deployment is there."""
    return file.replace_dead(
        replace(
            entry,
            kind=Kind.QUEUED,
            deployment_id=payload.deploymentId,
            status=payload.status,
            reason=REASON,
            key=KeyRule.named(file.key_rule).key(payload.deploymentId),
        )
    )
