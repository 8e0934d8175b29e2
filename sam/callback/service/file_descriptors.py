"""How many connections this process may have open, by the system's own limit."""

import sys
from typing import Final

from sam.callback.logs import get_logger

RESERVE: Final = 100
"""File descriptors for all else: the database, the spool, the event loop, libraries."""

_log = get_logger(__name__)


def provide_for(connections: int) -> int:
    """Raise the limit of open files if need be; return how many connections there is room for.

    Args:
        connections: How many there are to be.
    """
    if sys.platform == "win32":
        return connections  # it has no such limit
    import resource  # noqa: PLC0415 - not on Windows

    needed = connections + RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    if raised == needed:
        return connections
    room = max(raised - RESERVE, raised // 2)
    _log.warning(
        "too_few_file_descriptors",
        open_files=raised,
        connections=room,
        action=f"The system allows {raised} open files, which is too few for {connections} "
        f"connections. Allow {needed} (ulimit -Hn), or lower CALLBACK_MAX_CONNECTIONS.",
    )
    return room
