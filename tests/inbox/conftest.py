"""Inboxes and spools that a test opens as often as it needs to."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.metrics import Metrics
from sam.callback.settings import Settings
from tests.support import inboxes
from tests.support.databases import SqliteDatabase
from tests.support.inboxes import MIB, OpenInbox, OpenSpool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The spool's file, in a directory that is not there yet."""
    return tmp_path / "var/spool.db"


@pytest.fixture
def open_spool(path: Path) -> OpenSpool:
    def open_it(max_bytes: int = 16 * MIB) -> AbstractAsyncContextManager[Spool]:
        return inboxes.open_spool(path, max_bytes)

    return open_it


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def open_inbox(
    sqlite_database: SqliteDatabase,
    settings_for: Callable[..., Settings],
    path: Path,
    metrics: Metrics,
) -> OpenInbox:
    """Opens an inbox on the SQLite database; takes settings."""

    def open_it(*, replay: bool = False, **settings: object) -> AbstractAsyncContextManager[Inbox]:
        overrides = {"callback_spool_path": path, **settings}
        return inboxes.open_inbox(
            settings_for(sqlite_database, **overrides), metrics, replay=replay
        )

    return open_it
