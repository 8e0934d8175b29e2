"""Any bytes over a socket: no crash, no hang, and nothing recorded without the key."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.fuzz import amounts
from tests.fuzz.conversation import Conversation, Request
from tests.fuzz.grammar import Grammar
from tests.fuzz.judge import Judge
from tests.fuzz.wire import Answer, Held, hold
from tests.support.databases import SqliteDatabase
from tests.support.load import spooled
from tests.support.service import Service

pytestmark = pytest.mark.fuzz

CONNECTIONS = 32
ENOUGH_FAULTS = 30  # were each a hang, the rest would take the day


@pytest.mark.parametrize("number", range(amounts.ROUNDS_OF_BYTES))
def test_every_conversation_ends_as_a_strict_reading_says(
    number: int,
    target: Service,
    sqlite_database: SqliteDatabase,
    count: Callable[[Counter[str]], None],
) -> None:
    grammar = Grammar(f"{amounts.SEED}-{number}")
    conversations = _some(grammar)
    sqlite_database.add_robots(grammar.deployment_ids)

    judge = asyncio.run(_hold_all(target, conversations))

    # Its log is complete once it has ended.
    assert target.stop() == 0
    judge.close_account(
        target.lines,
        sqlite_database.statuses(),
        spooled(target.directory / "var" / "callback-spool.db"),
    )
    count(judge.counts)
    assert not judge.faults, _report(judge.faults)


def _some(grammar: Grammar) -> list[Conversation]:
    made: list[Conversation] = []
    size = 0
    while size < amounts.ROUND_OF_BYTES:
        made.append(grammar.conversation())
        size += made[-1].size
    return made


async def _hold_all(target: Service, conversations: list[Conversation]) -> Judge:
    judge = Judge(await _refusal(target))
    waiting = iter(conversations)
    await asyncio.gather(*(_keep_talking(target, waiting, judge) for _ in range(CONNECTIONS)))
    return judge


async def _keep_talking(target: Service, waiting: Iterator[Conversation], judge: Judge) -> None:
    for conversation in waiting:
        judge.hear(await hold(target.port, conversation))
        if len(judge.faults) > ENOUGH_FAULTS:
            return


async def _refusal(target: Service) -> Answer:
    data = b"POST /no/such/path HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    request = Request(data, frozenset({401}), "", "")
    held: Held = await hold(target.port, Conversation("0", [request], None, []))
    return held.answers[0]


def _report(faults: list[str]) -> str:
    return (
        f"{len(faults)} faults; SAM_FUZZ_SEED={amounts.SEED} makes the same conversations again:\n"
        + "\n".join(faults[:10])
    )
