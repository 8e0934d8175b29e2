"""Suspicious settings: a warning in the log, and a line of `check`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sam.callback.setting_warnings import warnings_about
from sam.callback.settings import Settings
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service, run_to_its_end

CASES = {
    "a quoted key": ("CALLBACK_API_KEY_PREVIOUS", '"an-old-key"', "quotation mark"),
    "a quoted password": ("SQL_SAM_PASSWORD", "'hush-hush'", "quotation mark"),
    "a line end": ("SQL_SAM_PASSWORD", "hush-hush\n", "ends with a line end"),
    "a return": ("SQL_SAM_PASSWORD", "hush-hush\r", "ends with a line end"),
    "a blank": ("SQL_SAM_USER", " hush-hush", "begins or ends with a blank"),
    "a removed setting": ("SQL_SAM_APPLICATION_INTENT", "ReadWrite", "no such setting"),
    "a typing error": ("CALLBACK_DB_TIMOUT", "4.321 s", "Did you mean CALLBACK_DB_TIMEOUT?"),
    "an unknown name": ("SQL_SAM_COLOUR", "blue", "no such setting"),
}


@pytest.mark.parametrize(("name", "value", "says"), CASES.values(), ids=CASES)
def test_it_is_told_in_the_log_and_by_check(
    name: str,
    value: str,
    says: str,
    start_service: Callable[..., Service],
    sqlite_database: SqliteDatabase,
    tmp_path: Path,
) -> None:
    variables = {"SQL_SAM_CONNECTION_STRING": sqlite_database.connection_string, name: value}
    line = start_service(**variables).wait_for_event("suspicious_setting")
    assert (line["level"], line["variable"]) == ("warning", name)
    assert says in f"{line['reason']} {line['action']}"

    key = {"CALLBACK_API_KEY": "Zk3-qT9vXw_82LmNr5yB", "CALLBACK_PORT": "0"}
    checked = run_to_its_end(tmp_path, {**key, **variables}, "check", "--json")
    assert checked.returncode == 0
    [found] = [each for each in json.loads(checked.stdout)["checks"] if each["subject"] == name]
    assert found["level"] == "warning"
    assert says in f"{found['detail']} {found['action']}"
    for text in (checked.stdout, json.dumps(line)):
        assert value.strip() not in text


def test_a_key_in_quotation_marks_is_the_key_with_them(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_API_KEY=f'"{KEY}"'
    )
    assert service.wait_for_event("suspicious_setting")["variable"] == "CALLBACK_API_KEY"
    with service.client() as client:
        assert client.get("/metrics").status_code == 401
        client.headers["X-API-KEY"] = f'"{KEY}"'
        assert client.get("/metrics").status_code == 200


def test_quotation_marks_are_named_with_the_error(tmp_path: Path) -> None:
    variables = {"CALLBACK_API_KEY": "k", "SQL_SAM_CONNECTION_STRING": "x"}
    ended = run_to_its_end(tmp_path, {**variables, "CALLBACK_DB_TIMEOUT": '"2 s"'})
    assert ended.returncode == 2
    assert "CALLBACK_DB_TIMEOUT is wrong" in ended.stderr
    assert "The quotation marks are part of the value" in ended.stderr


def test_correct_settings_give_no_warning() -> None:
    variables = {
        "callback_api_key": "'abc",
        "callback_db_timeout": "2 s",
        "sql_sam_password": 'it\'s "so"',
        "sql_sam_user": "'",
    }
    assert list(warnings_about(variables, Settings.model_fields)) == []
