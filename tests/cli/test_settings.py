"""A missing or wrong variable ends the start: status 2, one plain message, no secret."""

import os
import re
import tempfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from sam.callback import setting_types
from sam.callback.settings import Settings, SettingsError
from tests.support.pages import default_of
from tests.support.service import clean_environment, run_to_its_end

GOOD = {"CALLBACK_API_KEY": "k", "SQL_SAM_CONNECTION_STRING": "DRIVER=SQLite3;Database=x.db;"}


def test_without_any_variable_one_message_names_all_that_is_missing(tmp_path: Path) -> None:
    run = run_to_its_end(tmp_path, {})

    assert run.returncode == 2
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert re.findall(r"(\w+) is missing", run.stderr) == [
        "CALLBACK_API_KEY",
        "SQL_SAM_SERVER",
        "SQL_SAM_DATABASE",
        "SQL_SAM_USER",
        "SQL_SAM_PASSWORD",
    ]


def test_a_driver_that_does_not_exist_ends_the_start(tmp_path: Path) -> None:
    for variables in (
        {**GOOD, "SQL_SAM_CONNECTION_STRING": "DRIVER={No Such Driver};PWD=hush-hush;"},
        {
            "CALLBACK_API_KEY": "k",
            "SQL_SAM_SERVER": "s",
            "SQL_SAM_DATABASE": "d",
            "SQL_SAM_USER": "u",
            "SQL_SAM_PASSWORD": "hush-hush",
            "SQL_SAM_DRIVER": "No Such Driver",
        },
    ):
        run = run_to_its_end(tmp_path, variables)
        assert run.returncode == 2
        assert "does not exist on this machine" in run.stderr
        assert ("'No Such Driver'" in run.stderr) is ("SQL_SAM_DRIVER" in variables)
        assert "Traceback" not in run.stderr
        assert "hush-hush" not in run.stderr


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_driver_beside_the_spool_ends_the_start(command: str, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/driver.so").write_bytes(b"")
    (tmp_path / "link.so").symlink_to(tmp_path / "var/driver.so")
    for path in ("var/driver.so", "./var/../var/driver.so", "./link.so"):
        run = run_to_its_end(tmp_path, {**GOOD, "SQL_SAM_DRIVER": path}, command)
        assert run.returncode == 2
        assert "SQL_SAM_DRIVER is wrong: the service itself can write there" in run.stderr


@pytest.mark.posix
def test_a_driver_is_where_the_service_cannot_write_unless_it_can_write_its_own_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    not_its_own = "/usr/bin/env"

    def driver(path: str, *, own_code: str) -> str | None:
        monkeypatch.setattr(setting_types, "_OWN_CODE", Path(own_code))
        return Settings.model_validate({**small(GOOD), "sql_sam_driver": path}).sql_sam_driver

    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        library = f"{folder}/driver.so"
        Path(library).write_bytes(b"")
        try:
            os.seteuid(user or 65534)  # root may write all
            with pytest.raises(ValidationError, match="the service itself can write there"):
                driver(library, own_code=not_its_own)
            assert driver(library, own_code=library) == library
            assert driver(not_its_own, own_code=not_its_own) == not_its_own
        finally:
            os.seteuid(user)


def small(variables: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in variables.items()}


@pytest.fixture(autouse=True)
def _nothing_but_the_tests_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    assert "CALLBACK_API_KEY" not in clean_environment()


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLBACK_API_KEY", "with space"),
        ("CALLBACK_API_KEY", "ñandú"),
        ("CALLBACK_API_KEY", "k" * 513),
        ("CALLBACK_API_KEY_PREVIOUS", "tab\tkey"),
        ("CALLBACK_PORT", "65536"),
        ("CALLBACK_PORT", "http"),
        ("CALLBACK_DB_TIMEOUT", "0"),
        ("CALLBACK_DB_TIMEOUT", "soon"),
        ("CALLBACK_SPOOL_MAX_BYTES", "1 KiB"),
        ("CALLBACK_MAX_BODY_BYTES", "-1"),
        ("CALLBACK_MAX_BODIES_BYTES", "15 MiB"),  # less than one body may have
        ("CALLBACK_LOG_LEVEL", "LOUD"),
        ("CALLBACK_LOG_FORMAT", "xml"),
        ("CALLBACK_DOCS", "perhaps"),
        ("CALLBACK_SSL_CERTFILE", "/no/such/file"),
        ("SQL_SAM_POOL_MAX", "0"),
        ("SQL_SAM_TABLE", "robots; DROP TABLE robots"),
        ("SQL_SAM_TABLE", "a.b.c.d"),
        ("SQL_SAM_TABLE", 'robots"'),
        ("SQL_SAM_STATUS_COLUMN", "status = 1, x"),
        ("SQL_SAM_DEPLOYMENT_COLUMN", "[id]"),
        ("SQL_SAM_ENCRYPT", "maybe"),
    ],
)
def test_a_wrong_value_is_named_with_the_settings_description(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, {**GOOD, name: value})

    with pytest.raises(SettingsError) as caught:
        Settings.load()

    message = str(caught.value)
    assert f"{name} is wrong" in message
    assert str(Settings.model_fields[name.lower()].description) in message
    assert "KEY" not in name or value not in message


