"""``demo``: the service, a handful of callbacks, and the table before and after, in one go."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import typer

from sam.callback.cli import embedded
from sam.callback.service import CALLBACK_PATH
from sam.callback.service.api_key import HEADER

_STOP_SECONDS: Final = 12
_STATUSES: Final = ("RUN_COMPLETED", "RUN_FAILED", "RUN_TIMED_OUT")

app = typer.Typer(add_completion=False)


@app.command()
def demo() -> None:
    """Start the service, send it a handful of callbacks, show the table before and after, end."""
    with (
        tempfile.TemporaryDirectory(prefix="sam-callback-demo-") as directory,
        _service(Path(directory)) as url,
    ):
        robots = embedded.robots(Path(directory))
        typer.echo(f"The service runs on {url}, on an embedded database of its own.")
        _print("Before", robots)
        with httpx.Client(base_url=url, headers={HEADER: embedded.KEY}) as client:
            for (_, deployment_id, _), status in zip(robots, _STATUSES, strict=False):
                _send(client, deployment_id, status)
            typer.echo("\nWithout the key:")
            del client.headers[HEADER]
            _send(client, robots[0][1], "RUN_COMPLETED")
        _print("After", embedded.robots(Path(directory)))
    typer.echo("\nThe service was asked to stop, and stopped.")


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
    typer.echo(process.communicate()[1], err=True)
    raise typer.Exit(process.returncode or 1)


def _send(client: httpx.Client, deployment_id: str, status: str) -> None:
    callback = {"deploymentId": deployment_id, "status": status, "userId": "14", "botOutput": {}}
    response = client.post(CALLBACK_PATH, json=callback)
    answer = response.json()
    typer.echo(f"\nPOST {CALLBACK_PATH}  {deployment_id}  {status}")
    typer.echo(f"  {response.status_code} {answer.get('outcome') or answer['detail']}")


def _print(title: str, robots: list[tuple[str, str, str]]) -> None:
    typer.echo(f"\n{title}")
    for name, deployment_id, status in robots:
        typer.echo(f"  {name:20} {deployment_id}  {status}")
