"""Request smuggling through a documented proxy: the service sees the proxy's requests alone.

A proxy may read more generously than the service. What must not happen is that the two disagree
where a request ends, for then one can be hidden in another's body. Each request that a proxy sees
gets the sender's address in X-Forwarded-For, in the place of whatever is there; one that it does
not see has none, or one of the sender's own.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import amounts
from tests.fuzz.conversation import Conversation
from tests.fuzz.grammar import Grammar
from tests.support.databases import SqliteDatabase
from tests.support.proxies import INSTANCES, Proxy, in_front
from tests.support.service import KEY, Service

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(600)]

SENDER: Final = "127.0.0.2"
CONNECTIONS: Final = 32
HANG_SECONDS: Final = 10
QUIET_SECONDS: Final = 0.1

ANSWER: Final = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)")


@pytest.mark.parametrize("kind", INSTANCES)
def test_every_callback_that_arrives_was_one_to_the_proxy_too(
    kind: str,
    start_service: Callable[..., Service],
    sqlite_database: SqliteDatabase,
    tmp_path: Path,
    count: Callable[[Counter[str]], None],
) -> None:
    grammar = Grammar(f"{amounts.SEED}-{kind}")
    conversations = _some(grammar)
    sqlite_database.add_robots(grammar.deployment_ids)
    instances = [
        start_service(
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
            CALLBACK_SPOOL_PATH=str(tmp_path / f"{each}.db"),
            CALLBACK_FORWARDED_ALLOW_IPS="127.0.0.1",
        )
        for each in range(INSTANCES[kind])
    ]
    with in_front(kind, tmp_path, [each.port for each in instances]) as proxy:
        counts = asyncio.run(_hold_all(proxy, conversations))
    assert [each.stop() for each in instances] == [0] * INSTANCES[kind]  # their logs are complete

    written = [line for each in instances for line in each.lines if line.get("request_id")]
    assert [line for line in written if line["client"] != SENDER] == []
    recorded = Counter(line["deployment_id"] for line in written if line["event"] == "callback")
    changed = {name for name, status in sqlite_database.statuses().items() if status != "RUNNING"}
    without_key = _sent_without_key(conversations)
    assert [name for name in {*recorded, *changed} if name in without_key] == []
    assert [name for name, times in recorded.items() if times > 1] == []
    assert len(recorded) > amounts.REQUESTS_BY_PROXY / 50
    count(counts)


def _some(grammar: Grammar) -> list[Conversation]:
    made: list[Conversation] = []
    size = 0
    while size < amounts.REQUESTS_BY_PROXY:
        made.append(grammar.conversation())
        size += made[-1].size
    return made


def _sent_without_key(conversations: list[Conversation]) -> set[str]:
    """The deployments of whatever has the key nowhere."""
    parts = [
        (part.data, [part.deployment_id]) for said in conversations for part in said.requests
    ] + [
        (said.tail.data, [*said.tail.never, *said.tail.maybe])
        for said in conversations
        if said.tail
    ]
    return {name for data, names in parts if KEY.encode() not in data for name in names}


async def _hold_all(proxy: Proxy, conversations: list[Conversation]) -> Counter[str]:
    counts: Counter[str] = Counter()
    waiting = iter(conversations)
    await asyncio.gather(*(_keep_talking(proxy, waiting, counts) for _ in range(CONNECTIONS)))
    return counts


async def _keep_talking(
    proxy: Proxy, waiting: Iterator[Conversation], counts: Counter[str]
) -> None:
    for conversation in waiting:
        answers = await _hold(proxy, conversation)
        counts.update(answers)
        unanswered = conversation.size - min(conversation.size, len(answers))
        counts["closed without an answer"] += unanswered


async def _hold(proxy: Proxy, conversation: Conversation) -> list[str]:
    """Send all; read until its requests are answered, and nothing more comes."""
    heard = b""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.port, ssl=proxy.tls, local_addr=(SENDER, 0)
    )
    sending = asyncio.create_task(_send(writer, conversation))
    with suppress(OSError, TimeoutError):
        while True:
            is_answered = len(ANSWER.findall(heard)) >= len(conversation.requests)
            async with asyncio.timeout(QUIET_SECONDS if is_answered else HANG_SECONDS):
                data = await reader.read(65536)
            if not data:
                break
            heard += data
    sending.cancel()
    with suppress(OSError, asyncio.CancelledError):
        await sending
    writer.transport.abort()  # TLS would wait for the other end
    return [status.decode() for status in ANSWER.findall(heard)]


async def _send(writer: asyncio.StreamWriter, conversation: Conversation) -> None:
    data = conversation.data
    start = 0
    for border in [*conversation.borders, len(data)]:
        writer.write(data[start:border])
        await writer.drain()
        await asyncio.sleep(0)
        start = border
