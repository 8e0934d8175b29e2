"""Logging: every line on standard output is one JSON object, those of libraries included.

Our events, uvicorn's, Python's warnings and crashes are rendered by one function, so a field has
one name and one place. Fields of every line, in this order: ``timestamp`` (UTC, ISO 8601),
``level``, ``event``, ``logger``, ``service``, ``version``, ``instance`` (the host's name),
``pid``; then those of the event.
"""

import asyncio
import atexit
import json
import logging
import os
import re
import socket
import sys
import threading
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor, WrappedLogger

from sam.callback import __version__
from sam.callback.log_throttle import LogThrottle
from sam.callback.setting_types import LogFormat, LogLevel

SERVICE: Final = "sam-callback"
MAX_FIELD_CHARACTERS: Final = 1_024
MAX_TRACEBACK_CHARACTERS: Final = 16_384

# JSON may hold these as they are, and leaves them to what shows the line: DEL and the controls of
# Latin-1, which a terminal may obey; what ends a line for some programs; what turns the
# direction of writing, so that a line reads otherwise than it is.
_DECEPTIVE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


# Of what libraries and Python itself have to say: a sender may cause any of it.
_throttle: Final = LogThrottle()


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; `name` goes into the field ``logger``."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure(level: LogLevel, line_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to one stream, by default standard output.

    To be called once, before the first line: loggers keep what they find at their first use.
    """
    stream = stream or sys.stdout
    output = _Output(stream.buffer)
    processors: list[Processor] = [_exception]
    if line_format is LogFormat.JSON:
        processors += [_JsonLine()]
    else:
        processors += [_bound_fields, _console_line(colors=stream.isatty())]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        logger_factory=lambda *names: _LineLogger(output, *names),
        cache_logger_on_first_use=True,
    )
    handler = _RecordHandler(processors, output)
    logging.basicConfig(level=level.value, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda _kind, error, _trace: _log_crash("crash", error)
    threading.excepthook = lambda crash: _log_crash("thread_crash", crash.exc_value)
    sys.unraisablehook = lambda crash: _log_crash("unraisable", crash.exc_value)


class _Output:
    """A stream that never fails: a log that cannot be written must not cost a callback.

    One that is not read does: a pipe that is full blocks, as for any program.

    A line from an event loop's thread is written once the loop has run what is ready: the lines of
    a batch of callbacks cost one system call. From elsewhere it is written at once.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a finalizer may log while its thread writes
        self._lines: deque[bytes] = deque()
        self._due_in: asyncio.AbstractEventLoop | None = None
        atexit.register(self._write_lines)

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write_lines()
            return
        if self._due_in is not loop:
            self._due_in = loop
            loop.call_soon(self._write_lines)

    def _write_lines(self) -> None:
        self._due_in = None
        # ValueError is what a closed stream raises, OSError what a closed pipe or a full disk does.
        with suppress(OSError, ValueError), self._lock:
            lines: list[bytes] = []
            with suppress(IndexError):  # a finalizer may have taken the rest
                while self._lines:
                    lines.append(self._lines.popleft())
            if lines:
                self._stream.write(b"\n".join([*lines, b""]))
                self._stream.flush()


class _LineLogger:
    """Where structlog's loggers send their lines."""

    def __init__(self, output: _Output, name: str = "") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = output.write


class _RecordHandler(logging.Handler):
    """Renders the records of the standard library's loggers like our own events.

    Warnings and errors are throttled by the place in the code that they come from.
    """

    def __init__(self, processors: list[Processor], output: _Output) -> None:
        super().__init__()
        self._processors = processors
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        place = f"{record.module}:{record.lineno}"
        if record.levelno >= logging.WARNING and not _throttle.is_to_be_written(record.name, place):
            return
        line: Any = {"event": record.getMessage()}
        if record.exc_info:
            line["exc_info"] = record.exc_info
        for process in self._processors:
            line = process(record, record.levelname.lower(), line)
        self._output.write(line)

    def close(self) -> None:
        _throttle.sum_up()
        super().close()


class _JsonLine:
    """The last processor: the common fields first, then one line of JSON."""

    def __init__(self) -> None:
        self._common = {
            "service": SERVICE,
            "version": __version__,
            "instance": socket.gethostname(),
            "pid": os.getpid(),
        }

    def __call__(self, logger: WrappedLogger, level: str, fields: EventDict) -> bytes:
        line = {
            "timestamp": datetime.now(UTC),
            "level": level,
            "event": fields.pop("event"),
            "logger": logger.name,
            **self._common,
        }
        line |= fields
        text = _dump_all(line)
        if len(text) > MAX_FIELD_CHARACTERS:  # as each line is that has a longer field
            text = _dump_all(_bound_fields(None, "", line))
        return text if text.isascii() and b"\x7f" not in text else _escape_deceptive(text)


def _escape_deceptive(line: bytes) -> bytes:
    # In valid JSON they can stand in strings alone, and there an escape means the same.
    return _DECEPTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()


def _dump_all(line: EventDict) -> bytes:
    try:
        return _dumps(line)
    except TypeError:
        # A lone surrogate, or an integer over 64 bits: neither may lose a line.
        return _dumps({key: _representable(value) for key, value in line.items()})


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z)


def _representable(value: object) -> object:
    try:
        _dumps(value)
    except TypeError:
        return str(value).encode("ascii", "backslashreplace").decode("ascii")
    return value


def printable(text: str, limit: int | None = None) -> str:
    """Return a text on one line, with JSON's escapes for what a terminal would obey.

    `str.isprintable` is false for controls (ESC, C1), for format characters (U+202E, which turns
    the direction of writing), for line ends and for lone surrogates.

    Args:
        text: From outside: a callback, a database, a server.
        limit: The most characters of it that are shown.
    """
    shown = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text[:limit])
    return shown if len(text) == len(text[:limit]) else f"{shown}..."


def _console_line(*, colors: bool) -> Processor:
    add_time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
    render = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )

    def line(logger: WrappedLogger, level: str, fields: EventDict) -> bytes:
        fields.update(level=level, logger=logger.name)
        for key, value in fields.items():
            if key == "exception":
                # Indented, for a message in it may have lines that look like ours.
                lines = map(printable, value.split("\n"))
                fields[key] = "\n".join(f"  {line}" for line in lines)
            elif isinstance(value, str) and not value.isprintable():
                fields[key] = printable(value)
        text = render(logger, level, add_time(logger, level, fields))
        return text.encode("utf-8", "backslashreplace")

    return line


def _bound_fields(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    for key, value in fields.items():
        if isinstance(value, str) and len(value) > MAX_FIELD_CHARACTERS and key != "exception":
            fields[key] = f"{value[:MAX_FIELD_CHARACTERS]}... ({len(value)} characters)"
    return fields


def _exception(logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    return _render_exception(logger, method, fields) if "exc_info" in fields else fields


def _traceback(exc_info: ExcInfo) -> str:
    text = "".join(traceback.format_exception(*exc_info)).rstrip()
    if len(text) > MAX_TRACEBACK_CHARACTERS:
        # The end says what happened and where; the middle of a deep recursion says nothing.
        text = f"({len(text)} characters, the end:)\n{text[-MAX_TRACEBACK_CHARACTERS:]}"
    return text


_render_exception: Final = structlog.processors.ExceptionRenderer(_traceback)


def _log_crash(event: str, error: BaseException | None) -> None:
    if error is None or isinstance(error, KeyboardInterrupt):
        return
    if _throttle.is_to_be_written(event, type(error).__name__):
        get_logger(__name__).critical(event, exc_info=error)
