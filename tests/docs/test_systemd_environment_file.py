"""One way to write a value holds in a file `.env` and in the EnvironmentFile of systemd.

Systemd's own parser is asked: its generator for environment.d reads files with the code that reads
an EnvironmentFile (environment.d(5), systemd.exec(5)). It replaces `$NAME` besides, which that does
not; so no value here has a `$`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sam.callback import setting_sources
from tests.support.markdown import ROOT

GENERATOR: Final = Path(
    "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
)
PAGES: Final = [
    ".env.example",
    "docs/deploy.md",
    "docs/deploy.es.md",
    "docs/systemd/sam-callback.service",
]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux alone")


def read_by_systemd(text: str, directory: Path) -> dict[str, str]:
    """Return what an EnvironmentFile sets."""
    assert GENERATOR.exists(), "this test needs systemd's environment.d generator: `make setup`"
    directory.joinpath("environment.d").mkdir(exist_ok=True)
    directory.joinpath("environment.d/x.conf").write_text(text, encoding="utf-8")
    generated = subprocess.run(
        [GENERATOR],
        env={"XDG_CONFIG_HOME": str(directory), "HOME": str(directory)},
        capture_output=True,
        check=True,
    )
    # What it prints is for a shell to read.
    shell = subprocess.run(
        ["/bin/sh", "-ac", 'eval "$GENERATED"; unset GENERATED; exec env -0'],
        env={"GENERATED": generated.stdout.decode(), "PATH": os.defpath},
        capture_output=True,
        check=True,
    )
    pairs = [pair.partition("=") for pair in shell.stdout.decode().split("\0")]
    return _ours({name: value for name, _, value in pairs})


def read_by_us(text: str, directory: Path) -> dict[str, str]:
    """Return what a file `.env` sets."""
    directory.joinpath(".env").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name in _ours(os.environ):
            patch.delenv(name)
        return {name.upper(): value for name, value in setting_sources.read_variables().items()}


def _ours(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if name.lower().startswith(setting_sources.PREFIXES)
    }


def as_documented(value: str) -> str:
    """Write a value as .env.example tells one to."""
    if "'" in value or "\\\\" in value or value.endswith("\\"):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return f"'{value}'"


def examples(page: str) -> Iterator[tuple[str, str, str]]:
    """The assignments with quotes in a page: the name, the whole, and the value that is meant."""
    text = ROOT.joinpath(page).read_text(encoding="utf-8")
    for name, written in re.findall(r"""\b([A-Z_]+)=('[^'\n]+'|"(?:\\.|[^"\\\n])+")""", text):
        value = written[1:-1]
        yield (
            name,
            f"{name}={written}\n",
            (value if written[0] == "'" else re.sub(r"\\(.)", r"\1", value)),
        )


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_the_pages_are_read_alike(page: str, tmp_path: Path) -> None:
    shown = list(examples(page))
    assert any("\\" in value for _, _, value in shown), "no value with a backslash is shown"
    for name, line, value in shown:
        assert read_by_systemd(line, tmp_path) == {name: value}
        assert read_by_us(line, tmp_path) == {name: value}


def test_the_example_file_is_read_alike(tmp_path: Path) -> None:
    text = ROOT.joinpath(".env.example").read_text(encoding="utf-8")
    filled_in = re.sub(r"(?m)^(?:# )?([A-Z_]+)=(.*)$", lambda m: f"{m[1]}={m[2] or 'x'}", text)
    assert len(read_by_us(filled_in, tmp_path)) == len(re.findall(r"(?m)^[A-Z_]+=", filled_in)) > 30
    assert read_by_systemd(filled_in, tmp_path) == read_by_us(filled_in, tmp_path)


TEXTS = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="$"), min_size=1
)


@given(value=TEXTS)
@example(value="SQL01\\SAM")
@example(value="CORP\\new robot")
@example(value='it\'s "so"\\')
@example(value="'")
@example(value=" # ; \\\\ ")
@hypothesis_settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_value_that_is_written_as_documented_is_read_alike(value: str, tmp_path: Path) -> None:
    line = f"SQL_SAM_PASSWORD={as_documented(value)}\n"
    assert read_by_systemd(line, tmp_path) == {"SQL_SAM_PASSWORD": value}
    assert read_by_us(line, tmp_path) == {"SQL_SAM_PASSWORD": value}


def test_outside_of_quotes_systemd_drops_a_backslash(tmp_path: Path) -> None:
    """Which is why the pages tell to quote."""
    line = "SQL_SAM_SERVER=SQL01\\SAM\n"
    assert read_by_systemd(line, tmp_path) == {"SQL_SAM_SERVER": "SQL01SAM"}
    assert read_by_us(line, tmp_path) == {"SQL_SAM_SERVER": "SQL01\\SAM"}
