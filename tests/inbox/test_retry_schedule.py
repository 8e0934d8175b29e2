"""Rule 7: tries are 0.5, 1, 2, 4 ... 60 s apart, whatever the clock does, and nothing starves.

When an entry is due is in the spool's file: a million that wait take no memory, and a restart makes
all of them due without writing to one.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sam.callback.inbox.backoff import RETRY
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.store import Due, Entry, Kind

MIB = 2**20
NS = 1_000_000_000
HOUR = 3600.0


class Clocks:
    """The two clocks of a machine."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.time_of_day = 1_800_000_000.0

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.monotonic += seconds
        self.time_of_day += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(time, "monotonic_ns", lambda: int(clocks.monotonic * NS))
    monkeypatch.setattr(time, "time_ns", lambda: int(clocks.time_of_day * NS))
    return clocks


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], SpoolFile]]:
    files: list[SpoolFile] = []

    def open_it() -> SpoolFile:
        for file in files:
            file.close()
        files.append(SpoolFile(tmp_path / "spool.db", 16 * MIB))
        return files[-1]

    yield open_it
    for file in files:
        file.close()


@pytest.fixture
def file(clocks: Clocks, reopen: Callable[[], SpoolFile]) -> SpoolFile:  # noqa: ARG001 - set first
    return reopen()


def entry(number: int, kind: Kind = Kind.UNMATCHED, attempts: int = 1) -> Entry:
    return Entry(number, kind, f"d-{number}", "DONE", attempts=attempts)


def due(file: SpoolFile, limit: int = 1000, *, retries: bool = True) -> list[int]:
    return [entry.number for entry in file.due(limit, retries=retries).entries]


def test_tries_are_half_a_second_apart_at_first_and_a_minute_at_last() -> None:
    delays = [RETRY.delay(failures) for failures in range(1, 12)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert RETRY.failures_to_longest == 8


def test_new_entries_are_due_at_once_the_oldest_first(file: SpoolFile) -> None:
    numbers = [3, 1, 2]
    file.put([entry(number, Kind.QUEUED, attempts=0) for number in numbers], 3)
    assert due(file, limit=2) == [1, 2]
    assert due(file, retries=False) == [1, 2, 3]


def test_an_entry_is_due_after_the_delay_of_its_attempts(file: SpoolFile, clocks: Clocks) -> None:
    file.put([entry(1)], 1)
    for attempts in range(1, 12):
        delay = RETRY.delay(attempts)
        assert due(file) == []
        assert file.due(10).seconds_to_next == pytest.approx(delay)
        clocks.pass_by(delay * 0.9)
        assert due(file) == []
        clocks.pass_by(delay * 0.1 + 0.001)
        [found] = file.due(10).entries
        assert found.attempts == min(attempts, 8)
        file.settle(put_off=[(entry(1), attempts + 1)])


def test_if_nothing_waits_nothing_is_due(file: SpoolFile) -> None:
    file.put([entry(1, Kind.DEAD_LETTER, attempts=0)], 1)
    assert file.due(10) == Due([], None)


def test_all_are_due_when_the_file_is_opened(
    file: SpoolFile, clocks: Clocks, reopen: Callable[[], SpoolFile]
) -> None:
    file.put([entry(number, attempts=number) for number in range(1, 9)], 8)
    clocks.pass_by(0.1)
    assert due(reopen()) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("step", [-20 * 365 * 24 * HOUR, -HOUR, -45, 45, HOUR, 365 * 24 * HOUR])
def test_no_clock_that_is_set_puts_an_entry_off_or_makes_it_due(
    step: float, file: SpoolFile, clocks: Clocks, reopen: Callable[[], SpoolFile]
) -> None:
    file.put([entry(1, attempts=8)], 1)
    clocks.time_of_day += step
    clocks.pass_by(30)
    assert due(file) == []
    clocks.pass_by(30.001)
    assert due(file) == [1]

    file.settle(put_off=[(entry(1), 8)])
    clocks.time_of_day -= step
    again = reopen()  # by a process that has never seen the other time
    assert due(again) == [1]
    again.settle(put_off=[(entry(1), 1)])
    clocks.pass_by(0.6)
    assert due(again) == [1]


def test_a_replacement_is_due_at_once(file: SpoolFile) -> None:
    file.put([entry(1, attempts=8)], 1)
    file.put([Entry(2, Kind.QUEUED, "d-1", "NEWER")], 2)
    assert due(file) == [2]


def test_an_entry_moved_by_hand_is_due_at_once(file: SpoolFile) -> None:
    file.put([entry(1, attempts=8), entry(2, Kind.DEAD_LETTER, attempts=8)], 2)
    file.settle(moved=[(each, Kind.QUEUED, "By hand.") for each in (entry(1), entry(2))])
    assert due(file) == [1, 2]


def test_a_retried_dead_letter_is_not_put_off(file: SpoolFile) -> None:
    file.put([entry(1, Kind.QUEUED, attempts=0)], 1)
    file.settle(moved=[(entry(1), Kind.DEAD_LETTER, "refused")], put_off=[(entry(1), 8)])
    [dead] = file.get([1])
    assert dead.attempts == 0
    assert file.replace_dead(replace(dead, kind=Kind.QUEUED, status="OTHER"))
    assert due(file) == [1]


def test_an_entry_that_met_an_outage_is_due_again_after_all_others(file: SpoolFile) -> None:
    """Else one that brings the database down would be tried first each time."""
    file.put([entry(number, Kind.QUEUED, attempts=0) for number in (1, 2, 3)], 3)
    file.settle(put_off=[(entry(1), 0), (entry(2), 0)])
    assert due(file, limit=1) == [3]
    file.settle(done=[entry(3)])
    assert due(file, limit=1) == [1]


def test_neither_new_nor_old_entries_hold_up_the_others(file: SpoolFile, clocks: Clocks) -> None:
    new = range(1_000, 2_000)
    old = range(2_000, 3_000)
    file.put([entry(number, Kind.QUEUED, attempts=0) for number in new], 3_000)
    file.put([entry(number, attempts=8) for number in old], 3_000)
    file.put([entry(1, attempts=1)], 3_000)
    clocks.pass_by(61)
    first_three = [due(file, limit=10) for _ in range(3)]
    assert any(1 in numbers for numbers in first_three)
    assert any(set(numbers) <= set(new) for numbers in first_three)
    assert any(set(numbers) <= set(old) for numbers in first_three)
    assert len(due(file, limit=2_500)) == 2_001  # what is left of a batch is for the other lines


def test_a_batch_is_found_among_many_by_their_index(file: SpoolFile) -> None:
    file.put([entry(number, attempts=1 + number % 8) for number in range(20_000)], 20_000)
    looked_at = 0

    def count() -> None:
        nonlocal looked_at
        looked_at += 1

    file._connection.set_progress_handler(count, 100)  # noqa: SLF001 - after each 100 instructions
    assert file.due(100).entries == []
    file._connection.set_progress_handler(None, 0)  # noqa: SLF001
    assert looked_at < 100
