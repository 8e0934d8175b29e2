"""Check of the shared inbox: all that an instance needs of it. Changes nothing."""

import asyncio
import contextlib
from typing import Final

from sam.callback.check_result import CheckResult, Level
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sql.table import InboxTable
from sam.callback.inbox.store import StoreUnavailableError
from sam.callback.settings import Settings

CLOSE_SECONDS: Final = 0.25
"""How long closing may take: the process ends, and what hangs ends with it."""

_SUBJECT: Final = "shared inbox"
_REPLICATION: Final = "shared inbox's replication"


async def check_inbox(settings: Settings) -> list[CheckResult]:
    """Find out whether the shared inbox can be used, and what its engine promises.

    Returns:
        Nothing where none is set.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
        SettingsError: If the connection string is none.
    """
    if settings.callback_inbox_connection_string is None:
        return []
    store = SharedStore(settings, Sequence(), is_quiet=True)
    await store.open(patient=True)
    try:
        await store.use(InboxTable.try_rights)
        results = [CheckResult(_SUBJECT, Level.OK, _what_there_is(settings, store))]
    except StoreUnavailableError:
        action = "Until then callbacks go into the spool of each instance."
        results = [CheckResult(_SUBJECT, Level.WRONG, store.reason, action)]
    else:
        results += [await _check_replication(store), _check_order(settings)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await store.close()
    return results


def _what_there_is(settings: Settings, store: SharedStore) -> str:
    entries = sum(total.entries for total in store.totals.values())
    number = "1 entry" if entries == 1 else f"{entries} entries"
    return f"{settings.callback_inbox_table}, {number}"


async def _check_replication(store: SharedStore) -> CheckResult:
    try:
        replication = await store.use(InboxTable.replication)
    except StoreUnavailableError:
        return CheckResult(_REPLICATION, Level.NOT_CHECKED, "The catalogue does not tell.")
    if replication.is_synchronous is None:
        return CheckResult(_REPLICATION, Level.NOT_CHECKED, replication.detail)
    if replication.is_synchronous:
        return CheckResult(_REPLICATION, Level.OK, replication.detail)
    return CheckResult(
        _REPLICATION,
        Level.WARNING,
        f"{replication.detail} A callback that was acknowledged may be lost with this server.",
        "See docs/how-to/shared-inbox.md.",
    )


def _check_order(settings: Settings) -> CheckResult:
    if settings.sql_sam_finished_column is not None:
        return CheckResult("shared inbox's order", Level.OK, "There is a time of reception.")
    return CheckResult(
        "shared inbox's order",
        Level.WARNING,
        "While the inbox does not answer, only a time of reception orders the callbacks of several "
        "instances.",
        "Set SQL_SAM_FINISHED_COLUMN to a column that nothing else writes.",
    )
