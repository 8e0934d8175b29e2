"""Subjects of a measurement."""

from dataclasses import dataclass
from enum import StrEnum


class Subject(StrEnum):
    """A way to receive callbacks; the letters are those of the tables."""

    EMPTY = "a"
    AIOODBC = "b"
    BLOCKING = "c"
    SERVICE = "d"
    BARE = "e"


@dataclass(frozen=True, slots=True)
class Description:
    """A subject: its start, and its description for a reader.

    Attributes:
        module: What ``python -m`` runs.
        name: For tables and plots.
        text: One sentence for the page.
        writes: Whether it writes to the database.
    """

    module: str
    name: str
    text: str
    writes: bool


DESCRIPTIONS = {
    Subject.EMPTY: Description(
        "tests.benchmarks.subjects.empty_endpoint",
        "empty FastAPI",
        "A stock FastAPI endpoint with the same body model and a key dependency, and nothing "
        "behind them: no database, no log.",
        writes=False,
    ),
    Subject.AIOODBC: Description(
        "tests.benchmarks.subjects.aioodbc_per_request",
        "aioodbc per request",
        "FastAPI with one execute and one commit per request on a connection of aioodbc's pool. "
        "Its pool has the size that was fastest for it on each database. No log.",
        writes=True,
    ),
    Subject.BLOCKING: Description(
        "tests.benchmarks.subjects.blocking_pyodbc",
        "blocking pyodbc",
        "FastAPI with a synchronous pyodbc call inside an async endpoint, on a connection that "
        "is kept. No log.",
        writes=True,
    ),
    Subject.SERVICE: Description(
        "sam.callback",
        "this service",
        "`python -m sam.callback` with its defaults, every callback logged as JSON into a pipe "
        "that is read.",
        writes=True,
    ),
    Subject.BARE: Description(
        "tests.benchmarks.subjects.bare_asgi",
        "bare ASGI",
        "The key, the body and pydantic under uvicorn; no framework, no routing, no database, no "
        "log: the limit.",
        writes=False,
    ),
}
