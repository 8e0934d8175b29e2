"""``simulate``: many callbacks to a running service, to rehearse a busy day or an outage."""

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from sam.callback.cli import embedded
from sam.callback.cli.bodies import bodies_in, deployments_in, made_up
from sam.callback.cli.client import (
    CaFileOption,
    EmbeddedOption,
    NotTakenError,
    Target,
    TimeoutOption,
    UrlOption,
    duration,
    find_target,
)
from sam.callback.cli.load import Tally, schedule, send_load
from sam.callback.cli.output import fail, print_json, refuse

EXIT_INTERRUPTED: Final = 130
EPILOG: Final = """Exit status

   0  every callback was answered 2xx
   1  some were not
   2  bad configuration, or a bad option
 130  Ctrl-C, after the summary so far
If the very first callback fails nothing more is sent, and the exit status is that of `send`."""
_DEFAULT_COUNT: Final = 1_000
_PAUSE_SECONDS: Final = 0.5
"""After a failure, where no rate says when the next one is due: or a service that is restarted
would be sent a thousand callbacks while it is away."""

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
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many callbacks. Without it and --duration: 1000, or each of --bodies or "
            "--deployments once.",
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
    bodies_given, size = _bodies(bodies, deployments, seed, use_embedded=use_embedded)
    target = find_target(url, timeout, ca_file, use_embedded=use_embedded)
    if size is None and not use_embedded:
        _warn(target, yes=yes)
    if count is None and seconds is None:
        count = size or _DEFAULT_COUNT
    tally = Tally()
    is_interrupted = False
    try:
        with _progress(tally, count, seconds) as update:
            asyncio.run(
                send_load(
                    target,
                    bodies_given,
                    schedule(count or math.inf, seconds or math.inf, rate),
                    tally,
                    connections=connections,
                    pause=0.0 if rate else _PAUSE_SECONDS,
                    on_answer=update,
                )
            )
    except NotTakenError as error:
        fail(f"{error}\nThat was the first callback; no other was sent.", error.fault.exit_status)
    except KeyboardInterrupt:
        is_interrupted = True
    if as_json:
        print_json({**tally.summary(), "askedPerSecond": rate, "interrupted": is_interrupted})
    else:
        _print_summary(tally, rate)
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
        given = bodies_in(bodies)
        return itertools.cycle(given), len(given)
    if deployments is not None:
        named = deployments_in(deployments)
        return made_up(named, seed), len(named)
    return made_up(embedded.add_robots() if use_embedded else None, seed), None


def _warn(target: Target, *, yes: bool) -> None:
    typer.echo(
        "The deployments are made up, so no row has them: the service answers `unmatched`, and "
        "keeps each in its spool for CALLBACK_UNMATCHED_TTL, and then as a dead letter. "
        "`sam-callback spool drop --all --kind unmatched` there empties it, of real ones too. "
        "With deployments that exist: --deployments, --bodies or --embedded.",
        err=True,
    )
    if not (yes or target.url.host in {"127.0.0.1", "localhost", "::1"}):
        typer.confirm(f"Fill the spool behind {target.url}?", abort=True, err=True)


@contextmanager
def _progress(
    tally: Tally, count: int | None, seconds: float | None
) -> Iterator[Callable[[], None]]:
    """Show a bar at a terminal, by callbacks or else by time; yield what updates it."""
    console = Console(stderr=True)
    columns = [BarColumn(20), TaskProgressColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("connecting", total=count or seconds)

        def update() -> None:
            parts = [f"{number} {outcome}" for outcome, number in tally.outcomes.items()]
            if tally.faults:
                parts.append(f"[red]{tally.faults.total()} failed[/]")
            done = tally.answered if count else tally.ended - tally.started
            progress.update(bar, completed=done, description=", ".join(parts))

        yield update


def _print_summary(tally: Tally, rate: float | None) -> None:
    summary = tally.summary()
    asked = f" (asked for: {rate:g})" if rate is not None else ""
    took = f"{tally.ended - tally.started:.1f} s"
    speed = f"{summary['perSecond']} a second{asked}"
    typer.echo(f"{tally.answered} callbacks in {took}: {speed}.")
    if left := summary["notWaitedFor"]:
        typer.echo(f"{left} more had been sent, and their answers not waited for.")
    for outcome, number in tally.outcomes.most_common():
        typer.echo(f"  {outcome:12} {number}")
    for fault, number in tally.faults.most_common():
        typer.secho(f"  {fault.meaning}: {number}", fg="red")
    if latencies := tally.milliseconds():
        due = ", from when each was due" if rate is not None else ""
        figures = ", ".join(f"{name} {ms:.1f} ms" for name, ms in latencies.items())
        typer.echo(f"Answered 2xx{due}: {figures}")
    for example in tally.examples.values():
        typer.echo(f"\n{example}")
