"""The service as its users run it: a process, a socket, two streams."""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support import log_lines, printed, processes
from tests.support.conditions import LIMIT_SECONDS

KEY: Final = printed.KEY

_TLS: Final = ssl.create_default_context()  # to make one takes longer than a callback

PATIENT: Final = {
    "CALLBACK_BODY_TIMEOUT": "600",
    "CALLBACK_DB_TIMEOUT": "60",
    "CALLBACK_HEADER_TIMEOUT": "600",
    "CALLBACK_KEEP_ALIVE_TIMEOUT": "3600",
    "SQL_SAM_LOGIN_TIMEOUT": "60",
}
"""The time-outs of every service in the tests, which no machine meets by being slow.

A test of a time-out, or of what needs one (a lock is waited for a quarter of CALLBACK_DB_TIMEOUT, a
new connection spared a third of CALLBACK_HEADER_TIMEOUT), sets its own.
"""

PATIENT_SETTINGS: Final = {name.lower(): value for name, value in PATIENT.items()}
"""The same, for a test that has the service's parts in its own process."""


def clean_environment(**variables: str) -> dict[str, str]:
    """This environment without any setting of the service, and with `variables`.

    With Python's buffers, which few machines turn off: what is in them may not get written.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CALLBACK_", "SQL_SAM_", "PYTHONUNBUFFERED"))
    }
    return {**kept, **variables}


class Service:
    """``python -m sam.callback`` on a port of its own."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        arguments: tuple[str, ...] = (),
        *,
        fresh: bool = False,
    ) -> None:
        self.directory = directory
        self._environment = environment
        self.lines: list[dict[str, Any]] = []
        self.output: list[str] = []
        self._exit_status: int | None = None
        self._arrived = threading.Condition()
        self._process = processes.start(
            arguments,
            directory,
            clean_environment(
                **{**PATIENT, "CALLBACK_PORT": "0", "CALLBACK_HOST": "127.0.0.1", **environment}
            ),
            fresh=fresh,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        listening = self.wait_for_line(lambda line: line["event"] == "listening")
        self.port: int = listening["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def client(self, **options: Any) -> httpx.Client:  # noqa: ANN401 - httpx's own
        """A client that has the key."""
        headers = {"X-API-KEY": KEY}
        return httpx.Client(**{"base_url": self.url, "headers": headers, "verify": _TLS, **options})

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GET a path, without the key."""
        return httpx.get(self.url + path, headers=headers, verify=_TLS)

    def ready(self) -> httpx.Response:
        """GET /ready, with the key: all that it says."""
        return self.get("/ready", **{"X-API-KEY": KEY})

    def post(self, content: bytes, **headers: "str | bytes") -> httpx.Response:
        """POST a body to /callback, with the key."""
        with self.client() as client:
            as_bytes = {
                name.encode(): value if isinstance(value, bytes) else value.encode()
                for name, value in headers.items()
            }
            return client.post("/callback", content=content, headers=as_bytes)

    def wait_for_line(self, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a line that matches has been written."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if matches(line)), None)

        with self._arrived:
            if not self._arrived.wait_for(
                lambda: found() or self._process.poll() is not None, LIMIT_SECONDS
            ):
                raise AssertionError(f"no such line came; there are: {self.lines}")
        if line := found():
            return line
        self._reader.join(LIMIT_SECONDS)
        if line := found():
            return line
        self._exit_status = self._process.wait()
        raise AssertionError(f"the service ended: {self._errors()} {self.output}")

    def wait_for_event(self, event: str) -> dict[str, Any]:
        """Wait for a line with this event."""
        return self.wait_for_line(lambda line: line["event"] == event)

    def send_signal(self, signal_number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal_number)

    def kill(self) -> None:
        """End it as a power cut would; search and check what it printed until then."""
        self._exit_status = 0
        self._process.kill()
        self._process.wait()
        self._errors()
        log_lines.check(self.lines)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Ask it to end; check what it printed in all its life; return its exit status."""
        if self._exit_status is None:
            self.send_signal(signal_number)
            self._exit_status = self._end()
        return self._exit_status

    def _end(self) -> int:
        try:
            status = self._process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        errors = self._errors()
        assert not errors, errors
        log_lines.check(self.lines)
        return status

    def _errors(self) -> str:
        """Return what it wrote to standard error, once it has ended; search both streams."""
        self._reader.join(LIMIT_SECONDS)
        assert self._process.stderr is not None
        assert self._process.stdout is not None
        if self._process.stderr.closed:
            return ""  # they were returned before
        errors = self._process.stderr.read()
        self._process.stderr.close()
        self._process.stdout.close()
        printed.search(self._environment, [errors, *self.output])
        return errors

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            with self._arrived:
                self.output.append(text)
                if text.endswith("\n"):  # a line that a kill cut short promises nothing
                    self.lines.append(json.loads(text))
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()


def run_to_its_end(
    directory: Path, environment: Mapping[str, str], *arguments: str, fresh: bool = False
) -> "subprocess.CompletedProcess[str]":
    """Run the command line until it ends by itself; search what it printed for secrets."""
    process = processes.start(
        arguments, directory, clean_environment(**{**PATIENT, **environment}), fresh=fresh
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out, process.stderr as err, ThreadPoolExecutor(2) as readers:
        printing = [readers.submit(stream.read) for stream in (out, err)]
        try:
            status = process.wait(LIMIT_SECONDS)
        finally:
            process.kill()  # unless it has ended
        printed_on = [stream.result() for stream in printing]
    printed.search(environment, printed_on)
    return subprocess.CompletedProcess(arguments, status, *printed_on)


_LOG_SOMETHING: Final = """
import logging, sys, threading, warnings
from sam.callback import logs
from sam.callback.setting_types import LogFormat, LogLevel
logs.configure(LogLevel.INFO, LogFormat(sys.argv[1]))
log = logs.get_logger("test")
"""


def log_something(what: str, line_format: str = "json") -> "subprocess.CompletedProcess[str]":
    """Run statements in a process that logs as the service does; they find its `log`."""
    return subprocess.run(
        [sys.executable, "-c", _LOG_SOMETHING + what, line_format],
        env=clean_environment(PYTHONPATH=str(Path(__file__).parents[2])),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT_SECONDS,
        check=False,
    )
