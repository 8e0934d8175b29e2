"""Microsoft's driver gets the settings unchanged: seen in the login that it sends.

Down to its own answers where nothing listens, or says nothing.
"""

import socket
from contextlib import closing
from typing import Any

import pyodbc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sam.callback.settings import Settings
from sam.callback.storage.errors import DatabaseUnavailableError
from sam.callback.storage.odbc.connection_string import connection_string
from tests.support.conditions import LIMIT_SECONDS
from tests.support.proxy import proxy_to
from tests.support.repositories import open_repository
from tests.support.tds import TdsServer, tds_server

# What a login can be made of: any character but those that no environment, or no login, can hold.
NAME = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("{};=[](),?*!@'\"\\ %$#&+"),
    min_size=1,
    max_size=20,
)


def settings(values: dict[str, Any], **overrides: object) -> Settings:
    return Settings(**{"callback_api_key": "k", **values, **overrides})


def log_in(settings: Settings) -> None:
    pyodbc.connect(connection_string(settings).text, timeout=LIMIT_SECONDS).close()


def test_names_and_passwords(sql_server: TdsServer, to_sql_server: dict[str, Any]) -> None:
    @given(user=NAME, password=NAME, database=NAME)
    @hypothesis_settings(max_examples=60)
    def arrive(user: str, password: str, database: str) -> None:
        these = settings(
            to_sql_server, sql_sam_user=user, sql_sam_password=password, sql_sam_database=database
        )
        log_in(these)
        login = sql_server.logins[-1]
        assert (login.user, login.password, login.database) == (user, password, database)

    arrive()


@pytest.mark.parametrize("form", ["{host},{port}", "tcp:{host},{port}", r"{host}\SAM,{port}"])
def test_a_server_and_its_port(
    form: str, sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    server = form.format(host="127.0.0.1", port=sql_server.port)
    log_in(settings(to_sql_server, sql_sam_server=server))
    assert len(sql_server.logins) == 1


@pytest.mark.parametrize("form", ["::1,{port}", "[::1],{port}"])
def test_a_server_by_ipv6(form: str, to_sql_server: dict[str, Any]) -> None:
    with tds_server("::1") as server:
        log_in(settings(to_sql_server, sql_sam_server=form.format(port=server.port)))
        assert len(server.logins) == 1


def test_the_application_and_that_it_writes(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    log_in(settings(to_sql_server, sql_sam_multi_subnet_failover="no"))
    assert not sql_server.logins[-1].is_read_only
    assert sql_server.logins[-1].application == "sam-callback"


def test_a_password_is_not_sent_to_a_server_that_cannot_encrypt(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    with pytest.raises(pyodbc.Error):
        log_in(settings(to_sql_server, sql_sam_encrypt="yes"))
    assert not sql_server.logins


async def probe(settings: Settings) -> str:
    """Try to write; return why it did not work."""
    async with open_repository(settings) as repository:
        with pytest.raises(DatabaseUnavailableError) as caught:
            await repository.probe(timeout=LIMIT_SECONDS)
    return str(caught.value)


async def test_no_server_listens(to_sql_server: dict[str, Any]) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        reason = await probe(
            settings(
                to_sql_server,
                sql_sam_server=f"127.0.0.1,{unused.getsockname()[1]}",
                sql_sam_login_timeout=1,
            )
        )
    assert "Check SQL_SAM_SERVER" in reason


async def test_a_server_that_says_nothing(
    sql_server: TdsServer, to_sql_server: dict[str, Any]
) -> None:
    with proxy_to(sql_server.port) as proxy:
        proxy.fall_silent()
        reason = await probe(
            settings(
                to_sql_server,
                sql_sam_server=f"127.0.0.1,{proxy.port}",
                sql_sam_login_timeout=1,
            )
        )
    assert "Check SQL_SAM_SERVER" in reason
