"""The unit under systemd itself: installed as docs/deploy.md says, started, killed, stopped."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support import markdown
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.containers import (
    BUILD_OPTIONS,
    BUILD_SECONDS,
    copy_checkout,
    docker,
    docker_fails,
)
from tests.support.service import KEY

pytestmark = pytest.mark.container

DEBIAN_IMAGE: Final = os.environ.get("SAM_TEST_DEBIAN_IMAGE", "debian:12")
START_SECONDS: Final = 300
SQLITE: Final = "DRIVER=SQLite3;Database=/var/lib/sam-callback/sam.db;"
CREATE_TABLE: Final = (
    "import sqlite3; database = sqlite3.connect('/var/lib/sam-callback/sam.db'); "
    "database.execute('CREATE TABLE robots (deploymentId TEXT, status TEXT)'); "
    "database.execute('INSERT INTO robots (deploymentId) VALUES (?)', ['d-1']); database.commit()"
)
MACHINE: Final = [
    *("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"),
    *("--security-opt=apparmor=unconfined", "--cgroupns=host"),
    *("--volume=/sys/fs/cgroup:/sys/fs/cgroup", "--tmpfs=/run", "--tmpfs=/run/lock"),
    "--stop-signal=SIGRTMIN+3",  # its word for "halt"
    "--publish=127.0.0.1::8000",
]
"""What systemd needs of a container."""


def dockerfile() -> str:
    """A Debian on which the page's commands were run, but for what needs a running systemd."""
    page = markdown.ROOT.joinpath("docs/deploy.md").read_text(encoding="utf-8")
    [commands] = [code for _, code in markdown.blocks(page) if "systemctl daemon-reload" in code]
    packages, clone, *others, reload = commands.splitlines()
    assert (clone, reload) == ("git clone <URL> /opt/sam-callback", "systemctl daemon-reload")
    install = packages.replace("apt install", "apt-get install -y --no-install-recommends")
    return "\n".join(
        [
            f"FROM {DEBIAN_IMAGE}",
            f"RUN apt-get update && {install} systemd libsqliteodbc",
            "COPY . /opt/sam-callback",
            f"RUN {' && '.join(others)}",
            'CMD ["/lib/systemd/systemd"]',
        ]
    )


