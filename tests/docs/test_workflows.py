"""What the workflows run is in the Makefile and .ci, which run here too; little is left in YAML."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pyodbc
import pytest
import yaml

from tests.support.markdown import ROOT
from tests.support.tds import TdsServer

BEFORE_THE_CHECKOUT: Final = (
    "apt-get update && apt-get install -y --no-install-recommends ca-certificates git make python3"
)
ON_WINDOWS: Final = {
    "python -m pip install --require-hashes -r .ci/uv.txt",
    "uv run --locked pytest",
}


def commands() -> Iterator[str]:
    for workflow in ROOT.glob(".github/workflows/*.yml"):
        for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
            yield from (step["run"] for step in job["steps"] if "run" in step)


def test_each_step_is_one_command_of_the_checkout() -> None:
    makefile = ROOT.joinpath("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    steps = list(commands())
    assert len(steps) > 5
    for step in steps:
        if step == BEFORE_THE_CHECKOUT or step.startswith(tuple(ON_WINDOWS)):
            continue
        program, *arguments = shlex.split(step)
        if program != "make":
            assert program.startswith(".ci/")
            assert os.access(ROOT / program, os.X_OK), program
            arguments = arguments[arguments.index("make") + 1 :] if "make" in arguments else []
        assert {each for each in arguments if "=" not in each} <= targets, step


@pytest.mark.posix
def test_the_tests_reach_sql_server_by_the_driver_that_the_service_would_choose(
    sql_server: TdsServer,
) -> None:
    server = f"127.0.0.1,{sql_server.port}"
    command = [".ci/sqlserver", server, "For-this-run-only-1", "printenv", "SAM_TEST_SQLSERVER"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *_, text = done.stdout.splitlines()
    assert "Encrypt=yes" in text  # which the stand-in cannot
    with closing(pyodbc.connect(text.replace("Encrypt=yes", "Encrypt=no"))) as connection:
        assert connection.getinfo(pyodbc.SQL_DBMS_NAME) == "Microsoft SQL Server"
