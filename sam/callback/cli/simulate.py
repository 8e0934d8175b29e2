"""``simulate``: many callbacks to a running service, to rehearse a busy day or an outage."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from sam.callback.cli import embedded
from sam.callback.cli.client import bodies as bodies_of
from sam.callback.cli.client.answers import NotTakenError
from sam.callback.cli.client.callback_client import CallbackClient, tls_context
from sam.callback.cli.client.load import Plan, Tally, send_load
from sam.callback.cli.client.target import (
    CaFileOption,
    EmbeddedOption,
    Target,
    TimeoutOption,
    UrlOption,
    duration,
    find_target,
)
from sam.callback.cli.refusal import refuse

EXIT_INTERRUPTED: Final = 130
EPILOG: Final = """Exit status

   0  every callback was answered 2xx
   1  some were not
   2  bad configuration, or a bad option
 130  Ctrl-C, after the summary so far
If the very first callback fails nothing more is sent, and the exit status is that of `send`."""
_DEFAULT_COUNT: Final = 1_000
_REFRESH_SECONDS: Final = 0.2
_PERCENTILES: Final = (50, 95, 99)


app = typer.Typer(add_completion=False)


@app.command(epilog=EPILOG)
def simulate(  # noqa: PLR0913, PLR0917 - its options
    url: UrlOption = None,
    connections: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000,
            metavar="N",
            help="How many callbacks may be under way at once, 1 to 1000.",
        ),
    ] = 64,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="N",
            help="Callbacks a second; the time of each counts from when it was due. Without it: as "
            "fast as the answers come.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many callbacks. Without it and --duration: 1000, or each of --bodies or "
            "--deployments once.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--duration",
            parser=duration,
            metavar="TIME",
            help="How long, such as '2 min'; seconds without a unit.",
        ),
    ] = None,
    bodies: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Send these bodies: a file of JSON, one body a line."),
    ] = None,
    deployments: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Make up bodies for these deployments: a file, one a line."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Another number makes up other bodies.")
    ] = 1,
    timeout: TimeoutOption = 30.0,
    ca_file: CaFileOption = None,
    *,
    use_embedded: EmbeddedOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the summary as one JSON object.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send many callbacks to a running service, and sum up the answers.

    They are real to it, and their statuses are written: rehearse on a copy.

    Without --bodies, --deployments and --embedded the deployments are made up,
    and fill the service's spool.

    The key is CALLBACK_API_KEY, from the environment, a file .env or Docker's secrets.
    """
    source, size = _bodies(bodies, deployments, seed, use_embedded=use_embedded)
    target = find_target(url, use_embedded=use_embedded)
    if size is None and not use_embedded:
        _warn(target, yes=yes)
    if count is None and seconds is None:
        count = size or _DEFAULT_COUNT
    plan = Plan(count=count, seconds=seconds, rate=rate)
    tally = Tally()
    is_interrupted = False
    try:
        asyncio.run(_run(target, source, plan, tally, connections, timeout, ca_file))
    except NotTakenError as error:
        typer.echo(f"{error}\nThat was the first callback; no other was sent.", err=True)
        raise typer.Exit(error.fault.exit_status) from None
    except KeyboardInterrupt:
        is_interrupted = True
    if as_json:
        typer.echo(json.dumps(_as_dict(tally, plan, is_interrupted=is_interrupted)))
    else:
        _print_summary(tally, plan)
    if is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if tally.faults:
        raise typer.Exit(1)


def _bodies(
    bodies: Path | None, deployments: Path | None, seed: int, *, use_embedded: bool
) -> tuple[Iterator[bytes], int | None]:
    """Return the bodies, without end, and how many there are in the file that they come from."""
    if sum((bodies is not None, deployments is not None, use_embedded)) > 1:
        refuse("Of --bodies, --deployments and --embedded, give one.")
    if bodies is not None:
        return bodies_of.from_file(bodies), bodies_of.lines_in(bodies)
    if deployments is not None:
        those = bodies_of.deployments_in(deployments)
        return bodies_of.made_up(those, seed), len(those)
    if use_embedded:
        return bodies_of.made_up(embedded.add_robots(), seed), None
    return bodies_of.made_up(None, seed), None


