"""Starts the service and its commands: by forking a process that has imported them, or for real.

Nearly all that a start costs is imports, a second of work, some 400 times in a run of the
tests. A process that is forked from one that has them behaves like one that was started, but for
what the interpreter does at its very start and end: tests of that ask for a fresh one.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Final, Protocol

# Read by the interpreter, the C library or the loader before the first line of the service.
_READ_AT_START: Final = ("COVERAGE_", "LANG", "LC_", "LD_", "PYTHON", "TZ")

_can_fork: Final = "forkserver" in multiprocessing.get_all_start_methods()
_context: Final[Any] = multiprocessing.get_context("forkserver" if _can_fork else None)
if _can_fork:
    _context.set_forkserver_preload(["tests.support.preload"])
_lock: Final = threading.Lock()
"""`multiprocessing` looks at all its processes when it starts another: one thread at a time."""


class Process(Protocol):
    """The part of `subprocess.Popen` that is used."""

    stdout: IO[str] | None
    stderr: IO[str] | None
    returncode: int | None

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def start(
    arguments: Sequence[str], directory: Path, environment: dict[str, str], *, fresh: bool
) -> Process:
    """Start ``python -m sam.callback`` with pipes for both its streams.

    Args:
        arguments: What follows.
        directory: Where.
        environment: All of it.
        fresh: In an interpreter of its own, whatever that costs.
    """
    if fresh or not _can_fork or _needs_a_start(environment):
        return subprocess.Popen(
            [sys.executable, "-m", "sam.callback", *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
    return _Forked(arguments, directory, environment)


def _needs_a_start(environment: Mapping[str, str]) -> bool:
    return any(
        environment.get(name) != os.environ.get(name)
        for name in environment.keys() | os.environ.keys()
        if name.startswith(_READ_AT_START)
    ) or any(name.startswith("COVERAGE_") for name in environment)


class _Forked:
    """A process of `multiprocessing` that looks like one of `subprocess`."""

    def __init__(
        self, arguments: Sequence[str], directory: Path, environment: dict[str, str]
    ) -> None:
        (out, its_out), (err, its_err) = _context.Pipe(duplex=False), _context.Pipe(duplex=False)
        self._process = _context.Process(
            target=_run,
            args=(list(arguments), directory, environment, its_out, its_err),
            daemon=True,  # it ends with the tests at the latest
        )
        with _lock:
            self._process.start()
        for connection in (its_out, its_err):
            connection.close()
        self.stdout: IO[str] | None = _file_of(out)
        self.stderr: IO[str] | None = _file_of(err)
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def poll(self) -> int | None:
        with _lock:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            wait([self._process.sentinel], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("sam.callback", timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _file_of(connection: Connection) -> IO[str]:
    file = os.fdopen(os.dup(connection.fileno()), encoding="utf-8")
    connection.close()
    return file


def _run(
    arguments: list[str],
    directory: Path,
    environment: dict[str, str],
    out: Connection,
    err: Connection,
) -> None:
    from sam.callback.__main__ import main  # noqa: PLC0415 - here, it was imported before the fork

    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, connection in enumerate((out, err), start=1):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
    sys.argv = ["sam-callback", *arguments]
    try:
        main()
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - as an interpreter of its own would
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - `multiprocessing` ends without them
