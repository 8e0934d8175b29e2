"""No part of a connection string is repeated unless it is known not to be secret.

A separator that is missing or misspelt puts the password where no password is looked for.
"""

import re
from pathlib import Path
from typing import Final

import pyodbc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sam.callback.settings import Settings, SettingsError
from sam.callback.storage.odbc.connection_string import ConnectionString, connection_string
from sam.callback.storage.odbc.drivers import DriverNotFoundError
from tests.support.service import KEY, run_to_its_end

SECRET: Final = "Zq9x-s3cr3t"
MICROSOFT: Final = "ODBC Driver 18 for SQL Server"
VALID: Final = [
    f"DRIVER=SQLite3;Database=/no/such/place/sam.db;PWD={SECRET};",
    f"Driver={{{MICROSOFT}}};Server=db,1433;Database=SAM;UID=sam;PWD={{{SECRET}}};Encrypt=yes",
    f"PWD={SECRET};UID=sam;Server=db;Driver={MICROSOFT};TrustServerCertificate=no;",
    f"DSN=sam;Password={SECRET};UID=sam",
]
INSTEAD: Final = ["", " ", ",", ":", ";", "=", "{", "}", "|", "\t", "=;", ";="]


@st.composite
def misspelt(draw: st.DrawFn) -> str:
    """A valid string, some of whose separators are cut, joined, swapped or others."""
    pieces = re.split(r"(;PWD=|[;={}])", draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from(range(1, len(pieces), 2)))
        if draw(st.booleans()):
            pieces[at] = draw(st.sampled_from(INSTEAD))
        else:
            other = draw(st.sampled_from(range(1, len(pieces), 2)))
            pieces[at], pieces[other] = pieces[other], pieces[at]
    return "".join(pieces)


def built(text: str) -> ConnectionString | str:
    """The connection string, or why there is none."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(pyodbc, "drivers", lambda: ["SQLite3", MICROSOFT])
        try:
            return connection_string(Settings(callback_api_key=KEY, sql_sam_connection_string=text))
        except (SettingsError, DriverNotFoundError) as error:
            return str(error)


@given(text=misspelt())
@example(text=f"Driver=SQLite3 PWD={SECRET};Database=x")
@example(text=f"Driver=SQLite3;Server=db PWD:{SECRET};UID=sam")
@example(text=f"Driver=SQLite3;UID=sam{SECRET};Database=x")
@example(text=f"Driver=SQLite3;UID=sam;PWD=;{SECRET}=UID;")
def test_a_drivers_quotation_of_a_misspelt_one_does_not_disclose_the_secret(text: str) -> None:
    made = built(text)
    if isinstance(made, str):
        assert SECRET not in made
        return
    quoted = [text, text.upper(), *re.split("[;=]", text), *re.split(r"[;={}\\s]", text)]
    for each in quoted:
        said = made.redact(f"[08001] connection to {each!r} failed")
        assert SECRET.lower() not in said.lower()
    assert SECRET not in f"{made!r} {made.driver.name} {made.driver.reason}"


def test_parts_known_not_to_be_secret_are_shown() -> None:
    made = built(VALID[1])
    assert isinstance(made, ConnectionString)
    said = f"Login failed for user 'sam' on db,1433. Cannot open SAM. {SECRET}"
    assert made.redact(said) == said.replace(SECRET, "***")


@pytest.mark.parametrize("text", VALID)
def test_a_valid_one_is_taken(text: str) -> None:
    assert isinstance(built(text), ConnectionString)


@pytest.mark.parametrize("command", [["check", "--json"], ["serve"], ["spool", "drain"]])
@pytest.mark.parametrize(
    "text",
    [
        f"Driver=SQLite3 PWD={SECRET};Database=x",
        f"Driver=SQLite3,PWD:{SECRET};Database=x",
        f"Driver=SQLite3;Database=x;{SECRET}",
    ],
)
def test_no_command_prints_it(text: str, command: list[str], tmp_path: Path) -> None:
    variables = {"CALLBACK_API_KEY": KEY, "SQL_SAM_CONNECTION_STRING": text}
    run = run_to_its_end(tmp_path, variables, *command)
    assert run.returncode != 0
    assert SECRET not in run.stdout + run.stderr
    assert "SQL_SAM_CONNECTION_STRING" in run.stdout + run.stderr


def test_a_name_that_is_nearly_a_drivers_is_asked_about() -> None:
    said = built("Driver=ODBC Driver 18 for SQL Sever;Server=db;")
    assert isinstance(said, str)
    assert f"Is '{MICROSOFT}' meant?" in said
    assert "Sever" not in said
