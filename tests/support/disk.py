"""Disks that hang, or are slow."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

from sam.callback.inbox.sqlite.spool import Spool
from tests.support.conditions import LIMIT_SECONDS


@asynccontextmanager
async def hung_disk(spool: Spool, limit: float | None = LIMIT_SECONDS) -> AsyncIterator[None]:
    """The spool's thread waits, as in a system call that does not return.

    Args:
        spool: Whose disk it is.
        limit: Seconds after which it is taken for hung; until then it is taken for slow.
    """
    goes_on = threading.Event()
    thread = spool._thread  # noqa: SLF001 - where the disk is
    call = asyncio.create_task(thread.run(lambda: goes_on.wait(LIMIT_SECONDS), limit))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        goes_on.set()
        await asyncio.gather(call, return_exceptions=True)


@contextmanager
def slow_disk(spool: Spool) -> Iterator[None]:
    """A write takes until the end, and then succeeds."""
    with closing(sqlite3.connect(spool.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()
