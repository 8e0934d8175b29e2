"""An inbox and its spool in the test's own process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.inbox.store import Entry, Kind
from sam.callback.metrics import Metrics
from sam.callback.settings import Settings
from tests.support.conditions import LIMIT_SECONDS

MIB = 2**20

OpenInbox = Callable[..., AbstractAsyncContextManager[Inbox]]
OpenSpool = Callable[..., AbstractAsyncContextManager[Spool]]


@asynccontextmanager
async def open_inbox(
    settings: Settings, metrics: Metrics | None = None, *, replay: bool = False
) -> AsyncIterator[Inbox]:
    """Open it, without its replay loop unless told otherwise, and close it."""
    inbox = Inbox(settings, metrics)
    await inbox.open(replay=replay)
    try:
        yield inbox
    finally:
        await inbox.close()


@asynccontextmanager
async def open_spool(path: Path, max_bytes: int = 16 * MIB) -> AsyncIterator[Spool]:
    """Open it and close it."""
    spool = Spool(path, max_bytes, Sequence())
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


async def replay_all(inbox: Inbox) -> None:
    """Replay until nothing is due."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while await inbox.replayer.step():
            pass


def entry(
    number: int,
    deployment_id: str | None = None,
    kind: Kind = Kind.QUEUED,
    *,
    payload: bytes | None = None,
    key: str | None = None,
) -> Entry:
    """Make the entry of a callback of `d-<number>`, unless another deployment is given."""
    return Entry(number, kind, deployment_id or f"d-{number}", "DONE", payload, "a reason", key=key)
