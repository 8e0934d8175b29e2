"""``send``: one callback to a running service, as A360 sends it."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final

import typer

from sam.callback.cli import embedded
from sam.callback.cli.client import (
    CaFileOption,
    EmbeddedOption,
    Fault,
    NotTakenError,
    Target,
    TimeoutOption,
    UrlOption,
    find_target,
)
from sam.callback.cli.output import EXIT_BAD_CONFIGURATION, fail, print_json, refuse
from sam.callback.logs import printable
from sam.callback.model import Outcome
from sam.callback.service.schemas import CallbackAnswer

EXIT_STATUSES: Final = {
    0: "the callback is durable",
    EXIT_BAD_CONFIGURATION: "bad configuration, or a bad option",
    **{each.exit_status: each.meaning for each in Fault},
}
EPILOG: Final = "Exit status\n\n" + "\n".join(
    f"{status:4}  {meaning}" for status, meaning in sorted(EXIT_STATUSES.items())
)
MEANINGS: Final = {
    Outcome.UPDATED: "it is committed in SAM's table.",
    Outcome.SUPERSEDED: "it was not written: the row has the status of a later callback, or a "
    "later time in SQL_SAM_FINISHED_COLUMN.",
    Outcome.QUEUED: "it is durable on the service's disk, and applied when the database can take "
    "it.",
    Outcome.UNMATCHED: "no row has this deployment yet; it is durable on the service's disk, and "
    "applied when there is one.",
    Outcome.DEAD_LETTER: "the database refuses this value for good; it is durable on the service's "
    "disk, for an operator: `sam-callback spool list`.",
}

app = typer.Typer(add_completion=False)


@app.command(epilog=EPILOG)
def send(
    deployment_id: Annotated[str | None, typer.Argument(help="The deployment that ended.")] = None,
    status: Annotated[str, typer.Argument(help="How it ended.")] = "RUN_COMPLETED",
    url: UrlOption = None,
    bot_output: Annotated[
        str | None, typer.Option("--bot-output", metavar="JSON", help="The bot's output, as JSON.")
    ] = None,
    body: Annotated[
        Path | None,
        typer.Option(
            "--body",
            metavar="FILE",
            help="Send this file as it is, instead of a deployment and a status; - is the "
            "standard input.",
        ),
    ] = None,
    timeout: TimeoutOption = 30.0,
    ca_file: CaFileOption = None,
    *,
    use_embedded: EmbeddedOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object, whatever happens.")
    ] = False,
) -> None:
    """Send one callback to a running service, as A360 does, and tell what became of it.

    The key is CALLBACK_API_KEY, from the environment, a file .env or Docker's secrets.
    """
    if body is not None:
        if deployment_id is not None or bot_output is not None:
            refuse("--body is the whole callback: name no deployment and no --bot-output with it.")
        content = _read(body)
    else:
        if deployment_id is None and use_embedded:
            deployment_id = embedded.first_deployment()
        if deployment_id is None:
            refuse("Which deployment has ended? Name it, or give a whole callback with --body.")
        content = _callback(deployment_id, status, bot_output)
    target = find_target(url, timeout, ca_file, use_embedded=use_embedded)
    started = perf_counter()
    try:
        answer = asyncio.run(_post(target, content))
    except NotTakenError as error:
        if not as_json:
            fail(str(error), error.fault.exit_status)
        print_json(
            {
                "status": "error",
                "error": error.fault.label,
                "message": str(error),
                "httpStatus": error.response and error.response.status_code,
                "retryAfter": error.response and error.response.headers.get("Retry-After"),
            }
        )
        raise typer.Exit(error.fault.exit_status) from None
    milliseconds = (perf_counter() - started) * 1000
    if as_json:
        print_json({**asdict(answer), "durationMs": round(milliseconds, 3)})
        return
    typer.secho(answer.outcome, bold=True, nl=False)
    typer.echo(f": {MEANINGS[answer.outcome]}")
    typer.echo(f"  deployment  {printable(answer.deploymentId)}")
    typer.echo(f"  request     {printable(answer.requestId)}")
    typer.echo(f"  took        {milliseconds:.0f} ms, with connecting")


async def _post(target: Target, content: bytes) -> CallbackAnswer:
    async with target.client() as client:
        return await target.post(client, content)


def _read(body: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    except OSError as error:
        refuse(f"--body {body} cannot be read: {error.strerror}.")


def _callback(deployment_id: str, status: str, bot_output: str | None) -> bytes:
    fields: dict[str, Any] = {"deploymentId": deployment_id, "status": status}
    if bot_output is not None:
        try:
            fields["botOutput"] = json.loads(bot_output)
        except ValueError as error:
            refuse(f"--bot-output is not JSON: {error}.")
    return json.dumps(fields).encode()
