"""A subject as a process: its output is read and counted, its memory and CPU time are looked at."""

import contextlib
import http.client
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import psutil

from tests.benchmarks.subject import DESCRIPTIONS, Subject
from tests.support.databases import free_port
from tests.support.service import clean_environment

KEY: Final = "bench-key-0d9f41"
START_SECONDS: Final = 60
STOP_SECONDS: Final = 15

_PROMPT_SECONDS = 0.05
_IDLE_SECONDS = 0.3
_IDLE_CPU_SECONDS = 0.02  # two ticks of the clock that counts it

_OUTCOME = re.compile(rb'"outcome":"(\w+)"')


class Server:
    """A subject that runs.

    Attributes:
        port: Where it listens.
        outcomes: How many callbacks it logged, by outcome; empty for a subject without a log.
    """

    def __init__(self, subject: Subject, directory: Path, environment: Mapping[str, str]) -> None:
        self._subject = subject
        self.port = free_port()
        self.outcomes: Counter[str] = Counter()
        self._errors = (directory / "stderr.txt").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-m", DESCRIPTIONS[subject].module],
            # The subjects are found from the checkout, whatever the working directory.
            env=clean_environment(
                **{
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    "CALLBACK_HOST": "127.0.0.1",
                    "CALLBACK_PORT": str(self.port),
                    "CALLBACK_API_KEY": KEY,
                    "CALLBACK_SPOOL_PATH": str(directory / "spool.db"),
                    **environment,
                }
            ),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._tree = psutil.Process(self._process.pid)
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._count, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()

    def wait_until_it_answers(self) -> None:
        """Wait until it listens and refuses what is not a callback.

        Raises:
            RuntimeError: If it ends instead, or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._errors.seek(0)
                end = self._errors.read()[-2000:].decode(errors="replace")
                raise RuntimeError(f"the subject does not answer: {end}")
            time.sleep(0.05)

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until it answers at once and needs no CPU time, for so long at the most.

        What wrk had sent when its time was up is still worked on, one by one if the event loop is
        blocked meanwhile: the next measurement must not wait behind it.
        """
        deadline = time.monotonic() + seconds
        is_idle = False
        while not is_idle and time.monotonic() < deadline:
            before, started = self.cpu_seconds, time.monotonic()
            answers = self._answers()
            is_prompt = answers and time.monotonic() - started < _PROMPT_SECONDS
            time.sleep(_IDLE_SECONDS)
            is_idle = is_prompt and self.cpu_seconds - before <= _IDLE_CPU_SECONDS

    def get(self, path: str) -> bytes:
        """GET a path, with the key."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"X-API-KEY": KEY})
            return connection.getresponse().read()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """User and system time of the process and its children until now."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    @property
    def rss_mb(self) -> float:
        """Resident memory of the process and its children, in MB (10^6 bytes)."""
        total = 0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 1e6

    def stop(self) -> None:
        """End it; the service cleanly, if it ends in time."""
        if self._process.poll() is None:
            if self._subject is Subject.SERVICE:
                self._process.terminate()
            else:
                self._process.kill()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        self._errors.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/callback")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return False
        return True

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._tree, *self._tree.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _count(self, output: IO[bytes]) -> None:
        """Read its log as it comes, as a container's runtime does, and count outcomes."""
        for line in output:
            if found := _OUTCOME.search(line):
                self.outcomes[found[1].decode()] += 1


@contextmanager
def running(
    subject: Subject, environment: Mapping[str, str], directory: Path | None = None
) -> Iterator[Server]:
    """A subject that answers; stopped in the end.

    Args:
        subject: Which.
        environment: Its variables, beside the address, the key and the spool's path.
        directory: Where its files are; by default a new one, gone in the end.
    """
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="sam-callback-bench-"))
            )
        server = Server(subject, directory, environment)
        stack.callback(server.stop)
        server.wait_until_it_answers()
        yield server
