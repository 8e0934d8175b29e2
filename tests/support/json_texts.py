"""JSON texts for Hypothesis, valid ones that hardly any parser takes among them."""

import json

from hypothesis import strategies as st

_scalars = (
    st.sampled_from(["null", "true", "false", "NaN", "-Infinity", "1e400", "-0.0E-12", "{ }", "[]"])
    | st.integers().map(str)
    | st.floats().map(json.dumps)
    | st.integers(1, 6_000).map(lambda digits: "9" * digits)
    | st.integers(1, 400).map(lambda digits: "-1." + "7" * digits + "e" + "9" * digits)
)


@st.composite
def strings(draw: st.DrawFn) -> str:
    """A string, its characters escaped or as they are; surrogates need not be in pairs."""
    text = draw(
        st.text(st.characters(exclude_categories=[]))
        | st.sampled_from(["cut \ud83d", "\udc00", "\n\t" * 30, "C:\\", "\ufffd", "\x7f"])
    )
    return json.dumps(text, ensure_ascii=draw(st.booleans()))


@st.composite
def _containers(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    blank = draw(st.sampled_from(["", "", " ", "\r\n", "\t"]))
    inside = draw(st.lists(values, max_size=4))
    if sum(map(len, inside)) < 200:
        inside *= draw(st.sampled_from([1, 1, 1, 30]))
    if draw(st.booleans()):
        return "[" + f"{blank},{blank}".join(inside) + blank + "]"
    members = (f"{draw(strings())}{blank}:{value}" for value in inside)
    return "{" + f"{blank},{blank}".join(members) + blank + "}"


@st.composite
def _deep(draw: st.DrawFn) -> str:
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
    depth = draw(st.sampled_from([1, 199, 200, 3_000]))
    return opening * depth + draw(_scalars | strings()) + closing * depth


values: st.SearchStrategy[str] = (
    st.recursive(_scalars | strings(), _containers, max_leaves=8) | _deep()
)
"""Any value."""
