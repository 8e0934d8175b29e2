"""Body budget: all bodies in flight are bounded together; beyond it they wait, or are refused."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final

import psutil
import pytest

from sam.callback.service import body_budget
from sam.callback.service.body_budget import UNCOUNTED_BYTES, BodyBudget, BodyShare, NoRoomError
from tests.support.callbacks import body
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import SqliteDatabase
from tests.support.raw import Wire, request
from tests.support.service import Service

MIB: Final = 2**20

LARGE: Final = body("d-1").ljust(MIB)
SENDERS: Final = 12


def test_of_many_bodies_that_are_half_here_each_comes_to_its_end(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODY_BYTES="1 MiB",
        CALLBACK_MAX_BODIES_BYTES="2 MiB",
    )
    begun = request(content=LARGE)[: -MIB * 7 // 8]

    def finish(wire: Wire) -> int:
        wire.send(LARGE[-MIB * 7 // 8 :])
        return wire.status()

    with ExitStack() as stack, ThreadPoolExecutor(SENDERS) as senders:
        wires = [stack.enter_context(Wire(service)) for _ in range(SENDERS)]
        for wire in wires:
            wire.send(begun)
        assert [*senders.map(finish, wires)] == [200] * SENDERS


def test_the_memory_for_bodies_is_bounded(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODIES_BYTES="16 MiB",
    )
    process = psutil.Process(service.pid)
    before = process.memory_info().rss
    size = 15 * MIB
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(service)) for _ in range(40)]
        for wire in wires:
            wire.send(request(length=size))
        # What the system's own buffers do not take is not sent, and no sender is waited for.
        sent = dict.fromkeys(wires, 0)
        is_growing = True
        while is_growing:
            is_growing = False
            for wire in wires:
                if sent[wire] < size - 1 and (count := wire.send_until_full(b" " * MIB)):
                    sent[wire] += count
                    is_growing = True
            assert process.memory_info().rss - before < 64 * MIB
        assert service.post(body("d-1")).status_code == 200  # it need not wait for them


def test_a_body_that_finds_no_room_in_time_is_503(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_MAX_BODY_BYTES="1 MiB",
        CALLBACK_MAX_BODIES_BYTES="1 MiB",
        CALLBACK_BODY_TIMEOUT="5",  # in which a megabyte comes
    )
    sqlite_database.add_robots(["d-2"])
    with closing(sqlite3.connect(sqlite_database.path)) as other, Wire(service) as first:
        other.execute("BEGIN IMMEDIATE")  # what has been read is not recorded
        first.send(request(content=LARGE))
        refused = service.post(body("d-2").ljust(MIB))
        other.execute("ROLLBACK")
        assert first.status() == 200
    assert refused.status_code == 503
    assert refused.headers["Retry-After"].isdigit()
    assert refused.headers["Connection"] == "close"
    line = service.wait_for_event("refused")
    assert (line["reason"], line["deployment_id"]) == ("overloaded", "d-2")
    assert line["status"] == "RUN_COMPLETED"
    assert service.post(LARGE).status_code == 200


def share_of(budget: BodyBudget, size: int) -> tuple[BodyShare, bool]:
    share = BodyShare(budget)
    return share, share.grow(UNCOUNTED_BYTES + size)


def test_one_body_may_take_the_reserve() -> None:
    budget = BodyBudget(max_bytes=100, max_body_bytes=40, timeout=LIMIT_SECONDS)
    first, has_room = share_of(budget, 30)
    assert has_room
    second, has_room = share_of(budget, 30)
    assert has_room
    assert budget.shared == 60
    assert second.grow(UNCOUNTED_BYTES + 40)  # it goes over the 60, and makes room for another
    assert budget.shared == 30
    third, has_room = share_of(budget, 30)
    assert has_room
    assert not first.grow(UNCOUNTED_BYTES + 31)
    assert budget.shared == 60
    for share in (second, first, third):
        with share:
            pass
    assert (budget.shared, budget.privileged) == (0, None)


async def test_waiting_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_budget, "MAX_WAITING", 0)
    budget = BodyBudget(max_bytes=10, max_body_bytes=10, timeout=LIMIT_SECONDS)
    holder, _ = share_of(budget, 10)
    share = BodyShare(budget)
    refused = asyncio.create_task(share.wait_for_room(UNCOUNTED_BYTES + 1))
    await asyncio.sleep(0)
    assert isinstance(refused.exception(), NoRoomError)  # at once
    monkeypatch.undo()
    waiting = asyncio.create_task(share.wait_for_room(UNCOUNTED_BYTES + 1))
    await asyncio.sleep(0)
    assert (budget.waiting, waiting.done()) == (1, False)
    with holder:
        pass
    await waiting
    assert (budget.waiting, budget.privileged) == (0, share)
