"""System calls of a callback: one write for the answer, and a share in one for the log line."""

import json
import socket
import subprocess
import sys
from typing import Final

from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.raw import Wire, request
from tests.support.service import Service

_COUNTED: Final = """
import asyncio, io, json
from sam.callback import logs
from sam.callback.setting_types import LogFormat, LogLevel

class Counted(io.RawIOBase):
    writes = []
    def writable(self): return True
    def write(self, data):
        self.writes.append(bytes(data).decode())
        return len(data)

stream = io.TextIOWrapper(io.BufferedWriter(Counted()))
logs.configure(LogLevel.INFO, LogFormat.JSON, stream)
log = logs.get_logger("tests")
"""


def written_by(script: str) -> list[list[dict[str, object]]]:
    """Run it with a `log`; return the lines that it wrote, by the write that they were part of."""
    script += "\nprint(json.dumps(Counted.writes))"
    ended = subprocess.run(
        [sys.executable, "-c", _COUNTED + script],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    )
    return [[json.loads(line) for line in write.splitlines()] for write in json.loads(ended.stdout)]


def test_an_answer_comes_in_one_piece(service: Service) -> None:
    # Two writes would come in two pieces most times, and one never does.
    callback = request(content=body("d-1", "DONE"))
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT_SECONDS) as connection:
        for _ in range(50):
            connection.sendall(callback)
            answer = connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"}")


def test_a_head_without_a_body_does_not_wait_for_one(service: Service) -> None:
    head = request(b"/health", method=b"HEAD", headers=b"")
    with Wire(service) as wire:
        for _ in range(2):
            wire.send(head)
            status, _ = wire.head()
            assert status == 200


def test_the_lines_of_one_turn_of_the_loop_are_written_together() -> None:
    [first, second] = written_by("""
async def two_turns():
    for number in range(10):
        log.info("line", number=number)
    assert not Counted.writes
    await asyncio.sleep(0)
    assert len(Counted.writes) == 1
    log.info("line", number=10)
asyncio.run(two_turns())
""")
    assert [line["number"] for line in first] == list(range(10))
    assert [line["number"] for line in second] == [10]


def test_a_line_of_another_thread_is_written_at_once_and_in_its_turn() -> None:
    [lines] = written_by("""
import threading
async def turn():
    log.info("line", number=0)
    thread = threading.Thread(target=lambda: log.info("line", number=1))
    thread.start()
    thread.join()
    assert len(Counted.writes) == 1
asyncio.run(turn())
""")
    assert [line["number"] for line in lines] == [0, 1]


def test_one_loop_after_another_is_written() -> None:
    writes = written_by("""
async def turn(number):
    log.info("line", number=number)
for number in range(3):
    asyncio.run(turn(number))
""")
    assert [line["number"] for write in writes for line in write] == [0, 1, 2]
