"""``demo``: the whole story in one go, with the real service on a database of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import typer
from rich.console import Console
from rich.table import Table

from sam.callback.cli import embedded
from sam.callback.service import paths

_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 12
_STATUSES = ("RUN_COMPLETED", "RUN_FAILED", "RUN_TIMED_OUT")


app = typer.Typer(add_completion=False)


@app.command()
def demo() -> None:
    """Start the service, send it a handful of callbacks, show the table before and after, end."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="sam-callback-demo-") as directory:
        with _service(Path(directory)) as url:
            console.print(
                f"The service runs on [bold]{url}[/], on an embedded database of its own.",
                highlight=False,
            )
            _print_table(console, "Before", Path(directory))
            with httpx.Client(base_url=url, headers={"X-API-KEY": embedded.KEY}) as client:
                for (_, deployment_id, _), status in zip(
                    embedded.robots(Path(directory)), _STATUSES, strict=False
                ):
                    _send(console, client, deployment_id, status)
                console.print("\nWithout the key:")
                del client.headers["X-API-KEY"]
                _send(console, client, deployment_id, "RUN_COMPLETED")
            _print_table(console, "After", Path(directory))
        console.print("The service was asked to stop, and stopped.")


@contextmanager
def _service(directory: Path) -> Iterator[str]:
    """Run the service in a process of its own; yield its address."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CALLBACK_", "SQL_SAM_"))
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "sam.callback", "serve", "--embedded"],
        cwd=directory,
        env={
            **environment,
            # Else a secret of this machine's would be taken for the demo's.
            "CALLBACK_API_KEY": embedded.KEY,
            "CALLBACK_HOST": embedded.HOST,
            "CALLBACK_PORT": "0",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        yield _address(process)
    finally:
        process.terminate()
        process.communicate(timeout=_STOP_SECONDS)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None  # noqa: S101 - PIPE was asked for
    for line in process.stdout:
        fields = json.loads(line)
        if fields["event"] == "listening":
            return f"http://{fields['host']}:{fields['port']}"
    typer.echo(process.communicate(timeout=_START_SECONDS)[1], err=True)
    raise typer.Exit(code=process.returncode or 1)


def _send(console: Console, client: httpx.Client, deployment_id: str, status: str) -> None:
    callback = {"deploymentId": deployment_id, "status": status, "userId": "14", "botOutput": {}}
    response = client.post(paths.CALLBACK, json=callback)
    # The terminal breaks what is too long, and does not tell whoever copies it.
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    say(f"\nPOST {paths.CALLBACK} {json.dumps(callback)}")
    say(f"  {response.status_code} {response.text}")


def _print_table(console: Console, title: str, directory: Path) -> None:
    table = Table(title=f"\n{title}", title_justify="left")
    for name in ("name", "deploymentId", "status"):
        table.add_column(name, overflow="fold")
    for row in embedded.robots(directory):
        table.add_row(*row)
    console.print(table)
