"""TLS 1.2 and 1.3, nothing older; and a sender's address is taken from a listed proxy alone."""

import os
import socket
import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sam.callback.certificates import CertificateError, server_context
from sam.callback.settings import Settings, SettingsError
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service, run_to_its_end

AUTHORITY = trustme.CA()
GOOD = {
    "CALLBACK_API_KEY": KEY,
    "SQL_SAM_CONNECTION_STRING": "DRIVER=SQLite3;Database=x.db;",
}


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    return _write(tmp_path, AUTHORITY.issue_cert("127.0.0.1"))


def _write(directory: Path, issued: trustme.LeafCert, name: str = "own") -> dict[str, str]:
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return {"CALLBACK_SSL_CERTFILE": str(certificate), "CALLBACK_SSL_KEYFILE": str(key)}


@pytest.fixture
def start_with(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> Callable[[dict[str, str]], Service]:
    def start(variables: dict[str, str]) -> Service:
        return start_service(
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, **variables
        )

    return start


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def test_a_callback_comes_in_over_tls(
    start_with: Callable[..., Service], pair: dict[str, str]
) -> None:
    service = start_with(pair)
    answer = httpx.post(
        f"https://127.0.0.1:{service.port}/callback",
        content=body(),
        headers={"X-API-KEY": KEY},
        verify=_trusting(),
    )
    assert answer.json()["outcome"] == "updated"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{service.port}/health")


@pytest.mark.parametrize(
    ("version", "is_spoken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_nothing_older_than_tls_1_2_is_spoken(
    version: ssl.TLSVersion,
    is_spoken: bool,  # noqa: FBT001 - a parameter of the test
    start_with: Callable[..., Service],
    pair: dict[str, str],
) -> None:
    service = start_with(pair)
    context = _trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # without which OpenSSL 3 would not try the old ones
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS) as connection:
        if is_spoken:
            with context.wrap_socket(connection, server_hostname="127.0.0.1") as secure:
                assert secure.version() == version.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_hostname="127.0.0.1")


def test_it_is_the_service_that_refuses_old_versions_whatever_openssl_would_take(
    pair: dict[str, str],
) -> None:
    server = server_context(*(Path(path) for path in pair.values()))
    client = _trusting()
    client.check_hostname = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    for side in (server, client):
        side.set_ciphers("DEFAULT:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = client.wrap_bio(to_client, to_server)
    with pytest.raises(ssl.SSLWantReadError):
        calling.do_handshake()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        server.wrap_bio(to_server, to_client, server_side=True).do_handshake()
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        calling.do_handshake()


def _encrypt(pair: dict[str, str], directory: Path) -> str:
    encrypted = directory / "encrypted.key"
    key = load_pem_private_key(Path(pair["CALLBACK_SSL_KEYFILE"]).read_bytes(), password=None)
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush-hush"))
    )
    return str(encrypted)


