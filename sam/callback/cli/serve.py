"""``serve``: the service, until SIGTERM, SIGHUP or Ctrl-C."""

import signal
import sys
from typing import Annotated, Final, NoReturn

import typer

from sam.callback import logs
from sam.callback.cli import embedded
from sam.callback.cli.standard_streams import flush_output, logged_native_output
from sam.callback.setting_sources import read_variables
from sam.callback.setting_warnings import HOW_TO_MAKE_A_KEY, warnings_about, weakness_of
from sam.callback.settings import Settings

_HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)  # not on Windows
_ENDING: Final = [each for each in (signal.SIGINT, signal.SIGTERM, _HANGUP) if each]

_log = logs.get_logger(__name__)


EPILOG: Final = """Exit status

   0  ended by SIGTERM, SIGHUP or Ctrl-C, with what was in flight answered
   2  bad configuration, a bad option, or no ODBC driver
   3  the address is taken, or cannot be listened on"""

app = typer.Typer(add_completion=False)


@app.command(epilog=EPILOG)
def serve(
    *,
    use_embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help="Use a SQLite database, var/sam.db, made with a few robots if it is missing; "
            "with the key 'local-demo-key' and on 127.0.0.1, unless CALLBACK_API_KEY and "
            "CALLBACK_HOST say otherwise. For trying things out.",
        ),
    ] = False,
) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C. Settings come from the environment."""
    _end_by_signals()  # before half a second of imports
    from sam.callback.server.server import run  # noqa: PLC0415
    from sam.callback.service.main import create_app  # noqa: PLC0415

    if use_embedded:
        embedded.prepare()
    settings = Settings.load()
    app = create_app(settings)
    if use_embedded:
        typer.echo(embedded.how_to_try(settings), err=True)
    logs.configure(settings.callback_log_level, settings.callback_log_format)
    for warning in warnings_about(read_variables(), Settings.model_fields):
        _log.warning(
            "suspicious_setting",
            variable=warning.subject,
            reason=warning.detail,
            action=warning.action,
        )
    if weakness := weakness_of(settings.callback_api_key.get_secret_value()):
        _log.warning("weak_key", reason=f"CALLBACK_API_KEY: {weakness}.", action=HOW_TO_MAKE_A_KEY)
    with logged_native_output():
        run(app, settings)


def _end_by_signals() -> None:
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        # Uvicorn takes both while it serves and, once drained, raises again what it took.
        signal.signal(signal_number, _end)
    # Of this one it knows nothing; below nohup it is ignored, and stays so.
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        signal.signal(_HANGUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _end(_signal_number: int, _frame: object) -> NoReturn:
    for signal_number in _ENDING:
        # The interpreter gives up its handlers as it ends, but not this one: a signal more would
        # else kill it, and the exit status not be 0.
        signal.signal(signal_number, signal.SIG_IGN)
    flush_output()
    sys.exit(0)
