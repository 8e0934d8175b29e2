"""JSON member reader: it takes valid JSON, refuses the rest, and keeps no memory."""

import json
import sys
import tracemalloc
from typing import Final

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from sam.callback.service.json_members import MemberReader, NotJsonError
from tests.support import json_texts

MIB: Final = 2**20

_READER = MemberReader(["deploymentId", "status"])
_NAMES = st.sampled_from(['"deploymentId"', '"status"', '"\\u0073tatus"', '"Status"', '""'])


@st.composite
def _objects(draw: st.DrawFn) -> bytes:
    """Objects, some of them damaged."""
    blank = draw(st.sampled_from(["", "", " ", "\n\t"]))
    members = draw(
        st.lists(st.tuples(_NAMES | json_texts.strings(), json_texts.values), max_size=6)
    )
    if sum(len(value) for _, value in members) < 200:
        members *= draw(st.sampled_from([1, 40]))
    text = f"{blank},{blank}".join(f"{name}{blank}:{blank}{value}" for name, value in members)
    body = f"{blank}{{{blank}{text}{blank}}}{blank}".encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(body)))
    match draw(st.integers(0, 5)):
        case 0:
            return body[:at]
        case 1:
            other = draw(st.sampled_from(list(b' ,:[]{}"\\019.eE-tfn\n\0')))
            return body[:at] + bytes([other]) + body[at:]
        case 2:
            return body[:at] + body[at + 1 :]
        case _:
            return body


def _as_python_reads(body: bytes) -> dict[str, str | None] | None:
    """The members by another parser, which recurses; None if there is no object."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        value = json.loads(
            body.decode("utf-8", "surrogateescape"),
            parse_int=lambda _digits: None,
            parse_float=lambda _digits: None,
        )
    except RecursionError:  # from 3.12 on the limit does not hold for C
        reject()
    except ValueError:
        return None
    finally:
        sys.setrecursionlimit(before)
    if not isinstance(value, dict):
        return None
    return {
        name: value[name] if isinstance(value[name], str) else None
        for name in value.keys() & {"deploymentId", "status"}
    }


@given(body=_objects())
def test_it_agrees_with_another_parser(body: bytes) -> None:
    try:
        found = dict(_READER.read(body))
    except NotJsonError:
        assert _as_python_reads(body) is None
    else:
        assert _as_python_reads(body) == found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'"deploymentId"',
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":1,}',
        b'{"a":[1,]}',
        b'{"a":{"b":1,}}',
        b'{"a":[1}',
        b'{"a":[1]]}',
        b'{"a":{"b":[1}]}',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":"\\u12"}',
        b'{"a":nul}',
        b'{"a":1 2}',
        b'{"a" 1}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a":1}{}',
        b'{"a":1}\0',
        b'{"a":1/**/}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"' + b"\\n" * 1000,
        b'{"' + b"\\n" * 1000 + b'" 1}',
        b'{"a":' + b"[" * 1000 + b"}" * 1000 + b"}",
    ],
    ids=lambda body: str(body[:20]),
)
def test_anything_but_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(NotJsonError):
        list(_READER.read(body))


def test_members_of_a_truncated_text_are_found() -> None:
    whole = (
        b'{"status":"S","o":{"status":"no"},"deploymentId":"d-1","deploymentId":"d-2","status":"T"}'
    )
    found: dict[str, str | None] = {}
    with pytest.raises(NotJsonError, match="ends too early"):
        found.update(_READER.read(whole[:-3]))
    assert found == {"status": "S", "deploymentId": "d-2"}


_MANY: Final = 50_000
_LARGE = {
    "a string": b'"%b"' % (b"x" * MIB),
    "escapes": b'"%b"' % (b"\\n" * _MANY),
    "surrogates that are no pair": b'"%b"' % (b"\\ud83d" * _MANY),
    "bytes that are no UTF-8": b'"%b"' % (b"\xff" * MIB),
    "a number": b"9" * MIB,
    "numbers": b"[%b1]" % (b"1," * _MANY),
    "arrays": b"[%b1]" % (b"[1]," * _MANY),
    "objects": b"[%b1]" % (b'{"a":{"a":{"a":1}}},' * (_MANY // 4)),
    "members": b"{%b}" % b",".join([b'"a\\n":1'] * _MANY),
    "arrays in arrays": b"[" * _MANY + b"1" + b"]" * _MANY,
    "objects in objects": b'{"":' * _MANY + b"1" + b"}" * _MANY,
}


@pytest.mark.parametrize("value", _LARGE.values(), ids=_LARGE)
def test_other_members_take_no_memory(value: bytes) -> None:
    body = b'{"botOutput":%b,"deploymentId":"d-1","status":"S"}' % value
    tracemalloc.start()
    try:
        assert dict(_READER.read(body)) == {"deploymentId": "d-1", "status": "S"}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB / 4
