"""The service under fire, and the summary of what it answered."""

import json
from collections import Counter
from collections.abc import Callable

import pytest

from tests.fuzz import amounts
from tests.support.databases import SqliteDatabase
from tests.support.service import Service

PROPERTY = "fuzz"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many requests were answered with which status, over all tests and processes."""
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == PROPERTY and report.when == "call":
                    total.update(json.loads(value))
    if total:
        answers = ", ".join(f"{number} {what}" for what, number in sorted(total.items()))
        terminalreporter.write_sep("-", "fuzzed requests")
        terminalreporter.write_line(f"seed {amounts.SEED}: {total.total()} in all: {answers}")


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[Counter[str]], None]:
    """Adds to the summary what was answered how often."""
    return lambda counts: record_property(PROPERTY, json.dumps(counts))


@pytest.fixture
def target(start_service: Callable[..., Service], sqlite_database: SqliteDatabase) -> Service:
    """The service on SQLite, with room for all of our connections.

    Its time limits are shorter than ours: what it has to close, it closes while we look.
    """
    return start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_HEADER_TIMEOUT="20",
        CALLBACK_BODY_TIMEOUT="20",
        CALLBACK_KEEP_ALIVE_TIMEOUT="20",
        CALLBACK_MAX_BODY_BYTES="1 MiB",
    )
