"""What ``spool retry`` does: dead letters to be applied again, and bodies to be read anew."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import typer
from pydantic import ValidationError

from sam.callback.cli.spool_access import fail
from sam.callback.inbox.entries import DEAD, Entry, Kind
from sam.callback.inbox.spool_file import SpoolFile
from sam.callback.service.callback_body import decode, mistakes_in
from sam.callback.service.schemas import CallbackPayload
from sam.callback.storage.key_rule import KeyRule

REASON: Final = "Retried by hand."
MAX_LISTED: Final = 20


@dataclass(slots=True)
class Retried:
    """What became of entries.

    Attributes:
        applied: How many are to be applied.
        overtaken: How many are not, as a later callback of their deployment is in the spool.
        not_understood: Which were not understood, and why not.
    """

    applied: int = 0
    overtaken: int = 0
    not_understood: dict[int, str] = field(default_factory=dict)

    def report(self) -> None:
        """Say it, and end with exit status 1 if something was not understood."""
        typer.echo(f"{self.applied} to be applied.")
        if self.overtaken:
            typer.echo(f"{self.overtaken} deleted: a later callback of the deployment is there.")
        if not self.not_understood:
            return
        typer.echo(f"{len(self.not_understood)} not understood:")
        for number, why in list(self.not_understood.items())[:MAX_LISTED]:
            typer.echo(f"  {number}: {why}")
        if len(self.not_understood) > MAX_LISTED:
            typer.echo(f"  and {len(self.not_understood) - MAX_LISTED} more")
        typer.echo("Say what one means: spool retry NUMBER --deployment ID --status STATUS")
        raise typer.Exit(1)


def retry_entries(file: SpoolFile, entries: Sequence[Entry], retried: Retried) -> None:
    """Make entries due; what was not understood is read anew."""
    known = [entry.number for entry in entries if entry.kind is not Kind.INVALID]
    file.settle(moved=[(number, Kind.QUEUED, REASON) for number in known])
    retried.applied += len(known)
    for entry in entries:
        if entry.kind is Kind.INVALID:
            try:
                payload, body = decode(entry.payload or b"")
            except ValidationError as error:
                retried.not_understood[entry.number] = "; ".join(mistakes_in(error))
            else:
                _apply_as(file, replace(entry, payload=body), payload, retried)


def retry_as(file: SpoolFile, number: int, deployment_id: str, status: str) -> Retried:
    """Make a dead letter, or a body that was not understood, due as what an operator says it is.

    Ends with exit status 1 if there is none, or it cannot be that.
    """
    entries = file.get([number])
    if not entries or entries[0].kind not in DEAD:
        fail(f"{number} is no dead letter and no body that was not understood.")
    try:
        payload = CallbackPayload(deploymentId=deployment_id, status=status)
    except ValidationError as error:
        fail(f"It cannot be that: {'; '.join(mistakes_in(error))}.")
    retried = Retried()
    _apply_as(file, entries[0], payload, retried)
    return retried


def _apply_as(file: SpoolFile, entry: Entry, payload: CallbackPayload, retried: Retried) -> None:
    key = KeyRule.named(file.key_rule).key(payload.deploymentId)
    is_there = file.replace_dead(
        replace(
            entry,
            kind=Kind.QUEUED,
            deployment_id=payload.deploymentId,
            status=payload.status,
            reason=REASON,
            key=key,
        )
    )
    if is_there:
        retried.applied += 1
    else:
        retried.overtaken += 1
