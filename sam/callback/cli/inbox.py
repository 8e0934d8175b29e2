"""``inbox``: make the shared inbox's table."""

import asyncio
import sys

import typer

from sam.callback import logs
from sam.callback.cli.output import fail, refuse
from sam.callback.logs import printable
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.settings import SpoolSettings

app = typer.Typer(
    name="inbox",
    add_completion=False,
    help="The shared inbox of several instances.",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """Keep `init` a command of its own: Typer would make a single one the whole."""


@app.command(
    epilog="""Exit status

   0  the table is there
   1  it could not be made
   2  bad configuration"""
)
def init() -> None:
    """Make the shared inbox's table in the database of CALLBACK_INBOX_CONNECTION_STRING.

    The login must be allowed to create tables; that of the service need not. What is there stays
    as it is. The scripts for doing it by hand say which rights the service needs.
    """
    from sam.callback.inbox.sql.database import make_table  # noqa: PLC0415 - see serve
    from sam.callback.inbox.sql.statements import SchemaError  # noqa: PLC0415
    from sam.callback.storage.errors import DatabaseUnavailableError  # noqa: PLC0415

    settings = SpoolSettings.load()
    if settings.callback_inbox_connection_string is None:
        refuse("CALLBACK_INBOX_CONNECTION_STRING is not set: there is no shared inbox.")
    logs.configure(LogLevel.CRITICAL, LogFormat.CONSOLE, sys.stderr)
    try:
        database = asyncio.run(make_table(settings))
    except (DatabaseUnavailableError, SchemaError) as error:
        fail(str(error))
    typer.echo(printable(f"{settings.callback_inbox_table} is there, in {database}."))
