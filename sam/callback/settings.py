"""Settings: every environment variable, with its type, unit, default and bounds.

A field is named after its variable; `setting_sources` has the sources of the values.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from sam.callback.certificates import require_certificate, server_context
from sam.callback.setting_sources import SECRETS_DIRECTORY, SourceError, read_variables
from sam.callback.setting_types import (
    ApiKey,
    Column,
    Driver,
    Encrypt,
    LogFormat,
    LogLevel,
    Seconds,
    Table,
)
from sam.callback.setting_warnings import is_quoted

_MISSING = "missing"  # pydantic's own name for this kind of error
_HOST_NAME = re.compile(r"[\w.-]+")


class SettingsError(Exception):
    """Unusable settings. The message names every bad variable and holds no secret."""


class _FromEnvironment(BaseModel):
    """Settings that are read from the environment, Docker secrets and a file ``.env``.

    Each description completes the sentence "it should be ..." in the message about a bad value.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    @classmethod
    def load(cls, **given: str) -> Self:
        """Read and check these settings, whatever the others are.

        Args:
            given: What was found out otherwise; it comes before the environment.

        Raises:
            SettingsError: If a variable is missing or wrong.
        """
        what_cannot = "The service cannot start" if cls is Settings else "Nothing was done"
        try:
            return cls.model_validate({**read_variables(), **given})
        except SourceError as error:
            raise SettingsError(f"{what_cannot}: {error}") from None
        except ValidationError as error:
            raise SettingsError(f"{what_cannot}: {_explain(error)}") from None


