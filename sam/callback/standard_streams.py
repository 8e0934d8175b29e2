"""Standard streams that are closed at the start, as below a Windows wrapper without a console."""

import os
import sys
from typing import Final

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}


def open_missing() -> None:
    """Put the null device in place of each standard stream that is closed; call it first of all.

    Python has None for such a stream. Its descriptor would be given to the next file or socket, and
    then get what a library in C prints: the spool, say.
    """
    for descriptor, (name, mode) in enumerate(_MODES.items()):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
