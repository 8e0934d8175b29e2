"""JSON in UTF-8, UTF-16, UTF-32 or the charset that the content type names is understood."""

import asyncio
import json
from collections.abc import Callable
from typing import Final

import pytest

from sam.callback.service.callback_body import AT_ONCE_BYTES, BodyDecoder, decode
from tests.support.conditions import eventually
from tests.support.databases import SqliteDatabase
from tests.support.service import Service

TEXT: Final = '{"deploymentId": "d-1", "status": "FALLÓ", "botOutput": {"m": "Conciliación"}}'


@pytest.mark.parametrize(
    ("codec", "bom", "content_type"),
    [
        ("utf-8", b"", "application/json"),
        ("utf-8", b"\xef\xbb\xbf", "application/json"),
        ("utf-8", b"\xef\xbb\xbf", "application/json; charset=ISO-8859-1"),
        ("utf-8", b"", "application/json; charset=x-unknown"),
        ("utf-8", b"", "application/json; charset=punycode"),
        ("utf-8", b"", "application/json; charset=utf-16"),
        ("utf-16-le", b"\xff\xfe", "application/json"),
        ("utf-16-be", b"\xfe\xff", "application/json; charset=utf-8"),
        ("utf-16-be", b"", "application/json; charset=utf-16"),
        ("utf-32-le", b"\xff\xfe\x00\x00", "application/json"),
        ("utf-32-be", b"\x00\x00\xfe\xff", "application/json"),
        ("latin-1", b"", "application/json; charset=ISO-8859-1"),
        ("latin-1", b"", 'application/json; Charset="iso-8859-1"'),
        ("latin-1", b"", "text/plain;charset = latin1"),
        ("cp1252", b"", "application/json; charset=windows-1252; q=1"),
        ("cp850", b"", "application/json; charset=IBM850"),
    ],
)
def test_the_status_is_read_in_the_bodys_encoding(
    codec: str, bom: bytes, content_type: str, service: Service, sqlite_database: SqliteDatabase
) -> None:
    response = service.post(bom + TEXT.encode(codec), **{"Content-Type": content_type})
    assert response.json()["outcome"] == "updated"
    assert sqlite_database.statuses() == {"d-1": "FALLÓ"}


def test_undecodable_bytes_are_refused_unless_ignored(service: Service) -> None:
    in_windows = {"Content-Type": "application/json; charset=windows-1252"}
    ignored = TEXT.encode("cp1252").replace(b"Concil", b"\x81\x8d")
    assert service.post(ignored, **in_windows).status_code == 200
    status = TEXT.encode("cp1252").replace(b"FALL", b"\x81")
    assert service.post(status, **in_windows).status_code == 422
    cut = TEXT.encode("utf-16")
    assert service.post(cut[:-1]).status_code == 422
    assert service.post(cut + b"\xff").status_code == 422


@pytest.mark.parametrize("status", ["FALLÓ", "\ufffd"])
def test_the_payload_column_gets_text(
    status: str, start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        SQL_SAM_PAYLOAD_COLUMN="payload",
    )
    text = TEXT.replace("FALLÓ", status)
    flawed = text.encode().replace("ó".encode(), b"\xf3")
    for body, written in [
        (text.encode("utf-16"), text),
        (text.encode("utf-8-sig"), text),
        (flawed, text.replace("ó", "\ufffd")),
    ]:
        assert service.post(body).json()["outcome"] == "updated"
        assert sqlite_database.execute("SELECT payload FROM robots") == [(written,)]


def test_the_payload_column_gets_text_from_the_spool_too(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        SQL_SAM_PAYLOAD_COLUMN="payload",
    )
    body = TEXT.replace("d-1", "d-2").encode().replace("ó".encode(), b"\xf3")
    assert service.post(body).json()["outcome"] == "unmatched"
    sqlite_database.add_robots(["d-2"])
    eventually(lambda: sqlite_database.statuses()["d-2"] == "FALLÓ")
    [(payload,)] = sqlite_database.execute("SELECT payload FROM robots WHERE deploymentId = 'd-2'")
    assert json.loads(payload)["botOutput"] == {"m": "Conciliaci\ufffdn"}


async def test_the_event_loop_goes_on_while_a_large_body_is_decoded() -> None:
    depth = 300_000
    body = b'{"o":%b1%b,"deploymentId":"d-1","status":"S"}' % (b'{"":' * depth, b"}" * depth)
    assert len(body) > AT_ONCE_BYTES
    decoder = BodyDecoder()
    decoding = asyncio.create_task(decoder.run(decode, body, {"headers": []}))
    turns = 0
    while not decoding.done():
        await asyncio.sleep(0)
        turns += 1
    decoder.close()
    assert (await decoding).payload.status == "S"
    assert turns > 10
