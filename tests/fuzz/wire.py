"""Holds conversations with the service, many at once, and reads what it answers."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final

from tests.fuzz.conversation import Conversation, End
from tests.support.conditions import LIMIT_SECONDS

HANG_SECONDS: Final = LIMIT_SECONDS
"""Nothing may take longer; the service's own limits end all before."""

_QUIET_SECONDS: Final = 0.05
_READ_LIMIT: Final = 1 << 20


@dataclass(slots=True)
class Answer:
    """One answer: its status, its headers as they came (names in small letters) and its body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return dict(self.headers).get(name)


@dataclass(slots=True)
class Held:
    """The result of a conversation.

    Attributes:
        conversation: What was said.
        answers: What was answered.
        problem: What was no HTTP, or took too long.
        was_reset: Whether an answer may have been lost: it cut what it did not want.
        was_ended: Whether the service ended it with an answer that came before a body, so that
            what was said behind that is unheard.
    """

    conversation: Conversation
    answers: list[Answer] = field(default_factory=list)
    problem: str = ""
    was_reset: bool = False
    was_ended: bool = False


class _NotFinishedError(Exception):
    """The end of the connection after a ``100 Continue``."""


async def hold(port: int, conversation: Conversation) -> Held:
    """Send all, read all that is answered, and see the connection end as it should."""
    held = Held(conversation)
    tail = conversation.tail
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_READ_LIMIT)
    sending = asyncio.create_task(_send(writer, conversation))
    try:
        async with asyncio.timeout(HANG_SECONDS):
            for request in conversation.requests:
                held.answers.append(await _answer(reader, is_head=request.is_head))
                if request.may_end_early and held.answers[-1].header("connection") == "close":
                    held.was_ended = True
                    await sending
                    writer.write_eof()
                    if await reader.read():
                        held.problem = "something came behind the last answer"
                    return held
            last = conversation.requests[-1] if conversation.requests else None
            if tail is not None and tail.end is End.OURS:
                await sending
                with contextlib.suppress(TimeoutError):
                    await _rest(reader, held, _QUIET_SECONDS)
            await sending
            if tail.end is End.OURS if tail else not (last and last.closes):
                writer.write_eof()
            await _rest(reader, held, None)
    except TimeoutError:
        held.problem = f"a hang: neither answered nor closed within {HANG_SECONDS} s"
    except (EOFError, _NotFinishedError, ValueError, asyncio.LimitOverrunError) as error:
        held.problem = f"no answer: {error!r}"
    except OSError as error:
        held.was_reset = True
        if tail is None or len(held.answers) < len(conversation.requests):
            held.problem = f"cut off: {error!r}"
    finally:
        sending.cancel()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await sending
        writer.close()
    return held


async def _send(writer: asyncio.StreamWriter, conversation: Conversation) -> None:
    data = conversation.data
    start = 0
    with contextlib.suppress(OSError):  # seen by the reading side
        for border in [*conversation.borders, len(data)]:
            writer.write(data[start:border])
            await writer.drain()
            await asyncio.sleep(0)
            start = border


async def _rest(reader: asyncio.StreamReader, held: Held, quiet: float | None) -> None:
    """Read answers until the connection is closed, or nothing came for so long."""
    while True:
        async with asyncio.timeout(quiet):
            first = await reader.read(1)
        if not first:
            return
        try:
            held.answers.append(await _answer(reader, first))
        except _NotFinishedError:
            return


async def _answer(
    reader: asyncio.StreamReader, first: bytes = b"", *, is_head: bool = False
) -> Answer:
    while True:
        head = first + await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        if version != "HTTP/1.1":
            raise ValueError(line)
        if status != "100":
            break
        first = await reader.read(1)
        if not first:
            raise _NotFinishedError
    pairs = [header.split(": ", 1) for header in lines]
    headers = [(name.lower(), value) for name, value in pairs]
    length = int(dict(headers).get("content-length", "0"))
    body = b"" if is_head else await reader.readexactly(length)
    return Answer(int(status), headers, body)
