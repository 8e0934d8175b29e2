"""The image and its containers, by way of the engine's own command line."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support import printed
from tests.support.conditions import LIMIT_SECONDS, eventually
from tests.support.service import KEY

ROOT: Final = Path(__file__).parent.parent.parent
BASE_IMAGE: Final = os.environ.get("SAM_TEST_BASE_IMAGE", "python:3.13-slim-bookworm")
"""The base image; the Dockerfile's own, unless another must stand in."""

BUILD_OPTIONS: Final = shlex.split(os.environ.get("SAM_TEST_BUILD_OPTIONS", ""))
"""More options for the build, such as ``--network host``."""

BUILD_SECONDS: Final = 600
START_SECONDS: Final = LIMIT_SECONDS

HARDENED: Final = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def docker(*arguments: str, timeout: float = 60) -> str:
    """Run a command of the engine; return what it printed.

    Raises:
        AssertionError: If it fails, with all that it said.
    """
    run = docker_fails(*arguments, timeout=timeout)
    assert run.returncode == 0, f"docker {shlex.join(arguments)}: {run.stdout}\n{run.stderr}"
    return run.stdout.strip()


def docker_fails(*arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run a command of the engine that may fail."""
    return subprocess.run(
        ["docker", *arguments],  # noqa: S607 - whichever is on PATH
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=timeout,
    )


def copy_checkout(directory: Path) -> None:
    """Copy this checkout, without what git ignores, and as a checkout of umask 077 is."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, file)
    for path in directory.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)


def build(tag: str, *options: str) -> None:
    """Build the image from this checkout."""
    base = f"--build-arg=BASE_IMAGE={BASE_IMAGE}"
    docker(
        "build", base, *BUILD_OPTIONS, *options, f"--tag={tag}", str(ROOT), timeout=BUILD_SECONDS
    )


def remove(container: str, **environment: str) -> None:
    """Remove a container; search what it printed for the secrets of its environment."""
    logged = docker_fails("logs", container)
    docker("rm", "--force", "--volumes", container)
    printed.search(environment, [logged.stdout, logged.stderr])


class Container:
    """A container of the service, hardened as far as the engine can.

    Args:
        image: What to run.
        volumes: ``name:path`` or ``name:path:ro`` each.
        command: Instead of the image's own.
        environment: The service's variables.
    """

    def __init__(
        self, image: str, volumes: Sequence[str], *command: str, **environment: str
    ) -> None:
        self._environment = {"CALLBACK_API_KEY": KEY, **environment}
        self.id = docker(
            "run",
            "--detach",
            *HARDENED,
            "--publish=127.0.0.1::8000",
            *(f"--volume={volume}" for volume in volumes),
            *(f"--env={name}={value}" for name, value in self._environment.items()),
            image,
            *command,
        )
        try:
            self.url = f"http://{docker('port', self.id, '8000/tcp')}"
            eventually(self._answers, START_SECONDS)
        except BaseException:
            self.remove()
            raise

    def _answers(self) -> bool:
        assert self.state()["Running"], docker_fails("logs", self.id)
        try:
            return httpx.get(self.url + "/health").status_code == 200
        except httpx.TransportError:  # the engine's proxy listens before the service does
            return False

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(docker("inspect", "--format={{json .State}}", self.id))
        return state

    def exec(self, *command: str) -> str:
        return docker("exec", self.id, *command)

    def post(self, content: bytes) -> dict[str, Any]:
        response = httpx.post(
            self.url + "/callback",
            content=content,
            headers={"X-API-KEY": KEY},
            timeout=LIMIT_SECONDS,
        )
        answer: dict[str, Any] = response.json()
        return answer

    def remove(self) -> None:
        remove(self.id, **self._environment)
