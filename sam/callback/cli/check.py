"""``check``: checks of all that the service needs, a line each, with an action where one fails."""

import asyncio
import dataclasses
import errno
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from sam.callback import logs
from sam.callback.check_result import CheckResult, Level
from sam.callback.cli.output import print_json
from sam.callback.logs import printable
from sam.callback.setting_sources import read_variables
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.setting_warnings import HOW_TO_MAKE_A_KEY, warnings_about, weakness_of
from sam.callback.settings import Settings

_COLOURS: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.WRONG: "red"}

app = typer.Typer(add_completion=False)


@app.command()
def check(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Look at everything that the service needs; say what is wrong and what to do.

    The exit status is 0 if the service can work, 1 if anything is wrong, 2 if the configuration is.
    Nothing is changed. It may run beside the service.
    """
    logs.configure(LogLevel.CRITICAL, LogFormat.CONSOLE)  # what is logged is told in the results
    results = list(_results())
    is_wrong = any(result.level is Level.WRONG for result in results)
    if as_json:
        checks = [{**dataclasses.asdict(each), "action": each.action or None} for each in results]
        print_json({"status": "wrong" if is_wrong else "ok", "checks": checks})
    else:
        for result in results:
            typer.secho(result.level.replace("_", " "), fg=_COLOURS.get(result.level), nl=False)
            line = f"{result.subject}: {result.detail} {result.action}"
            typer.echo(f" {printable(' '.join(line.split()))}")
    raise typer.Exit(int(is_wrong))


def _results() -> Iterator[CheckResult]:
    from sam.callback.inbox.sql.check import check_inbox  # noqa: PLC0415 - see serve
    from sam.callback.inbox.sqlite.check import check_spool  # noqa: PLC0415
    from sam.callback.storage.check import check_database  # noqa: PLC0415

    settings = Settings.load()
    yield CheckResult("configuration", Level.OK, "All settings are there and can be used.")
    yield from warnings_about(read_variables(), Settings.model_fields)
    yield _check_keys(settings)
    yield _check_address(settings)
    yield from check_spool(settings)
    yield from asyncio.run(check_database(settings))
    yield from asyncio.run(check_inbox(settings))


def _check_keys(settings: Settings) -> CheckResult:
    keys = {
        "CALLBACK_API_KEY": settings.callback_api_key,
        "CALLBACK_API_KEY_PREVIOUS": settings.callback_api_key_previous,
    }
    for name, key in keys.items():
        if key is not None and (weakness := weakness_of(key.get_secret_value())):
            detail = f"{name} is weak: {weakness}."
            return CheckResult("key", Level.WARNING, detail, f"Make another: {HOW_TO_MAKE_A_KEY}")
    return CheckResult("key", Level.OK, "It is long enough.")


def _check_address(settings: Settings) -> CheckResult:
    from sam.callback.server import addresses  # noqa: PLC0415 - see serve

    hosts, port = settings.callback_host, settings.callback_port
    where = addresses.describe(hosts, port)
    try:
        for bound in addresses.bind(hosts, port):
            bound.close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            detail = f"{where}: something listens there already, the service if it runs."
            return CheckResult("address", Level.NOT_CHECKED, detail)
        detail = f"{where} cannot be listened on: {error}."
        return CheckResult("address", Level.WRONG, detail, addresses.HOW_TO_NAME_ADDRESSES)
    action = addresses.IPV6_ALONE if addresses.is_ipv6_alone(hosts) else ""
    return CheckResult("address", Level.OK, where, action)
