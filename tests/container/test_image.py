"""The image: built from the checkout, run without root, with its volume alone to write to."""

import json
import secrets
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from sam.callback.cli import embedded
from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.containers import (
    BASE_IMAGE,
    HARDENED,
    Container,
    build,
    docker,
    docker_fails,
    remove,
)
from tests.support.service import KEY

pytestmark = pytest.mark.container

LARGEST_ADDITION: Final = 110_000_000
"""Bytes upon the base. The Dockerfile's has 130 million or so, and the whole may have 250."""

ROBOT: Final = "f6d30428-15d1-41e9-a952-0742eaaa5a31"
EMBEDDED: Final = ("sh", "-c", "cd /data && exec sam-callback serve --embedded")
NO_DATABASE: Final = {
    "SQL_SAM_SERVER": "127.0.0.1,9",
    "SQL_SAM_DATABASE": "SAM",
    "SQL_SAM_USER": "sam_callback",
    "SQL_SAM_PASSWORD": "never-asked-for",
}
READ_STATUS: Final = """
import sqlite3, sys
print(*sqlite3.connect('/data/var/sam.db').execute(
    'SELECT status FROM robots WHERE deploymentId = ?', sys.argv[1:]).fetchone())
"""


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    tag = f"sam-callback-test:{secrets.token_hex(4)}"
    build(tag)
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="module")
def image_without_driver() -> Iterator[str]:
    tag = f"sam-callback-test:{secrets.token_hex(4)}"
    build(tag, "--build-arg=BUNDLED_DRIVER=")
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture
def volume() -> Iterator[str]:
    name = docker("volume", "create")
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture
def secret_files(tmp_path: Path) -> Path:
    """Two secrets as Kubernetes mounts them: links to links, and a folder among them."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..data").symlink_to("..2026")
    for name, value in {"callback_api_key": KEY, "sql_sam_password": "of-a-file"}.items():
        (tmp_path / "..2026" / name).write_text(value)
        (tmp_path / name).symlink_to(f"..data/{name}")
    tmp_path.chmod(0o755)  # the container's user is another
    return tmp_path


@pytest.fixture
def start(image: str, volume: str) -> Iterator[Callable[..., Container]]:
    containers: list[Container] = []

    def run(*command: str, volumes: Sequence[str] = (), **environment: str) -> Container:
        every = [f"{volume}:/data", *volumes]
        containers.append(Container(image, every, *command, **environment))
        return containers[-1]

    yield run
    for container in containers:
        container.remove()


def size(image: str) -> int:
    return int(docker("run", "--rm", "--user=0", image, "du", "-sxb", "/").split()[0])


def test_it_adds_little_to_its_base(image: str) -> None:
    assert size(image) - size(BASE_IMAGE) < LARGEST_ADDITION


def test_it_runs_without_root_and_owns_its_volume_alone(image: str) -> None:
    assert docker("inspect", "--format={{.Config.User}}", image) == "10001:10001"
    assert docker("run", "--rm", image, "id", "-u", "-n") == "sam"
    owned = docker("run", "--rm", "--user=0", image, *shlex.split("find / -xdev -user sam"))
    assert owned == "/data"
    writable = "find /app -xdev -perm /6022 ! -type l"  # by others, or with another's rights
    assert docker("run", "--rm", "--user=0", image, *shlex.split(writable)) == ""


def test_nothing_that_it_imports_is_compiled_at_each_start(image: str) -> None:
    not_compiled = docker(
        "run", "--rm", *HARDENED, image, "python", "-c",
        "import os, sys\n"
        "import http.client, sam.callback.service.main, sam.callback.server.server\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    cached = getattr(module, '__cached__', None)\n"
        "    if cached and not os.path.exists(cached): print(name)",
    )  # fmt: skip
    assert not_compiled == ""


def test_its_notice_lists_its_packages_and_licences(image: str) -> None:
    notice = docker("run", "--rm", image, "cat", "/app/NOTICE.txt")
    [microsoft] = [line for line in notice.splitlines() if "MICROSOFT_ODBC" in line]
    assert "MICROSOFT" in docker("run", "--rm", image, "cat", microsoft)
    for package in ("pyodbc", "fastapi", "sam-callback"):
        assert f"\n{package} " in notice
    labels = json.loads(docker("inspect", "--format={{json .Config.Labels}}", image))
    assert labels["org.opencontainers.image.base.name"] == BASE_IMAGE
    assert "Microsoft" in labels["org.opencontainers.image.licenses"]


def test_a_callback_is_served_on_sqlite(start: Callable[..., Container]) -> None:
    container = start(*EMBEDDED, CALLBACK_HOST="0.0.0.0")  # noqa: S104 - of the container
    assert container.post(body(ROBOT, "RUN_FAILED"))["outcome"] == "updated"
    assert container.exec("python", "-c", READ_STATUS, ROBOT) == "RUN_FAILED"
    assert "read-only" in docker_fails("exec", container.id, "touch", "/tmp/x").stderr.lower()  # noqa: S108


def test_the_engine_sees_that_it_is_healthy(start: Callable[..., Container]) -> None:
    container = start(**NO_DATABASE)
    eventually(lambda: container.state()["Health"]["Status"] == "healthy", 60)


def test_its_health_check_fails_without_a_service(image: str) -> None:
    probe = docker_fails("run", "--rm", image, "python", "/app/healthcheck.py")
    assert probe.returncode == 1
    assert "127.0.0.1:8000" in probe.stdout


def test_microsofts_driver_is_there_and_loads(image: str) -> None:
    # A server that is not there: the driver's own words, and not the driver manager's.
    answer = docker(
        "run", "--rm", *HARDENED, image, "python", "-c",
        "import pyodbc\n"
        "from sam.callback.storage.odbc.drivers import find_driver\n"
        "try: pyodbc.connect(f'DRIVER={find_driver().name};SERVER=127.0.0.1,9', timeout=2)\n"
        "except pyodbc.Error as error: print(*error.args)",
    )  # fmt: skip
    assert "[Microsoft][ODBC Driver 18 for SQL Server]" in answer


def test_it_can_be_built_without_microsofts_driver(image_without_driver: str) -> None:
    notice = docker("run", "--rm", image_without_driver, "cat", "/app/NOTICE.txt")
    assert "Microsoft's ODBC driver is not in this image" in notice
    assert "mssql" not in notice
    everything = docker("run", "--rm", "--user=0", image_without_driver, "find", "/", "-xdev")
    assert "msodbcsql" not in everything
    licences = '{{index .Config.Labels "org.opencontainers.image.licenses"}}'
    assert docker("inspect", f"--format={licences}", image_without_driver) == "MIT"
    registered = (
        "printf '[ODBC Driver 18 for SQL Server]\\nDriver=/x.so\\n' > /tmp/odbcinst.ini;"
        "ODBCSYSINI=/tmp python -c 'from sam.callback.storage.odbc import drivers;"
        "print(drivers.find_driver().name)'"
    )
    options = ("run", "--rm", *HARDENED, "--tmpfs=/tmp")
    found = docker(*options, image_without_driver, "sh", "-ec", registered)
    assert found == "ODBC Driver 18 for SQL Server"


def test_code_in_its_volume_is_not_run(
    start: Callable[..., Container], image: str, volume: str
) -> None:
    planted = "; ".join(
        f"echo 'print(open(\"/nothing\"))' > {name}"
        for name in ("orjson.py", "sitecustomize.py", "usercustomize.py")
    )
    script = (
        f"cd /data; {planted}; mkdir sam; cp orjson.py sam/__init__.py; echo CALLBACK_PORT=x > .env"
    )
    docker("run", "--rm", f"--volume={volume}:/data", image, "sh", "-euc", script)
    container = start(**NO_DATABASE)
    assert container.post(body(ROBOT))["outcome"] == "queued"
    for command in (["sam-callback", "--version"], ["python", "-m", "sam.callback", "--version"]):
        assert docker("exec", "--workdir=/data", container.id, *command)


def test_the_spool_outlives_the_container(
    start: Callable[..., Container], image: str, volume: str
) -> None:
    container = start(**NO_DATABASE)
    assert container.post(body(ROBOT))["outcome"] == "queued"
    docker("kill", container.id)
    entry = docker(
        "run", "--rm", *HARDENED, f"--volume={volume}:/data", image,
        "sam-callback", "spool", "list", "--json",
    )  # fmt: skip
    assert json.loads(entry)["deploymentId"] == ROBOT


def test_secrets_may_be_files(start: Callable[..., Container], secret_files: Path) -> None:
    container = start(
        volumes=[f"{secret_files}:/run/secrets:ro"],
        CALLBACK_API_KEY="",
        **{**NO_DATABASE, "SQL_SAM_PASSWORD": ""},
    )
    assert container.post(body(ROBOT))["outcome"] == "queued"


def test_it_ends_within_10_s_of_sigterm_with_status_0(start: Callable[..., Container]) -> None:
    container = start(**NO_DATABASE)
    with httpx.Client(base_url=container.url) as idle:
        idle.get("/health")  # a connection that stays open
        docker("stop", "--time=10", container.id)  # then the engine kills it: status 137
    state = container.state()
    assert (state["ExitCode"], state["Status"]) == (0, "exited")
    assert docker_fails("logs", container.id).stderr == ""


def test_sigterm_during_the_start_ends_it_at_once(image: str) -> None:
    variables = [f"--env={name}={value}" for name, value in NO_DATABASE.items()]
    container = docker("run", "--detach", *variables, "--env=CALLBACK_API_KEY=k", image)
    try:
        docker("stop", "--time=10", container)
        status = docker("inspect", "--format={{.State.ExitCode}}", container)
    finally:
        remove(container)
    assert int(status) in {0, 128 + signal.SIGTERM}


def test_missing_settings_are_named_in_one_message(image: str) -> None:
    run = docker_fails("run", "--rm", *HARDENED, image)
    assert run.returncode == 2
    assert "CALLBACK_API_KEY is missing" in run.stderr


def test_no_secret_of_the_checkout_gets_into_it(image: str) -> None:
    everything = docker("run", "--rm", "--user=0", image, "find", "/app", "-xdev", "-maxdepth", "1")
    assert set(everything.split()) == {
        "/app", "/app/.venv", "/app/LICENSE", "/app/NOTICE.txt", "/app/healthcheck.py",
    }  # fmt: skip
    assert embedded.KEY not in docker("history", "--no-trunc", image)
