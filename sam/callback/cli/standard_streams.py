"""Standard streams: closed ones are opened, dead ones let go, output of C libraries is logged."""

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sam.callback.logs import get_logger

MAX_LINE_BYTES: Final = 8_192
_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}
_STANDARD_ERROR: Final = 2
_END_SECONDS: Final = 1.0

_log = get_logger(__name__)


def open_missing() -> None:
    """Put the null device in place of each standard stream that is closed; call it first of all.

    Python has None for such a stream, as below a Windows wrapper without a console. Its descriptor
    would be given to the next file or socket, and then get what a library in C prints: the spool,
    say.
    """
    for descriptor, (name, mode) in enumerate(_MODES.items()):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def flush_output() -> None:
    """Flush standard output, or let go of it where it fails, as after a terminal's hangup.

    The interpreter flushes again as it ends, and where that fails exits with status 120.
    """
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextmanager
def logged_native_output() -> Iterator[None]:
    """Log each line that anything in this process writes to standard error.

    libpq prints what a server says between two statements, SQLite's and other drivers their
    warnings; none of them knows of Python's streams, so the descriptor itself is taken. A crash of
    the interpreter still shows on the real one: nothing is left that could log it.
    """
    sys.stderr.flush()
    real = os.dup(_STANDARD_ERROR)
    reading, writing = os.pipe()
    os.dup2(writing, _STANDARD_ERROR)
    os.close(writing)
    faulthandler.enable(file=real)
    reader = threading.Thread(target=_log_lines, args=(reading,), name="native-output", daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, _STANDARD_ERROR)  # was the pipe's last writer, so its reader ends
        reader.join(_END_SECONDS)
        faulthandler.disable()
        os.close(real)


def _log_lines(descriptor: int) -> None:
    with open(descriptor, "rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            if text := line.decode(errors="replace").strip():
                _log.warning("native_output", text=text)
