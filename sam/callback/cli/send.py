"""``send``: one callback to a running service, as A360 sends it."""

import asyncio
import json
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from sam.callback.cli import embedded
from sam.callback.cli.client.answers import Fault, NotTakenError, printable
from sam.callback.cli.client.callback_client import CallbackClient, tls_context
from sam.callback.cli.client.target import (
    CaFileOption,
    EmbeddedOption,
    Target,
    TimeoutOption,
    UrlOption,
    find_target,
)
from sam.callback.cli.refusal import EXIT_BAD_CONFIGURATION, refuse
from sam.callback.model import Outcome
from sam.callback.service.schemas import CallbackAnswer

EXIT_STATUSES: Final = {
    0: "the callback is safe",
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
    Outcome.QUEUED: "it is safe on the service's disk, and applied when the database can take it.",
    Outcome.UNMATCHED: "no row has this deployment yet; it is safe on the service's disk, and "
    "applied when there is one.",
    Outcome.DEAD_LETTER: "the database refuses this value for good; it is safe on the service's "
    "disk, for an operator: `sam-callback spool list`.",
}
_STYLES: Final = {Outcome.UPDATED: "green", Outcome.DEAD_LETTER: "red"}


app = typer.Typer(add_completion=False)


@app.command(epilog=EPILOG)
def send(
    deployment_id: Annotated[
        str | None, typer.Argument(help="The deployment that ended.", show_default=False)
    ] = None,
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
    content = _content(deployment_id, status, bot_output, body, use_embedded=use_embedded)
    target = find_target(url, use_embedded=use_embedded)
    try:
        answer, seconds = asyncio.run(_post(target, content, timeout, ca_file))
    except NotTakenError as error:
        _tell_fault(error, as_json=as_json)
    _tell_answer(answer, seconds, as_json=as_json)


async def _post(
    target: Target, content: bytes, timeout: float, ca_file: Path | None
) -> tuple[CallbackAnswer, float]:
    """Return the answer, and the seconds that it took."""
    context = tls_context(ca_file)
    async with aclosing(CallbackClient(target, timeout=timeout, context=context)) as client:
        started = time.perf_counter()
        return await client.post(content), time.perf_counter() - started


def _content(
    deployment_id: str | None,
    status: str,
    bot_output: str | None,
    body: Path | None,
    *,
    use_embedded: bool,
) -> bytes:
    if body is not None:
        if deployment_id is not None or bot_output is not None:
            refuse("--body is the whole callback: name no deployment and no --bot-output with it.")
        return _read(body)
    if deployment_id is None and use_embedded:
        deployment_id = embedded.first_deployment()
    if deployment_id is None:
        refuse("Which deployment has ended? Name it, or give a whole callback with --body.")
    fields: dict[str, Any] = {"deploymentId": deployment_id, "status": status}
    if bot_output is not None:
        try:
            fields["botOutput"] = json.loads(bot_output)
        except ValueError as error:
            refuse(f"--bot-output is not JSON: {error}.")
    return json.dumps(fields, ensure_ascii=False).encode()


def _read(body: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    except OSError as error:
        refuse(f"--body {body} cannot be read: {error.strerror}.")


def _tell_answer(answer: CallbackAnswer, seconds: float, *, as_json: bool) -> None:
    if as_json:
        fields = {**answer.model_dump(mode="json"), "durationMs": round(seconds * 1000, 3)}
        typer.echo(json.dumps(fields, ensure_ascii=False))
        return
    text = Text(answer.outcome, style=f"bold {_STYLES.get(answer.outcome, 'yellow')}")
    text.append(f": {MEANINGS[answer.outcome]}", style="not bold default")
    console = Console(highlight=False)
    console.print(text)
    for name, value in (
        ("deployment", answer.deploymentId),
        ("request", answer.requestId),
        ("took", f"{seconds * 1000:.0f} ms, with connecting"),
    ):
        console.print(f"  {name:10}  {printable(value)}", markup=False, soft_wrap=True)


def _tell_fault(error: NotTakenError, *, as_json: bool) -> NoReturn:
    if as_json:
        fields = {
            "status": "error",
            "error": error.fault.label,
            "message": str(error),
            "httpStatus": error.http_status,
            "retryAfter": error.retry_after,
        }
        typer.echo(json.dumps(fields, ensure_ascii=False))
    else:
        typer.echo(str(error), err=True)
    raise typer.Exit(error.fault.exit_status)
