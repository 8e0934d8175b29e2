"""``check``: is everything there that the service needs? A line each, and what to do."""

import asyncio
import errno
import json
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sam.callback import logs
from sam.callback.cli.refusal import refuse, require_driver_manager
from sam.callback.finding import Finding, Level
from sam.callback.key_strength import HOW_TO_MAKE_ONE, weakness_of
from sam.callback.setting_types import LogFormat, LogLevel
from sam.callback.settings import Settings, SettingsError, load_settings

_SIGNS: Final = {
    Level.OK: ("✓", "green"),
    Level.WARNING: ("⚠", "yellow"),
    Level.WRONG: ("✗", "red"),
    Level.NOT_CHECKED: ("·", "dim"),
}


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
    require_driver_manager()
    from sam.callback.inbox.inspection import inspect_spool  # noqa: PLC0415 - see serve
    from sam.callback.storage.drivers import DriverNotFoundError  # noqa: PLC0415
    from sam.callback.storage.inspection import inspect_database  # noqa: PLC0415

    logs.configure(LogLevel.CRITICAL, LogFormat.CONSOLE)  # what is logged is told in the lines
    try:
        settings = load_settings()
        findings = [
            Finding("configuration", Level.OK, "All settings are there and can be used."),
            *(
                Finding(each.variable, Level.WARNING, each.reason, each.action)
                for each in settings.warnings
            ),
            _key_finding(settings),
            _address_finding(settings),
            *inspect_spool(settings),
            *asyncio.run(inspect_database(settings)),
        ]
    except (SettingsError, DriverNotFoundError) as error:
        refuse(str(error))
    is_wrong = any(finding.level is Level.WRONG for finding in findings)
    if as_json:
        typer.echo(_as_json(findings, is_wrong=is_wrong))
    else:
        _print(findings)
    raise typer.Exit(int(is_wrong))


def _key_finding(settings: Settings) -> Finding:
    keys = {
        "CALLBACK_API_KEY": settings.callback_api_key,
        "CALLBACK_API_KEY_PREVIOUS": settings.callback_api_key_previous,
    }
    for name, key in keys.items():
        if key is not None and (weakness := weakness_of(key.get_secret_value())):
            detail = f"{name} is weak: {weakness}."
            return Finding("key", Level.WARNING, detail, f"Make another: {HOW_TO_MAKE_ONE}")
    return Finding("key", Level.OK, "It is long enough.")


def _address_finding(settings: Settings) -> Finding:
    from sam.callback.service import addresses  # noqa: PLC0415 - see serve

    hosts, port = settings.callback_host, settings.callback_port
    where = addresses.describe(hosts, port)
    try:
        addresses.try_to_bind(hosts, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            detail = f"{where}: something listens there already, the service if it runs."
            return Finding("address", Level.NOT_CHECKED, detail)
        return Finding(
            "address",
            Level.WRONG,
            f"{where} cannot be listened on: {error}.",
            addresses.HOW_TO_NAME_ADDRESSES,
        )
    action = addresses.IPV6_ALONE if addresses.is_ipv6_alone(hosts) else ""
    return Finding("address", Level.OK, where, action)


def _as_json(findings: list[Finding], *, is_wrong: bool) -> str:
    return json.dumps(
        {
            "status": "wrong" if is_wrong else "ok",
            "checks": [
                {
                    "subject": finding.subject,
                    "level": finding.level.value,
                    "detail": finding.detail,
                    "action": finding.action or None,
                }
                for finding in findings
            ],
        },
        ensure_ascii=False,
    )


def _print(findings: list[Finding]) -> None:
    console = Console()
    if not console.is_terminal:  # for a file or a program: one line each, however long
        for finding in findings:
            sign, _ = _SIGNS[finding.level]
            parts = [_detail(finding), finding.action]
            line = " ".join(" ".join(filter(None, parts)).split())
            typer.echo(
                f"{sign if _has(console, sign) else finding.level} {finding.subject}: {line}"
            )
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(max_width=console.width // 3, overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        text = Text(_detail(finding))
        if finding.action:
            text.append(f"\n{finding.action}", "bold")
        table.add_row(
            Text(sign if _has(console, sign) else finding.level, style), finding.subject, text
        )
    console.print(table)


def _detail(finding: Finding) -> str:
    is_checked = finding.level is not Level.NOT_CHECKED
    return finding.detail if is_checked else f"Not checked. {finding.detail}"


def _has(console: Console, sign: str) -> bool:
    """Whether this terminal can write a sign: Windows' may have an alphabet of 1981."""
    try:
        sign.encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True
