"""A reader who types the documentation's commands."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.service import PATIENT, clean_environment

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
        """Run a command of a page as it is, but for `.venv/bin` and the port; return what it says.

        Args:
            command: In a shell's language.
            answer: What is typed where it asks.

        Raises:
            subprocess.CalledProcessError: If it failed.
        """
        with self.begins(command) as process:
            output, errors = process.communicate(answer, timeout=LIMIT_SECONDS)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, output, errors)
        return output

    @contextmanager
    def begins(self, command: str) -> "Iterator[subprocess.Popen[str]]":
        """Run a command of a page in a terminal of its own, where Ctrl-C can be pressed.

        Args:
            command: As `types` takes it.
        """
        scripts = Path(sys.executable).parent
        process = subprocess.Popen(
            ["sh", "-ec", command.replace(":8000/", f":{self._port}/").replace(".venv/bin/", "")],  # noqa: S607 - as a reader's
            cwd=self.directory,
            env=clean_environment(
                CALLBACK_PORT=str(self._port),
                PATH=f"{scripts}:{os.environ['PATH']}:/usr/sbin",
                **self._variables,
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def press_ctrl_c(self, process: "subprocess.Popen[str]") -> None:
        """Press Ctrl-C in the terminal of a command that `begins` has begun."""
        os.killpg(process.pid, signal.SIGINT)


@contextmanager
def after_make_run(directory: Path, **variables: str) -> Iterator[Reader]:
    """A reader whose first terminal runs `make run`."""
    log = directory / LOG
    with log.open("wb") as output:  # no pipe: one that is not read would block the service
        process = subprocess.Popen(
            [sys.executable, "-m", "sam.callback", "serve", "--embedded"],
            cwd=directory,
            env=clean_environment(**{**PATIENT, "CALLBACK_PORT": "0", **variables}),
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
        process.wait(LIMIT_SECONDS)
    assert process.returncode == 0