def _refusal(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> str:
    with monkeypatch.context() as environment:
        for name, value in {**GOOD, **variables}.items():
            environment.setenv(name, value)
        with pytest.raises(SettingsError) as caught:
            Settings.load()
    return str(caught.value)


def test_a_pair_that_is_none_is_refused_with_the_reason(
    pair: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = _write(tmp_path, AUTHORITY.issue_cert("127.0.0.1"), "another")
    of_rsa = _write(
        tmp_path, AUTHORITY.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA), "rsa"
    )
    (tmp_path / "junk").write_text("junk")
    junk, gone = str(tmp_path / "junk"), str(tmp_path / "gone")
    for change, says in [
        ({"CALLBACK_SSL_CERTFILE": gone}, "CERTFILE is wrong: it cannot be read"),
        ({"CALLBACK_SSL_KEYFILE": gone}, "KEYFILE is wrong: it cannot be read"),
        ({"CALLBACK_SSL_CERTFILE": str(tmp_path)}, "CERTFILE is wrong: it cannot be read"),
        ({"CALLBACK_SSL_CERTFILE": junk}, "CERTFILE is wrong: it holds no certificate in PEM"),
        ({"CALLBACK_SSL_KEYFILE": junk}, "KEYFILE is wrong: it holds no private key in PEM"),
        ({"CALLBACK_SSL_KEYFILE": another["CALLBACK_SSL_KEYFILE"]}, "it is not the key of"),
        ({"CALLBACK_SSL_KEYFILE": of_rsa["CALLBACK_SSL_KEYFILE"]}, "it is not the key of"),
        ({"CALLBACK_SSL_KEYFILE": _encrypt(pair, tmp_path)}, "the key is encrypted"),
        ({"CALLBACK_SSL_KEYFILE": ""}, "only one is set"),
    ]:
        message = _refusal(monkeypatch, {**pair, **change})
        assert says in message, change
        assert "1 setting is missing or wrong" in message


def test_a_pair_that_is_none_ends_the_start(pair: dict[str, str], tmp_path: Path) -> None:
    encrypted = {"CALLBACK_SSL_KEYFILE": _encrypt(pair, tmp_path)}
    run = run_to_its_end(tmp_path, {**GOOD, **pair, **encrypted})
    assert (run.returncode, run.stdout) == (2, "")
    assert "CALLBACK_SSL_KEYFILE is wrong: the key is encrypted" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.posix
def test_a_key_of_another_certificate_is_reported(pair: dict[str, str]) -> None:
    certificate, key = (Path(path) for path in pair.values())
    key.chmod(0)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)  # root may read all
        with pytest.raises(CertificateError, match=r"it cannot be read .*denied"):
            server_context(certificate, key)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("days", "event", "level"),
    [(-1, "certificate_invalid", "critical"), (5, "certificate_expires_soon", "warning")],
)
def test_a_certificate_that_senders_will_refuse_is_reported_at_the_start(
    days: int, event: str, level: str, start_with: Callable[..., Service], tmp_path: Path
) -> None:
    expires = datetime.now(UTC) + timedelta(days=days, hours=1)
    issued = AUTHORITY.issue_cert(
        "127.0.0.1", not_before=expires - timedelta(days=90), not_after=expires
    )
    line = start_with(_write(tmp_path, issued)).wait_for_event(event)
    assert line["level"] == level
    assert line["path"].endswith("own.crt")
    if days > 0:
        assert line["days_left"] == days


def test_a_good_certificate_gives_no_warning(
    start_with: Callable[..., Service], pair: dict[str, str]
) -> None:
    service = start_with(pair)
    assert not [line for line in service.lines if "certificate" in line["event"]]


def _client_in_log(service: Service, forwarded: str) -> Any:  # noqa: ANN401 - JSON
    answer = httpx.post(service.url, headers={"X-Forwarded-For": forwarded})
    request_id = answer.headers["X-Request-ID"]
    return service.wait_for_line(lambda line: line.get("request_id") == request_id)["client"]


def test_by_default_no_proxy_is_trusted(service: Service) -> None:
    assert _client_in_log(service, "203.0.113.7") == "127.0.0.1"


@pytest.mark.parametrize("allowed", ["10.0.0.7, 127.0.0.1", "127.0.0.0/8"])
def test_a_listed_proxy_is_trusted(allowed: str, start_with: Callable[..., Service]) -> None:
    service = start_with({"CALLBACK_FORWARDED_ALLOW_IPS": allowed})
    assert _client_in_log(service, "203.0.113.7") == "203.0.113.7"
    # A sender may have put one there itself; what the proxy appended is what it saw.
    assert _client_in_log(service, "6.6.6.6, 203.0.113.7") == "203.0.113.7"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("unknown", None),
        ("_hidden", None),
        ("203.0.113.7.example", None),
    ],
)
def test_an_invalid_forwarded_address_is_no_client(
    forwarded: str, client: str | None, start_with: Callable[..., Service]
) -> None:
    service = start_with({"CALLBACK_FORWARDED_ALLOW_IPS": "127.0.0.1"})
    assert _client_in_log(service, forwarded) == client


def test_no_other_sender_is_trusted(start_with: Callable[..., Service]) -> None:
    service = start_with({"CALLBACK_FORWARDED_ALLOW_IPS": "10.0.0.7,192.168.0.0/16"})
    assert _client_in_log(service, "203.0.113.7") == "127.0.0.1"


@pytest.mark.parametrize("value", ["*", "proxy.example", "10.0.0.5/8", "127.0.0.1,localhost"])
def test_an_invalid_address_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = _refusal(monkeypatch, {"CALLBACK_FORWARDED_ALLOW_IPS": value})
    assert "CALLBACK_FORWARDED_ALLOW_IPS is wrong: " in message
