"""The command line: one module per command."""

from typing import Annotated

import typer

from sam.callback import __version__
from sam.callback.commands import spool
from sam.callback.commands.check import check
from sam.callback.commands.demo import demo
from sam.callback.commands.send import EPILOG as SEND_EPILOG
from sam.callback.commands.send import send
from sam.callback.commands.serve import serve
from sam.callback.commands.simulate import EPILOG as SIMULATE_EPILOG
from sam.callback.commands.simulate import simulate

app = typer.Typer(
    help="Receives Automation 360 callbacks and writes their status into SAM's database.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,  # a traceback with local variables could show a secret
    add_completion=False,
)
app.command()(serve)
app.command()(check)
app.command()(demo)
app.command(epilog=SEND_EPILOG)(send)
app.command(epilog=SIMULATE_EPILOG)(simulate)
app.add_typer(spool.app, name="spool")


def _print_version(value: bool) -> None:  # noqa: FBT001 - Typer's way
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _serve_by_default(
    context: typer.Context,
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        serve()
