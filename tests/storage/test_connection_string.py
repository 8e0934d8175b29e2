"""SQL_SAM_* become an ODBC connection string, with every value as it was set."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyodbc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam.callback.settings import Settings, SettingsError
from sam.callback.storage.odbc import drivers
from sam.callback.storage.odbc.connection_string import ConnectionString, connection_string, escape
from sam.callback.storage.odbc.drivers import Driver, DriverNotFoundError, find_driver


def parse(text: str) -> dict[str, str]:
    """Read a connection string by ODBC's grammar (SQLDriverConnect, "Comments").

    keyword=value pairs with a semicolon between them; a value that begins with an opening brace
    ends with the next closing brace that is not doubled.
    """
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        keyword, _, rest = text[position:].partition("=")
        position += len(keyword) + 1
        if rest.startswith("{"):
            end = 1
            value = ""
            while rest[end] != "}" or rest[end : end + 2] == "}}":
                end += 2 if rest[end] == "}" else 1
                value += rest[end - 1]
            end += 1
            assert rest[end] == ";"
        else:
            end = rest.index(";")
            value = rest[:end]
            assert value.strip() == value
        values[keyword.strip()] = value
        position += end + 1
    return values


ANY_VALUE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from("{};=[](),?*!@'\"\\ %$#&+"),
    min_size=1,
)


def settings(**values: Any) -> Settings:  # noqa: ANN401 - whatever is to be checked
    required = {
        "callback_api_key": "k",
        "sql_sam_server": "db.example",
        "sql_sam_database": "SAM",
        "sql_sam_user": "sam",
        "sql_sam_password": "p",
    }
    return Settings(**{**required, **values})


@pytest.fixture
def with_drivers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def register(*names: str, bundled: str | None = None) -> None:
        monkeypatch.setattr(pyodbc, "drivers", lambda: list(names))
        path = Path(bundled) if bundled else None
        monkeypatch.setattr(drivers, "_bundled_driver", lambda: path)

    return register


@given(value=ANY_VALUE)
def test_an_escaped_value_is_read_back_as_it_was(value: str) -> None:
    assert parse(f"PWD={escape(value)};UID=sam;") == {"PWD": value, "UID": "sam"}


@given(database=ANY_VALUE, user=ANY_VALUE, password=ANY_VALUE)
def test_every_setting_arrives(database: str, user: str, password: str) -> None:
    with pytest.MonkeyPatch.context() as here:
        here.setattr(pyodbc, "drivers", lambda: ["ODBC Driver 18 for SQL Server"])
        text = connection_string(
            settings(sql_sam_database=database, sql_sam_user=user, sql_sam_password=password)
        ).text
    values = parse(text)
    assert (values["DATABASE"], values["UID"], values["PWD"]) == (database, user, password)


@pytest.mark.parametrize(
    ("server", "written"),
    [
        ("db", "db"),
        (" db ", "db"),
        ("db,1434", "db,1434"),
        (r"db\SAM", r"db\SAM"),
        (r"db\SAM,1434", r"db\SAM,1434"),
        ("tcp:db,1434", "tcp:db,1434"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("[::1],1434", "::1,1434"),
        (r"[::1]\SAM", r"::1\SAM"),
        ("fe80::1%eth0,1434", "fe80::1%eth0,1434"),
        ("[fe80::1%eth0],1434", "fe80::1%eth0,1434"),
        ("tcp:[::1],1434", "tcp:::1,1434"),
        (r"np:\\db\pipe\sql\query", r"np:\\db\pipe\sql\query"),
    ],
)
def test_a_server_is_written_as_the_driver_reads_it(
    server: str, written: str, with_drivers: Callable[..., None]
) -> None:
    with_drivers("ODBC Driver 18 for SQL Server")
    assert parse(connection_string(settings(sql_sam_server=server)).text)["SERVER"] == written


@pytest.mark.parametrize("server", ["db.example:1433", "10.0.0.1:1433", "[::1]:1433"])
def test_a_port_after_a_colon_is_refused_with_how_to_write_it(
    server: str, with_drivers: Callable[..., None]
) -> None:
    with_drivers("ODBC Driver 18 for SQL Server")
    with pytest.raises(SettingsError, match=r"SQL_SAM_SERVER is wrong.*after a comma"):
        connection_string(settings(sql_sam_server=server))


def test_the_connection_is_encrypted_and_the_certificate_checked_by_default(
    with_drivers: Callable[..., None],
) -> None:
    with_drivers("ODBC Driver 18 for SQL Server")
    values = parse(connection_string(settings()).text)
    assert (values["Encrypt"], values["TrustServerCertificate"]) == ("yes", "no")


def test_availability_group_settings_are_passed_on_where_they_are_set(
    with_drivers: Callable[..., None],
) -> None:
    with_drivers("ODBC Driver 18 for SQL Server")
    plain = parse(connection_string(settings()).text)
    assert "MultiSubnetFailover" not in plain
    values = parse(connection_string(settings(sql_sam_multi_subnet_failover="Yes")).text)
    assert values["MultiSubnetFailover"] == "yes"


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        escape("a\0b")


def test_a_whole_connection_string_is_used_as_it_is(with_drivers: Callable[..., None]) -> None:
    with_drivers("SQLite3", "FreeTDS")
    for text, name in {
        "DRIVER=SQLite3;Database=x.db": "SQLite3",
        "Database=x.db; driver = {SQLite3} ;": "SQLite3",
        "DSN=SAM;PWD={a;DRIVER=b}": "",
    }.items():
        made = connection_string(settings(sql_sam_connection_string=text))
        assert made.text == text
        assert made.driver.name == name


def test_the_newest_microsoft_driver_comes_first(with_drivers: Callable[..., None]) -> None:
    with_drivers(
        "FreeTDS",
        "ODBC Driver 9 for SQL Server",
        "ODBC Driver 18 for SQL Server",
        "ODBC Driver 17 for SQL Server",
        bundled="/bundled.so",
    )
    assert find_driver().name == "ODBC Driver 18 for SQL Server"


def test_then_the_one_of_the_package(with_drivers: Callable[..., None]) -> None:
    with_drivers("FreeTDS", "SQLite3", bundled="/bundled.so")
    assert find_driver().name == str(Path("/bundled.so"))


def test_without_any_the_message_says_how_to_get_one(with_drivers: Callable[..., None]) -> None:
    with_drivers("SQLite3", "FreeTDS")
    with pytest.raises(DriverNotFoundError, match="Install Microsoft's ODBC Driver 18"):
        find_driver()


def test_the_driver_that_is_named_is_taken(
    with_drivers: Callable[..., None], tmp_path: Path
) -> None:
    with_drivers("FreeTDS", "ODBC Driver 17 for SQL Server", "ODBC Driver 18 for SQL Server")
    assert find_driver("ODBC Driver 17 for SQL Server").name == "ODBC Driver 17 for SQL Server"
    library = tmp_path / "libmsodbcsql-18.6.so.1.1"
    library.touch()
    assert find_driver(str(library)).name == str(library)
    with pytest.raises(DriverNotFoundError, match="Registered: FreeTDS, ODBC Driver 17"):
        find_driver("Another")


def test_a_driver_that_would_ignore_settings_is_refused(
    with_drivers: Callable[..., None], tmp_path: Path
) -> None:
    """It would log in without encryption, and say nothing."""
    with_drivers("FreeTDS", "ODBC Driver 18 for SQL Server")
    library = tmp_path / "libtdsodbc.so"
    library.touch()
    for name in ("FreeTDS", str(library)):
        with pytest.raises(DriverNotFoundError, match="SQL_SAM_ENCRYPT"):
            find_driver(name)


def test_the_password_is_in_no_text_but_the_string_itself() -> None:
    text = "UID=sam;PWD={a}};b};"
    made = ConnectionString(text, Driver("x", "y"), frozenset({"a};b"}))
    assert made.redact("login failed for a};b") == "login failed for ***"
    assert "a};b" not in repr(made)


def test_letters_digits_and_harmless_signs_need_no_braces() -> None:
    plain = string.ascii_letters + string.digits + "._-"
    assert escape(plain) == plain