class Machine:
    """A container in which systemd is the first process, with the unit enabled."""

    def __init__(self, image: str, directory: Path) -> None:
        self.id = docker("run", "--detach", *MACHINE, image, timeout=START_SECONDS)
        try:
            environment = directory / "environment"
            environment.write_text(
                f"CALLBACK_API_KEY='{KEY}'\nSQL_SAM_CONNECTION_STRING='{SQLITE}'\n"
            )
            docker("cp", str(environment), f"{self.id}:/etc/sam-callback/environment")
            self.run("install", "-d", "-o", "sam-callback", "/var/lib/sam-callback")
            self.run("runuser", "-u", "sam-callback", "--", "python3", "-c", CREATE_TABLE)
            eventually(lambda: self.state() in {"running", "degraded"}, START_SECONDS)
            self.run("systemctl", "enable", "sam-callback")
        except BaseException:
            self.remove()
            raise

    def run(self, *command: str) -> str:
        return docker("exec", self.id, *command)

    def start(self) -> None:
        self.run("systemctl", "start", "sam-callback")
        eventually(self.answers, START_SECONDS)

    @property
    def url(self) -> str:
        """Where the service is reached; a boot changes it."""
        return f"http://{docker('port', self.id, '8000/tcp')}"

    def state(self) -> str:
        """Systemd's own: ``starting``, ``running``, ``degraded``; empty before it listens."""
        return docker_fails("exec", self.id, "systemctl", "is-system-running").stdout.strip()

    def of_the_unit(self, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", "sam-callback")

    def journal(self) -> list[str]:
        return self.run("journalctl", "--unit=sam-callback", "--output=cat").splitlines()

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def post(self, deployment: str) -> str:
        answer = httpx.post(
            f"{self.url}/callback", content=body(deployment), headers={"X-API-KEY": KEY}
        )
        return str(answer.json()["outcome"])

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.id, timeout=START_SECONDS)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    context = tmp_path_factory.mktemp("checkout")
    copy_checkout(context)
    (context / ".dockerignore").unlink()  # which is for the image of the service
    file = tmp_path_factory.mktemp("machine") / "Dockerfile"
    file.write_text(dockerfile(), encoding="utf-8")
    tag = f"sam-callback-test:{secrets.token_hex(4)}"
    options = [*BUILD_OPTIONS, f"--file={file}", f"--tag={tag}"]
    docker("build", *options, str(context), timeout=2 * BUILD_SECONDS)
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="module")
def enabled(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(image, tmp_path_factory.mktemp("machine"))
    yield machine
    machine.remove()


@pytest.fixture
def machine(enabled: Machine) -> Machine:
    """One whose unit is started, whatever a test before did."""
    enabled.start()
    return enabled


def test_it_takes_callbacks_until_it_is_stopped_and_then_ends_well(machine: Machine) -> None:
    assert machine.post("d-1") == "updated"
    machine.run("systemctl", "stop", "sam-callback")
    assert machine.of_the_unit("Result") == "success"
    assert machine.of_the_unit("ExecMainStatus") == "0"
    of_the_service = [json.loads(line) for line in machine.journal() if line.startswith("{")]
    assert {"listening", "callback"} <= {line["event"] for line in of_the_service}
    assert not any(KEY in line for line in machine.journal())


def test_it_is_started_again_after_sigkill_with_what_it_had_taken(machine: Machine) -> None:
    assert machine.post("too-early") == "unmatched"
    restarts = int(machine.of_the_unit("NRestarts"))
    killed = machine.of_the_unit("MainPID")
    machine.run("systemctl", "kill", "--signal=KILL", "sam-callback")
    eventually(lambda: machine.of_the_unit("MainPID") not in {killed, "0"}, START_SECONDS)
    eventually(machine.answers, START_SECONDS)
    assert int(machine.of_the_unit("NRestarts")) == restarts + 1
    page = markdown.ROOT.joinpath("docs/deploy.md").read_text(encoding="utf-8")
    [listing] = re.findall(r"`sudo -u sam-callback (.* spool list [^`]*)`", page)
    assert "too-early" in machine.run("runuser", "-u", "sam-callback", "--", *listing.split())


def test_it_comes_back_with_the_machine(machine: Machine) -> None:
    def found() -> list[int]:
        """How many unmatched callbacks the spool had, each time that it was opened."""
        lines = [json.loads(line) for line in machine.journal() if line.startswith("{")]
        return [line["unmatched"] for line in lines if line["event"] == "spool_open"]

    assert machine.post("before-the-boot") == "unmatched"
    before = found()
    docker("restart", "--time=60", machine.id, timeout=START_SECONDS)
    eventually(machine.answers, START_SECONDS)
    eventually(lambda: len(found()) > len(before))
    assert found()[-1] >= 1


def test_code_and_settings_in_its_folder_are_neither_run_nor_read(machine: Machine) -> None:
    planted = "; ".join(
        f"echo 'raise SystemExit(1)' > {name}"
        for name in ("orjson.py", "sitecustomize.py", "usercustomize.py", "sam/__init__.py")
    )
    script = f"cd /var/lib/sam-callback; mkdir sam; {planted}; echo CALLBACK_PORT=x > .env"
    machine.run("runuser", "-u", "sam-callback", "--", "sh", "-euc", script)
    machine.run("systemctl", "restart", "sam-callback")
    eventually(machine.answers, START_SECONDS)
    assert machine.post("too-early-too") == "unmatched"
    assert machine.of_the_unit("NRestarts") == "0"


def test_it_may_do_nothing_that_it_need_not(machine: Machine) -> None:
    process = f"/proc/{machine.of_the_unit('MainPID')}"
    status = dict(re.findall(r"(?m)^(\w+):\s*(.*)$", machine.run("cat", f"{process}/status")))
    user = machine.run("id", "--user", "sam-callback")
    assert status["Uid"].split() == [user] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limits = machine.run("cat", f"{process}/limits")
    assert re.search(r"(?m)^Max core file size +0 +0 ", limits)
    mounts = [line.split() for line in machine.run("cat", f"{process}/mounts").splitlines()]
    options = {place: option.split(",") for _, place, _, option, *_ in mounts}
    assert "ro" in options["/"]
    assert "rw" in options["/var/lib/sam-callback"]