class SpoolSettings(_FromEnvironment):
    """Settings of the spool and of the shared inbox: all that the commands on them need."""

    callback_spool_path: Path = Field(
        Path("var/callback-spool.db"), description="the spool's file, on a local disk"
    )
    callback_spool_max_bytes: ByteSize = Field(
        ByteSize(2**30), ge=2**20, description="the spool's largest size, at least 1 MiB"
    )
    callback_inbox_connection_string: SecretStr | None = Field(
        None,
        description="an ODBC connection string of the database with the shared inbox; "
        "without it each instance has its spool alone",
    )
    callback_inbox_table: Table = Field(
        "sam_callback_inbox",
        description="the shared inbox's table: 'name', 'schema.name' or 'database.schema.name'",
    )
    callback_inbox_timeout: Seconds = Field(
        1.5,
        ge=0.1,
        le=60,
        description="how long the shared inbox may take before the spool is used, 0.1 s to 60 s",
    )

    @field_validator("callback_spool_path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()


class Settings(SpoolSettings):
    """Settings of the service. Durations are seconds, sizes are bytes."""

    callback_host: str = Field(
        "0.0.0.0",  # noqa: S104 - A360 calls from outside
        description="the addresses to listen on, of this machine or their names, with commas "
        "between: '0.0.0.0' is all of IPv4, '::' all of IPv6 alone, '0.0.0.0,::' both",
    )
    callback_port: int = Field(8000, ge=0, le=65535, description="the port to listen on, 0 for any")
    callback_api_key: ApiKey = Field(
        description="the secret that A360 sends in X-API-KEY: 1 to 512 visible ASCII characters"
    )
    callback_api_key_previous: ApiKey | None = Field(
        None, description="a second key that is accepted too, while keys are being changed"
    )

    sql_sam_connection_string: SecretStr | None = Field(
        None,
        description="a whole ODBC connection string, used as it is instead of SQL_SAM_SERVER, "
        "_DATABASE, _USER, _PASSWORD, _DRIVER, _ENCRYPT, _TRUST_SERVER_CERTIFICATE "
        "and _MULTI_SUBNET_FAILOVER",
    )
    sql_sam_server: str | None = Field(
        None, description="the SQL Server: a host, 'host,port' or 'host\\instance'"
    )
    sql_sam_database: str | None = Field(None, description="the database that holds SAM's table")
    sql_sam_user: str | None = Field(None, description="the database login")
    sql_sam_password: SecretStr | None = Field(None, description="the login's password")
    sql_sam_driver: Driver | None = Field(
        None,
        description="the ODBC driver's registered name, or the path of its library where the "
        "service cannot write",
    )
    sql_sam_encrypt: Encrypt = Field(
        "yes",
        description="yes, no, mandatory, optional or strict: whether the connection is encrypted",
    )
    sql_sam_trust_server_certificate: bool = Field(
        default=False,
        description="yes or no: whether any certificate of the server is trusted",
    )
    sql_sam_multi_subnet_failover: bool | None = Field(
        None,
        description="yes or no: whether the addresses of an availability group are tried at once",
    )
    sql_sam_pool_max: int = Field(
        4, ge=1, le=64, description="the most connections to the database, from 1 to 64"
    )
    sql_sam_login_timeout: Seconds = Field(
        5, ge=1, le=60, description="how long connecting may take, from 1 s to 60 s"
    )
    sql_sam_table: Table = Field(
        "robots", description="SAM's table: 'name', 'schema.name' or 'database.schema.name'"
    )
    sql_sam_deployment_column: Column = Field(
        "deploymentId", description="the column that holds the deployment's id"
    )
    sql_sam_status_column: Column = Field(
        "status", description="the column that receives the status"
    )
    sql_sam_payload_column: Column | None = Field(
        None, description="a column that receives the whole callback as JSON"
    )
    sql_sam_finished_column: Column | None = Field(
        None, description="a column that receives the UTC time at which the callback came"
    )

    callback_db_timeout: Seconds = Field(
        2, ge=0.1, le=60, description="how long a callback may wait for its COMMIT, 0.1 s to 60 s"
    )
    callback_unmatched_ttl: Seconds = Field(
        86400, ge=1, description="how long a callback waits for its row, such as '24 h'"
    )
    callback_max_body_bytes: ByteSize = Field(
        ByteSize(2**24), ge=1024, le=2**28, description="the largest body, 1 KiB to 256 MiB"
    )
    callback_max_bodies_bytes: ByteSize = Field(
        ByteSize(2**26),
        description="what all bodies in flight may take together, beyond 64 KiB of each: "
        "at least CALLBACK_MAX_BODY_BYTES",
    )
    callback_body_timeout: Seconds = Field(
        10, ge=0.1, le=600, description="how long a body may take to arrive, 0.1 s to 600 s"
    )
    callback_header_timeout: Seconds = Field(
        10, ge=0.1, le=600, description="how long the headers may take to arrive, 0.1 s to 600 s"
    )
    callback_keep_alive_timeout: Seconds = Field(
        75,
        ge=0.1,
        le=3600,
        description="how long a connection that has shown the key may be idle, 0.1 s to 3600 s",
    )
    callback_max_header_bytes: ByteSize = Field(
        ByteSize(2**14),
        ge=1024,
        le=2**20,
        description="the largest URL and headers together, 1 KiB to 1 MiB; "
        "the URL may take half of it",
    )
    callback_max_headers: int = Field(
        100, ge=10, le=10_000, description="the most headers of a request, 10 to 10000"
    )
    callback_max_connections: int = Field(
        1000, ge=1, le=100_000, description="the most open connections, 1 to 100000"
    )
    callback_drain_seconds: Seconds = Field(
        0, ge=0, le=600, description="how long /ready says 'draining' on SIGTERM, up to 600 s"
    )
    callback_ssl_certfile: Path | None = Field(
        None, description="the file of the TLS certificate chain; it goes with ..._SSL_KEYFILE"
    )
    callback_ssl_keyfile: Path | None = Field(
        None, description="the file of the TLS private key; it goes with ..._SSL_CERTFILE"
    )
    callback_forwarded_allow_ips: str = Field(
        "",
        description="the proxies whose X-Forwarded-For is trusted: addresses or networks, such as "
        "'10.0.0.7' or '10.0.0.0/24', with commas between",
    )
    callback_log_level: Annotated[LogLevel, BeforeValidator(str.upper)] = Field(
        LogLevel.INFO, description="DEBUG, INFO, WARNING, ERROR or CRITICAL"
    )
    callback_log_format: LogFormat = Field(LogFormat.JSON, description="json or console")
    callback_docs: bool = Field(
        default=True, description="yes or no: whether /docs and /openapi.json are served"
    )

    @field_validator("callback_host")
    @classmethod
    def _hosts(cls, value: str) -> str:
        hosts = [host.strip() for host in value.split(",")]
        for host in hosts:
            if not (_HOST_NAME.fullmatch(host) or _is_ipv6(host)):
                raise ValueError(f"{host!r} is neither an address nor a name")
        return ",".join(hosts)

    @field_validator("sql_sam_server", "sql_sam_database", "sql_sam_user", "sql_sam_password")
    @classmethod
    def _required_without_connection_string(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - str or SecretStr
        # A connection string that failed its own check is absent here: one complaint is enough.
        if value is None and info.data.get("sql_sam_connection_string", "") is None:
            raise PydanticCustomError(_MISSING, "it is missing")
        return value

    @field_validator("callback_max_bodies_bytes")
    @classmethod
    def _room_for_one_body(cls, value: ByteSize, info: ValidationInfo) -> ByteSize:
        if value < info.data.get("callback_max_body_bytes", 0):
            raise ValueError("it is less than CALLBACK_MAX_BODY_BYTES")
        return value

    @field_validator("callback_ssl_certfile")
    @classmethod
    def _certificate(cls, value: Path | None) -> Path | None:
        if value is not None:
            require_certificate(value)
        return value

    @field_validator("callback_ssl_keyfile")
    @classmethod
    def _pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("callback_ssl_certfile", value) is None):
            raise ValueError("of CALLBACK_SSL_CERTFILE and CALLBACK_SSL_KEYFILE only one is set")
        if value is not None and (certificate := info.data.get("callback_ssl_certfile")):
            server_context(certificate, value)
        return value

    @field_validator("callback_forwarded_allow_ips")
    @classmethod
    def _addresses(cls, value: str) -> str:
        # Uvicorn would compare what is no address to addresses, and never find it.
        items = [item.strip() for item in value.split(",") if item.strip()]
        for item in items:
            ipaddress.ip_network(item)
        return ",".join(items)


class ClientSettings(_FromEnvironment):
    """Settings of a client, on a machine that need not have the service's other ones."""

    callback_host: str | None = None
    callback_port: int = Field(Settings.model_fields["callback_port"].default, ge=0, le=65535)
    callback_api_key: ApiKey | None = None
    callback_ssl_certfile: Path | None = None


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0])
        what = (
            "is missing"
            if problem["type"] == _MISSING
            else f"is wrong: {problem['msg'].removeprefix('Value error, ')}"
        )
        lines.append(f"  {field.upper()} {what}.")
        if is_quoted(problem["input"]):
            lines.append("      The quotation marks are part of the value: take them away.")
        lines.append(f"      It should be {Settings.model_fields[field].description}.")
    number = "1 setting is" if error.error_count() == 1 else f"{error.error_count()} settings are"
    where = f"the environment, in a file .env, or as files in {SECRETS_DIRECTORY}"
    return "\n".join(
        [
            f"{number} missing or wrong.",
            *lines,
            f"Set variables in {where}; .env.example shows every one.",
        ]
    )


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
