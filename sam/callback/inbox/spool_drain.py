"""Drain, for ``spool drain``: tries each entry of a spool that no service owns, once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.sqlite.spool import SpoolUnavailableError
from sam.callback.inbox.store import LIVE, Kind
from sam.callback.settings import Settings

MAX_FAILURES: Final = 3
"""So many failures of the database in a row end it."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Result of a drain.

    Attributes:
        applied: How many entries were applied.
        dead_letters: How many became dead letters: refused for good, or too long without a row.
        remaining: How many that are to be applied are still there.
        reason: Why, for a person.
    """

    applied: int
    dead_letters: int
    remaining: int
    reason: str


async def drain_spool(settings: Settings, progress: Callable[[int, int], object]) -> Drained:
    """Try each entry once, as the replayer of a service would.

    Args:
        settings: Of the database, and the spool's path.
        progress: Is told how many are done, of how many.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
    """
    inbox = Inbox(settings)
    await inbox.open(replay=False)

    def remaining() -> int:
        return sum(inbox.spool.totals[kind].entries for kind in LIVE)

    def dead_letters() -> int:
        return inbox.spool.totals[Kind.DEAD_LETTER].entries

    total, dead_before = remaining(), dead_letters()
    reason = ""
    after = 0
    try:
        while page := await inbox.spool.page(LIVE, after=after, limit=inbox.replayer.batch_limit):
            is_tried = False
            if inbox.breaker.takes_callbacks or await inbox.database.probe():
                is_tried = await inbox.replayer.replay(page)
                progress(total - remaining(), total)
            if inbox.breaker.takes_callbacks:
                after = page[-1].number if is_tried else after
            elif inbox.breaker.failures < MAX_FAILURES:
                await asyncio.sleep(inbox.breaker.seconds_to_probe)
            else:
                reason = "The database takes no writes."
                break
    except SpoolUnavailableError as error:
        reason = str(error)
    finally:
        await inbox.close()
    if remaining() and not reason:
        reason = "Their rows do not exist, or are locked."
    dead = dead_letters() - dead_before
    return Drained(total - remaining() - dead, dead, remaining(), reason)
