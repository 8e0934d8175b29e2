"""What libraries in C print to standard error becomes log lines, like all else.

libpq prints what a server says between two statements, SQLite's and other drivers their warnings;
none of them knows of Python's streams, so the descriptor itself is taken.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sam.callback.logs import get_logger

STANDARD_ERROR: Final = 2
MAX_LINE_BYTES: Final = 8_192
_END_SECONDS: Final = 1.0

_log = get_logger(__name__)


@contextmanager
def logged_native_output() -> Iterator[None]:
    """Log each line that anything in this process writes to standard error.

    A crash of the interpreter itself still shows on the real one: nobody is left to log it.
    """
    sys.stderr.flush()
    real = os.dup(STANDARD_ERROR)
    reading, writing = os.pipe()
    os.dup2(writing, STANDARD_ERROR)
    os.close(writing)
    faulthandler.enable(file=real)
    reader = threading.Thread(target=_log_lines, args=(reading,), name="native-output", daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, STANDARD_ERROR)  # was the pipe's last writer, so its reader ends
        reader.join(_END_SECONDS)
        faulthandler.disable()
        os.close(real)


def _log_lines(descriptor: int) -> None:
    with open(descriptor, "rb") as stream:
        while line := stream.readline(MAX_LINE_BYTES):
            if text := line.decode(errors="replace").strip():
                _log.warning("native_output", text=text)
