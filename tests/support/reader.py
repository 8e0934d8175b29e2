"""Somebody who types what the documentation says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.conditions import eventually
from tests.support.service import clean_environment

LOG: Final = "service.log"
"""The file that `after_make_run` writes the service's log to."""


class Reader:
    """A person with a page and a terminal, in a directory of their own.

    Args:
        directory: Where they are.
        port: Where the service listens that they speak to.
        variables: What they have set.
    """

    def __init__(self, directory: Path, port: int, **variables: str) -> None:
        self.directory = directory
        self._port = port
        self._variables = variables

    def types(self, command: str, answer: str = "") -> str:
        """Run a command of a page as it is, but for `uv run` and the port; return what it says.

        Args:
            command: In a shell's language.
            answer: What is typed where it asks.

        Raises:
            subprocess.CalledProcessError: If it failed.
        """
        scripts = Path(sys.executable).parent
        run = subprocess.run(
            ["sh", "-ec", command.replace(":8000/", f":{self._port}/").replace("uv run ", "")],  # noqa: S607 - as a reader's
            cwd=self.directory,
            env=clean_environment(
                CALLBACK_PORT=str(self._port),
                PATH=f"{scripts}:{os.environ['PATH']}",
                **self._variables,
            ),
            input=answer,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=30,
            check=True,
        )
        return run.stdout


@contextmanager
def after_make_run(directory: Path, **variables: str) -> Iterator[Reader]:
    """Somebody whose first terminal has what `make run` starts."""
    log = directory / LOG
    with log.open("wb") as output:  # no pipe: one that is not read would block the service
        process = subprocess.Popen(
            [sys.executable, "-m", "sam.callback", "serve", "--embedded"],
            cwd=directory,
            env=clean_environment(CALLBACK_PORT="0", **variables),
            stdout=output,
            stderr=subprocess.DEVNULL,
        )

    def ports() -> list[int]:
        lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
        return [line["port"] for line in lines if line["event"] == "listening"]

    try:
        eventually(lambda: bool(ports()))
        yield Reader(directory, ports()[0], **variables)
    finally:
        process.terminate()
        process.wait(timeout=12)
    assert process.returncode == 0