def test_the_defaults_are_those_of_the_contract(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_all(monkeypatch, GOOD)
    settings = Settings.load()
    assert settings.model_dump(exclude={"callback_api_key", "sql_sam_connection_string"}) == {
        "callback_host": "0.0.0.0",  # noqa: S104 - A360 calls from outside
        "callback_port": 8000,
        "callback_api_key_previous": None,
        "sql_sam_server": None,
        "sql_sam_database": None,
        "sql_sam_user": None,
        "sql_sam_password": None,
        "sql_sam_driver": None,
        "sql_sam_encrypt": "yes",
        "sql_sam_trust_server_certificate": False,
        "sql_sam_pool_max": 4,
        "sql_sam_login_timeout": 5,
        "sql_sam_table": "robots",
        "sql_sam_deployment_column": "deploymentId",
        "sql_sam_status_column": "status",
        "sql_sam_multi_subnet_failover": None,
        "sql_sam_payload_column": None,
        "sql_sam_finished_column": None,
        "callback_db_timeout": 2,
        "callback_spool_path": tmp_path / "var/callback-spool.db",
        "callback_spool_max_bytes": 1024**3,
        "callback_inbox_connection_string": None,
        "callback_inbox_table": "sam_callback_inbox",
        "callback_inbox_timeout": 1.5,
        "callback_unmatched_ttl": 24 * 3600,
        "callback_max_body_bytes": 16 * 1024**2,
        "callback_max_bodies_bytes": 64 * 1024**2,
        "callback_body_timeout": 10,
        "callback_header_timeout": 10,
        "callback_keep_alive_timeout": 75,
        "callback_max_header_bytes": 16 * 1024,
        "callback_max_headers": 100,
        "callback_max_connections": 1000,
        "callback_drain_seconds": 0,
        "callback_ssl_certfile": None,
        "callback_ssl_keyfile": None,
        "callback_forwarded_allow_ips": "",
        "callback_log_level": "INFO",
        "callback_log_format": "json",
        "callback_docs": True,
    }


def test_units_and_empty_values_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {
            **GOOD,
            "CALLBACK_DB_TIMEOUT": "500 ms",
            "CALLBACK_UNMATCHED_TTL": "2h",
            "CALLBACK_SPOOL_MAX_BYTES": "5 MiB",
            "CALLBACK_LOG_LEVEL": "debug",
            "CALLBACK_PORT": "",
        },
    )
    settings = Settings.load()
    assert settings.callback_db_timeout == 0.5
    assert settings.callback_unmatched_ttl == 7200
    assert settings.callback_spool_max_bytes == 5 * 1024**2
    assert settings.callback_log_level == "DEBUG"
    assert settings.callback_port == 8000


def test_the_environment_comes_before_docker_secrets_and_these_before_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (tmp_path / ".env").write_text("CALLBACK_API_KEY=1\nCALLBACK_PORT=1\nCALLBACK_HOST=1\n")
    for name in ("callback_port", "CALLBACK_HOST"):
        (secrets / name).write_text("2\n")
    monkeypatch.setattr("sam.callback.setting_sources.SECRETS_DIRECTORY", secrets)
    set_all(monkeypatch, {**GOOD, "CALLBACK_API_KEY": "", "callback_host": "3"})

    settings = Settings.load()

    assert settings.callback_api_key.get_secret_value() == "1"
    assert (settings.callback_port, settings.callback_host) == (2, "3")


def test_no_secret_shows_in_the_settings_own_text(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {
            "CALLBACK_API_KEY": "hush-1",
            "CALLBACK_API_KEY_PREVIOUS": "hush-2",
            "SQL_SAM_CONNECTION_STRING": "PWD=hush-3",
            "SQL_SAM_PASSWORD": "hush-4",
        },
    )
    settings = Settings.load()
    assert (
        "hush" not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"
    )


def test_the_example_file_shows_every_variable_with_its_default() -> None:
    example = Path(__file__).parents[2].joinpath(".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#?\s?([A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert shown.keys() == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if default := default_of(field):
            assert shown[name.upper()] == default
