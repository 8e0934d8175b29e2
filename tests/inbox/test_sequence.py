"""Rule 1: sequence numbers only rise, whatever the clock does, and one thread gives them out."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.inbox.store import Entry, Kind

MIB = 2**20


@given(st.lists(st.integers(min_value=0, max_value=2**62), min_size=1))
def test_numbers_only_rise_however_the_clock_is_set(times: list[int]) -> None:
    clock = iter(times)
    sequence = Sequence(lambda: next(clock))
    numbers = [sequence.next() for _ in times]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == max(times[0], 1)


def test_numbers_continue_after_those_of_an_earlier_life() -> None:
    sequence = Sequence(lambda: 1_000)
    sequence.continue_after(5_000)
    assert [sequence.next(), sequence.next()] == [5_001, 5_002]


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Owned(Sequence):
    """Knows which threads use it."""

    def __init__(self) -> None:
        self.users: set[int] = set()
        super().__init__()

    @property
    def last(self) -> int:
        self.users.add(threading.get_ident())
        return self._last

    @last.setter
    def last(self, number: int) -> None:
        self.users.add(threading.get_ident())
        self._last = number


@pytest.mark.usefixtures("quick_switches")
async def test_the_event_loop_alone_gives_them_out_while_the_spool_is_opened_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool.db"
    sequence = Owned()
    spool = Spool(path, MIB, sequence)
    numbers: list[int] = []
    await spool.open()
    try:
        for round_ in range(25):
            path.rename(path.with_name(f"away-{round_}.db"))  # so the next call opens another
            put = asyncio.create_task(
                spool.put([Entry(sequence.next(), Kind.QUEUED, "d-1", "DONE")])
            )
            while not put.done():
                numbers += [sequence.next() for _ in range(100)]
                await asyncio.sleep(0)
            assert put.result() == [True]
    finally:
        await spool.close()
    assert len(numbers) >= 2_500
    assert numbers == sorted(set(numbers))
    assert sequence.users == {threading.get_ident()}
