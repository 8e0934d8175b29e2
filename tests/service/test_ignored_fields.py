"""Ignored fields: nothing in them keeps the deployment from its status."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import json_texts
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire, request
from tests.support.service import KEY, Service

FLAWED: Final = {
    "a high surrogate alone": rb'"cut \ud83d"',
    "a low surrogate alone": rb'"\udc00"',
    "a surrogate as a name": rb'{"\ud83d": 1}',
    "surrogates in the wrong order": rb'"\ude00\ud83d"',
    "a number of 5,000 digits": b"9" * 5_000,
    "a number of a million digits": b"9" * 1_000_000,
    "a number with an exponent of 5,000": b"1e" + b"9" * 5_000,
    "no number": b"[NaN, -Infinity]",
    "arrays, 3,000 deep": b"[" * 3_000 + b"]" * 3_000,
    "objects, 3,000 deep": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "arrays, 300,000 deep": b"[" * 300_000 + b"]" * 300_000,
    "ISO-8859-1 where nothing says so": '"Conciliación"'.encode("latin-1"),
    "UTF-8 that is cut": '"año"'.encode()[:-2] + b'"',
    "no character at all": b'"\xff\xfe\x80"',
    "a surrogate in UTF-8": b'"\xed\xa0\xbd"',
    "names of the other fields within": b'{"deploymentId": "d-2", "status": ["\\ud83d"]}',
    "a megabyte": b'"%b"' % (b"x" * 2**20),
    "twelve megabytes, and a flaw": b'"%b\\ud83d"' % (b"\\n" * 6_000_000),
}


@pytest.mark.parametrize("is_last", [True, False])
def test_a_flaw_in_an_ignored_field_costs_nothing(
    service: Service, sqlite_database: SqliteDatabase, *, is_last: bool
) -> None:
    for number, (flaw, value) in enumerate(FLAWED.items()):
        known = b'"deploymentId": "d-1", "status": "RUN_FAILED %d"' % number
        parts = [known, b'"botOutput": ' + value]
        response = service.post(b"{%b}" % b", ".join(parts if is_last else parts[::-1]))

        assert response.status_code == 200, flaw
        assert (response.json()["outcome"], response.json()["deploymentId"]) == ("updated", "d-1")
        assert sqlite_database.statuses() == {"d-1": f"RUN_FAILED {number}"}, flaw


def test_a_flawed_name_of_an_ignored_field_costs_nothing(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    for number, name in enumerate([rb"\ud83d", b"a\xf1o", b"\\n" * 1_000]):
        status = f"S{number}"
        content = b'{"%b": 1, "deploymentId": "d-1", "status": "%b"}' % (name, status.encode())
        assert service.post(content).json()["outcome"] == "updated"
        assert sqlite_database.statuses() == {"d-1": status}


MEMBERS: Final = [
    (b'"status": "A", "status": "RUN_FAILED", "deploymentId": "d-1"', None),
    (b'"status": 1, "status": "RUN_FAILED", "deploymentId": "d-1"', None),
    (b'"status": " RUN_FAILED\\n", "deploymentId": "\\u0064-1"', None),
    (b'"\\u0073tatus": "RUN_FAILED", "deploymentId": "\\td-1"', None),
    (b'"status": "RUN_FAILED", "status": 1, "deploymentId": "d-1"', "status: string_type"),
    (b'"status": "RUN_FAILED"', "deploymentId: missing"),
    (b'"Status": "RUN_FAILED", "deploymentId": "d-1"', "status: missing"),
    (b'"status": {"a": []}, "deploymentId": "d-1"', "status: string_type"),
    (b'"status": "", "deploymentId": "d-1"', "status: string_too_short"),
    (b'"status": "%b", "deploymentId": "d-1"' % (b"s" * 65), "status: string_too_long"),
    (b'"status": "A\\u0007", "deploymentId": "d-1"', "status: string_pattern_mismatch"),
]


@pytest.mark.parametrize(
    "flaw", [b'"ok"', rb'"cut \ud83d"'], ids=["the common body", "a flawed one"]
)
def test_a_flawed_body_is_held_to_what_the_common_one_is(
    flaw: bytes, service: Service, sqlite_database: SqliteDatabase
) -> None:
    for members, mistake in MEMBERS:
        sqlite_database.execute("UPDATE robots SET status = 'RUNNING'")
        response = service.post(b'{"botOutput": %b, %b}' % (flaw, members))

        if mistake is None:
            assert response.json()["outcome"] == "updated", members
            assert sqlite_database.statuses() == {"d-1": "RUN_FAILED"}, members
        else:
            assert response.status_code == 422, members
            said = [f"{each['loc'][-1]}: {each['type']}" for each in response.json()["detail"]]
            assert said == [mistake]


CHARSETS: Final = [
    # Python's codec, the BOM that comes before it, what the content type may say.
    ("utf-8", b"", ["", "", "", "utf-8", '"UTF-8"', "x-unknown"]),
    ("utf-8-sig", b"", ["", "utf-8", "ISO-8859-1"]),
    ("utf-16", b"", ["", "utf-16"]),
    ("utf-16-be", b"\xfe\xff", ["", "utf-16be"]),
    ("utf-32", b"", ["", "utf-32"]),
    ("utf-32-be", b"\x00\x00\xfe\xff", [""]),
    ("utf-16-le", b"", ["utf-16le"]),
    ("utf-32-be", b"", ["utf-32"]),
    ("iso-8859-1", b"", ["iso-8859-1", '"ISO-8859-1"', "latin1"]),
    ("windows-1252", b"", ["windows-1252", '"Windows-1252"', "cp1252"]),
    ("iso-8859-15", b"", ["ISO-8859-15"]),
    ("cp932", b"", ["cp932", "MS932"]),  # not Shift_JIS: a yen sign there is a backslash
    ("gb18030", b"", ["GB18030"]),
]
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=64).filter(
    str.strip
)
blanks = st.text(" \t", max_size=3).map(str.encode)


@st.composite
def callbacks(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A status, the headers and the body of a callback that has it."""
    codec, bom, labels = draw(st.sampled_from(CHARSETS))
    status = draw(names).encode(codec, "ignore").decode(codec).strip() or "RUN_COMPLETED"
    members = [
        ('"deploymentId"', json.dumps("d-1")),
        ('"status"', json.dumps(status, ensure_ascii=draw(st.booleans()))),
    ]
    name = json_texts.strings().filter(
        lambda text: json.loads(text) not in {"deploymentId", "status"}
    )
    members += draw(st.lists(st.tuples(name, json_texts.values), max_size=4))
    text = ", ".join(f"{name}: {value}" for name, value in draw(st.permutations(members)))
    errors = "surrogatepass" if codec.startswith("utf") else "replace"
    body = bom + f"{{{text}}}".encode(codec, errors)
    label = draw(st.sampled_from(labels))
    content_type = f"application/json; charset={label}" if label else "application/json"
    headers = b"X-API-KEY:%b%b%b\r\nContent-Type:%b%b%b\r\n" % (
        *(draw(blanks), KEY.encode(), draw(blanks)),
        *(draw(blanks), content_type.encode(), draw(blanks)),
    )
    return status, headers, body


@pytest.mark.timeout(0)
def test_any_callback_is_understood(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
    )
    with Wire(service) as wire:

        @settings(suppress_health_check=list(HealthCheck))
        @given(callback=callbacks())
        def send(callback: tuple[str, bytes, bytes]) -> None:
            status, headers, body = callback
            wire.send(request(headers=headers, content=body))
            code, _, content = wire.answer()
            answer: dict[str, Any] = json.loads(content)
            assert (code, answer.get("outcome")) == (200, "updated"), answer
            assert sqlite_database.statuses() == {"d-1": status}

        send()
