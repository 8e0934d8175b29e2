"""``spool drain``: what is left in the spool of an instance that will not come back."""

import asyncio
import sys
from typing import Final

import typer
from rich.console import Console
from rich.progress import Progress

from sam.callback import logs
from sam.callback.cli.refusal import refuse, require_driver_manager
from sam.callback.cli.spool_access import PathOption, require_spool
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.settings import SettingsError, load_settings

EPILOG: Final = """Exit status

   0  no callback is left that waits for the database or for its row
   1  some are, or the spool cannot be used
   2  bad configuration, or a bad option"""


def drain(path: PathOption = None) -> None:
    """Apply what is in the spool of an instance that will not come back.

    Needs the settings of a service, CALLBACK_API_KEY too, and that none owns the spool. What has no
    row yet stays there, and what the database refuses for good, as a dead letter.
    """
    require_driver_manager()
    from sam.callback.inbox.drain import drain_spool  # noqa: PLC0415 - needs the driver manager
    from sam.callback.storage.connection_string import connection_string  # noqa: PLC0415
    from sam.callback.storage.drivers import DriverNotFoundError  # noqa: PLC0415

    try:
        settings = load_settings()
        connection_string(settings)
    except (SettingsError, DriverNotFoundError) as error:
        refuse(str(error))
    if path is not None:
        settings = settings.model_copy(update={"callback_spool_path": path.absolute()})
    require_spool(settings.callback_spool_path)
    logs.configure(LogLevel.ERROR, LogFormat.CONSOLE, sys.stderr)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Applying", total=None)
        drained = asyncio.run(
            drain_spool(
                settings,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        )
    dead = f"{drained.dead_letters} kept as dead letters, " if drained.dead_letters else ""
    typer.echo(
        f"{drained.applied} applied, {dead}{drained.remaining} left. {drained.reason}".rstrip()
    )
    if drained.remaining or drained.reason:
        raise typer.Exit(1)
