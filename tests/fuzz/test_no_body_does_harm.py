"""Any body is recorded as it says, or kept as invalid: nothing in between."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam.callback.service.request_body import BODY_START_BYTES
from tests.fuzz import amounts
from tests.support.databases import SqliteDatabase
from tests.support.load import spooled
from tests.support.service import Service

pytestmark = pytest.mark.fuzz

MIB: Final = 1 << 20
ROBOTS: Final = [f"d-{number}" for number in range(20)] + ["ñandú-🤖", "e\u0301", "\u202ed", "İ"]

ids = (
    st.sampled_from(ROBOTS)
    | st.sampled_from([f" {robot}\t\u2003" for robot in ROBOTS])
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=140)
)
statuses = (
    st.sampled_from(["RUN_COMPLETED", "RUN_FAILED", "UNKNOWN"])
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=64)
    | st.text(st.characters(exclude_categories=[]), max_size=70)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**4000), 1e308, float("nan"), float("inf"), -0.0])
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
)
values = st.recursive(
    scalars,
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def members(draw: st.DrawFn) -> str:
    """An object whose members come in any order, any number of times."""
    pairs: list[tuple[str, Any]] = [("deploymentId", draw(ids)), ("status", draw(statuses))]
    name = st.sampled_from(["deploymentId", "status", "DeploymentId", "botOutput", ""])
    value = ids | statuses | values
    pairs += draw(st.lists(st.tuples(name | st.text(max_size=5), value), max_size=3))
    if draw(st.integers(0, 9)) == 0:
        del pairs[draw(st.integers(0, 1))]
    pairs = draw(st.permutations(pairs))
    as_ascii = draw(st.booleans())
    space = draw(st.sampled_from(["", "", " ", "\n\t", "\r\n"] * 3 + ["\u00a0", "\x00", "/**/"]))
    return (
        "{"
        + ",".join(
            f"{space}{json.dumps(name)}:{json.dumps(value, ensure_ascii=as_ascii)}"
            for name, value in pairs
        )
        + "}"
    )


@st.composite
def deep(draw: st.DrawFn) -> str:
    """A callback that holds something deep."""
    depth = draw(st.sampled_from([1, 100, 190, 200, 201, 1000, 100_000]))
    opening, closing_ = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
    end = draw(st.sampled_from([closing_ * depth, ""]))
    output = opening * depth + "1" + end
    return f'{{"deploymentId":"d-1","botOutput":{output},"status":"DEEP{depth}"}}'


@st.composite
def large(draw: st.DrawFn) -> str:
    """A callback of about the largest size, or with a number that has as many digits."""
    filling = draw(st.sampled_from(["x", "9", "\\u0000", "ñ", "🤖", "\\ud800", "\\\\"]))
    size = draw(st.sampled_from([4301, MIB // 2, MIB - 100, MIB - 60, MIB, MIB + 1]))
    text = filling * (size // len(filling.encode()))
    where = draw(st.sampled_from(["botOutput", "deploymentId", "status", text[:1000]]))
    quote = "" if filling == "9" else '"'
    return f'{{"deploymentId":"d-2","status":"LARGE",{json.dumps(where)}:{quote}{text}{quote}}}'


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bodies: those texts in some encoding, perhaps cut short or damaged."""
    text = draw(st.integers(0, 19))
    if text == 0:
        content = draw(large())
    elif text in {1, 2}:
        content = draw(deep())
    elif text in {3, 4}:
        content = draw(values.map(json.dumps))
    else:
        content = draw(members())
    encoding = draw(
        st.sampled_from(["utf-8"] * 40 + ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
    )
    data = content.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    match draw(st.integers(0, 30)):
        case 0:
            return data[: draw(st.integers(0, len(data)))]
        case 1:
            at = draw(st.integers(0, len(data)))
            return data[:at] + draw(st.binary(max_size=4)) + data[at + 1 :]
        case 2:
            return data + draw(st.sampled_from([b"\x00", b"{}", b" ", b"\xff", b"\n\n", b","]))
        case _:
            return data


def _as_python_reads(content: bytes) -> dict[str, Any]:
    """The object in a body, by another parser than the service's.

    Raises:
        ValueError: If there is none.
    """
    text = content.decode(json.detect_encoding(content), "replace")
    try:
        value = json.loads(text, parse_int=str, parse_float=str)
    except RecursionError:
        status = re.search('"status":"(DEEP[0-9]+)"', text)
        assert status is not None
        return {"deploymentId": "d-1", "status": status[1]}
    if not isinstance(value, dict):
        raise TypeError(content)
    return value


@pytest.mark.parametrize("number", range(amounts.ROUNDS_OF_BODIES))
def test_a_body_is_recorded_as_it_says_or_kept_as_invalid(
    number: int,
    target: Service,
    sqlite_database: SqliteDatabase,
    count: Callable[[Counter[str]], None],
) -> None:
    sqlite_database.execute("DELETE FROM robots")
    sqlite_database.add_robots(ROBOTS)
    acknowledged: dict[str, str] = {}
    kept: Counter[bytes] = Counter()
    counts: Counter[str] = Counter()
    client = target.client()

    @hypothesis.seed(f"{amounts.SEED}-{number}")
    @settings(
        max_examples=amounts.ROUND_OF_BODIES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=bodies(), in_chunks=st.booleans())
    def send(*, content: bytes, in_chunks: bool) -> None:
        pieces = [content[at : at + 50_000] for at in range(0, len(content), 50_000)]
        try:
            response = client.post("/callback", content=iter(pieces) if in_chunks else content)
        except httpx.TransportError:
            # So much more than it reads of a body that it has refused: docs/security.md.
            assert len(content) > MIB
            counts["closed without an answer"] += 1
            kept[content[:BODY_START_BYTES]] += 1
            return
        counts[str(response.status_code)] += 1
        answer = response.json()
        match response.status_code:
            case 200:
                said = _as_python_reads(content)
                deployment_id, status = said["deploymentId"].strip(), said["status"].strip()
                acknowledged[answer["deploymentId"]] = status
                assert answer["deploymentId"] == deployment_id
                # Queued: behind an older one that waits for its row, or the database was slow.
                known = "updated" if deployment_id in ROBOTS else "unmatched"
                assert answer["outcome"] in {known, "queued"}
            case 413:
                assert len(content) > MIB
                kept[content[:BODY_START_BYTES]] += 1
            case status:
                assert status == 422
                assert len(content) <= MIB
                assert all(mistake["loc"][0] == "body" for mistake in answer["detail"])
                kept[content] += 1

    with client:
        send()

    assert target.stop() == 0
    spool = target.directory / "var" / "callback-spool.db"
    recorded = {
        name: status for name, status in sqlite_database.statuses().items() if status != "RUNNING"
    } | {name: status for name, (_, status) in spooled(spool).items()}
    assert recorded == acknowledged
    with closing(sqlite3.connect(spool)) as connection:
        found = connection.execute("SELECT payload FROM entries WHERE kind = 'invalid'").fetchall()
    assert Counter(payload for (payload,) in found) == kept
    count(counts)
    assert {"200", "413", "422"} <= counts.keys()