def _warn(target: Target, *, yes: bool) -> None:
    typer.echo(
        "The deployments are made up, so no row has them: the service answers `unmatched`, and "
        "keeps each in its spool for CALLBACK_UNMATCHED_TTL, and then as a dead letter. "
        "`sam-callback spool drop --all --kind unmatched` there empties it, of real ones too. "
        "With deployments that exist: --deployments, --bodies or --embedded.",
        err=True,
    )
    if not (yes or target.is_this_machine):
        typer.confirm(f"Fill the spool behind {target.url}?", abort=True, err=True)


async def _run(
    target: Target,
    source: Iterator[bytes],
    plan: Plan,
    tally: Tally,
    connections: int,
    timeout: float,
    ca_file: Path | None,
) -> None:
    context = tls_context(ca_file)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                aclosing(CallbackClient(target, timeout=timeout, context=context))
            )
            for _ in range(connections)
        ]
        with _progress() as progress:
            bar = progress.add_task("", total=1.0, so_far="")

            def refresh(part: float) -> None:
                progress.update(bar, completed=part, so_far=_so_far(tally), refresh=True)

            async def keep_refreshing() -> None:
                while True:
                    refresh(plan.part_done(tally.answered, perf_counter() - tally.started))
                    await asyncio.sleep(_REFRESH_SECONDS)

            refreshing = asyncio.create_task(keep_refreshing())
            try:
                await send_load(clients, source, plan, tally)
                refresh(1.0)
            finally:
                refreshing.cancel()


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[so_far]}", table_column=Column(overflow="fold")),
        console=console,
        auto_refresh=False,  # its thread would take time from what is measured
        disable=not console.is_terminal,
    )


def _so_far(tally: Tally) -> str:
    parts = [f"{number} {outcome}" for outcome, number in tally.outcomes.items()]
    if tally.faults:
        parts.append(f"[red]{tally.faults.total()} failed[/]")
    return ", ".join(parts) or "connecting"


def _print_summary(tally: Tally, plan: Plan) -> None:
    console = Console(highlight=False)
    per_second = tally.answered / tally.seconds if tally.seconds else 0.0
    asked = f" (asked for: {plan.rate:g})" if plan.rate is not None else ""
    console.print(
        f"{tally.answered} callbacks in {tally.seconds:.1f} s: {per_second:.1f} a second{asked}."
    )
    if left := tally.sent - tally.answered:
        console.print(f"{left} more had been sent, and their answers not waited for.")
    table = Table("answer", Column("callbacks", justify="right"), box=SIMPLE_HEAD)
    for outcome, number in tally.outcomes.most_common():
        table.add_row(outcome, str(number))
    for fault, number in tally.faults.most_common():
        table.add_row(f"[red]{fault.meaning}[/]", str(number))
    if tally.answered:
        console.print(table)
    if tally.latency.count:
        console.print(
            "Answered 2xx"
            + (", from when each was due" if plan.rate is not None else "")
            + ": "
            + ", ".join(f"{name} {ms:.1f} ms" for name, ms in _latencies(tally).items())
        )
    for example in tally.examples.values():
        console.print(f"\n{example}", markup=False, soft_wrap=True)


def _latencies(tally: Tally) -> dict[str, float]:
    """Return milliseconds."""
    latency = tally.latency
    values = {f"p{percent}": latency.percentile(percent) for percent in _PERCENTILES}
    return {
        name: round(seconds * 1000, 3)
        for name, seconds in {**values, "max": latency.maximum}.items()
    }


def _as_dict(tally: Tally, plan: Plan, *, is_interrupted: bool) -> dict[str, object]:
    return {
        "callbacks": tally.answered,
        "seconds": round(tally.seconds, 3),
        "perSecond": round(tally.answered / tally.seconds, 1) if tally.seconds else 0.0,
        "askedPerSecond": plan.rate,
        "outcomes": dict(tally.outcomes),
        "failures": {fault.label: number for fault, number in tally.faults.items()},
        "latencyMs": _latencies(tally) if tally.latency.count else None,
        "messages": list(tally.examples.values()),
        "notWaitedFor": tally.sent - tally.answered,
        "interrupted": is_interrupted,
    }
