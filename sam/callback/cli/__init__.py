"""Command line: a module per command, and shared modules."""

from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from sam.callback import __version__
from sam.callback.cli.output import refuse
from sam.callback.settings import SettingsError

_NAMES: Final = ["serve", "check", "demo", "send", "simulate", "spool", "inbox"]


class _Commands(TyperGroup):
    """Imports a command's module when it is asked for: `serve` needs no HTTP client."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's own
        return _NAMES

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - Typer's own
        if cmd_name not in _NAMES:
            return None
        return get_command(import_module(f"{__name__}.{cmd_name}").app)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            refuse(str(error))
        except ImportError as error:
            if error.name != "pyodbc":
                raise
            refuse(
                f"The ODBC driver manager is missing ({error}).\n"
                "Debian and Ubuntu: apt install unixodbc. macOS: brew install unixodbc."
            )


app = typer.Typer(
    cls=_Commands,
    help="Receives Automation 360 callbacks and writes their status into SAM's database.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,  # a traceback with local variables could show a secret
    add_completion=False,
)


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
        from sam.callback.cli.serve import serve  # noqa: PLC0415 - as above

        serve()
