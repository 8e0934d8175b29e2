"""Batch limit: as much as the database takes in time, whether COMMIT or the rows cost it.

In simulated time: a database that costs what the test says, and callbacks at an even rate.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sam.callback.inbox.batch_limit import MAX_BATCH, BatchLimit

TIME_LIMIT = 2.0
RATE = 60
"""Callbacks a second."""

PER_ROW = 0.0002

Cost = Callable[[float, int], float]
"""Seconds that a batch takes, by the time at which it begins and its rows."""


@dataclass
class Run:
    """A run.

    Attributes:
        updated: How many callbacks were committed in their time.
        late: How many were not.
        limits: What the limit was after each batch, with the time.
        timed_out: When batches ran out of time.
    """

    updated: int = 0
    late: int = 0
    limits: list[tuple[float, int]] = field(default_factory=list)
    timed_out: list[float] = field(default_factory=list)

    @property
    def share_updated(self) -> float:
        return self.updated / (self.updated + self.late)

    def limits_after(self, seconds: float) -> list[int]:
        return [limit for moment, limit in self.limits if moment >= seconds]


def simulate(cost: Cost, *, seconds: float, slots: int, rate: float = RATE) -> Run:
    """Send callbacks for so long; each slot takes all that waits, up to the limit."""
    run, limit = Run(), BatchLimit(TIME_LIMIT)
    arrivals = deque(number / rate for number in range(int(rate * seconds)))
    waiting: deque[float] = deque()
    busy: list[tuple[float, float, list[float]]] = []  # end, seconds, arrivals of its callbacks
    while arrivals or busy:
        if not arrivals or (busy and busy[0][0] <= arrivals[0]):
            moment, took, batch = heapq.heappop(busy)
            if took < TIME_LIMIT:
                limit.committed(len(batch), took)
                on_time = sum(moment - arrived <= TIME_LIMIT for arrived in batch)
                run.updated += on_time
                run.late += len(batch) - on_time
            else:
                limit.ran_out_of_time(len(batch))
                run.timed_out.append(moment)
                run.late += len(batch)
            run.limits.append((moment, limit.value))
        else:
            moment = arrivals.popleft()
            waiting.append(moment)
        while waiting and moment - waiting[0] >= TIME_LIMIT:
            waiting.popleft()
            run.late += 1
        if waiting and len(busy) < slots:
            batch = [waiting.popleft() for _ in range(min(limit.value, len(waiting)))]
            takes = min(cost(moment, len(batch)), TIME_LIMIT)
            heapq.heappush(busy, (moment + takes, takes, batch))
    return run


def by_commit(seconds: float) -> Cost:
    return lambda _, rows: seconds + PER_ROW * rows


def by_row(seconds: float) -> Cost:
    return lambda _, rows: 0.002 + seconds * rows


def changing(before: Cost, after: Cost, at: float) -> Cost:
    return lambda moment, rows: (before if moment < at else after)(moment, rows)


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.3, 0.6, 1.0])
def test_a_slow_commit_sends_nothing_into_the_spool(seconds: float, slots: int) -> None:
    run = simulate(by_commit(seconds), seconds=60, slots=slots)
    assert run.share_updated >= 0.97
    assert not run.timed_out
    assert min(run.limits_after(0)) >= RATE * seconds


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(by_commit(1.0), by_commit(0.001), id="fast again"),
        pytest.param(by_commit(0.001), by_commit(0.95), id="a slow commit"),
        pytest.param(by_row(0.05), by_commit(0.95), id="slow by rows, then by commit"),
    ],
)
def test_a_change_is_found_within_10_s(before: Cost, after: Cost, slots: int) -> None:
    run = simulate(changing(before, after, at=20), seconds=60, slots=slots)
    assert min(run.limits_after(30)) >= RATE
    assert before(0, 1) > 0.01 or run.share_updated >= 0.97
    assert not [moment for moment in run.timed_out if moment >= 30]


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("before", [0.001, 0.95])
def test_a_database_that_slows_by_rows_is_found_within_10_s(before: float, slots: int) -> None:
    per_row = 0.06
    change = changing(by_commit(before), by_row(per_row), at=20)
    run = simulate(change, seconds=60, slots=slots, rate=10 * RATE)  # more than it can take
    assert max(run.limits_after(30)) * per_row < TIME_LIMIT
    assert not [moment for moment in run.timed_out if moment >= 30]
    assert max(run.limits_after(30)) > 1


@pytest.mark.parametrize("slots", [1, 4])
def test_one_that_gets_slower_by_rows_is_never_asked_for_too_much(slots: int) -> None:
    def cost(moment: float, rows: int) -> float:
        return 0.002 + rows * min(PER_ROW * math.exp(0.1 * moment), 0.1)

    run = simulate(cost, seconds=90, slots=slots, rate=10 * RATE)
    assert not run.timed_out
    assert 1 < run.limits[-1][1] < TIME_LIMIT / 0.1


@pytest.mark.parametrize("slots", [1, 4])
def test_a_commit_that_takes_most_of_the_time_limit_does_not_make_batches_small(slots: int) -> None:
    run = simulate(by_commit(0.85 * TIME_LIMIT), seconds=60, slots=slots)
    assert not run.timed_out
    assert sorted(run.limits_after(10))[len(run.limits_after(10)) // 10] == MAX_BATCH


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("rate", [RATE, 10 * RATE])
@pytest.mark.parametrize("per_row", [0.005, 0.01, 0.02, 0.05])
@pytest.mark.parametrize("fixed", [0.3, 0.7, 1.0, 1.2, 1.5])
def test_a_database_that_is_slow_in_both_ways_is_not_asked_for_more_than_it_can_do_in_time(
    fixed: float, per_row: float, rate: int, slots: int
) -> None:
    def cost(_moment: float, rows: int) -> float:
        return fixed + per_row * rows

    run = simulate(cost, seconds=60, slots=slots, rate=rate)
    assert not [moment for moment in run.timed_out if moment >= 10]


def test_after_an_outage_the_limit_is_back_within_10_s() -> None:
    def cost(moment: float, rows: int) -> float:
        return math.inf if 10 <= moment < 20 else 0.9 + PER_ROW * rows

    run = simulate(cost, seconds=60, slots=1)
    assert min(run.limits_after(30)) >= RATE
    assert min(limit for _, limit in run.limits) < MAX_BATCH / 2


def test_a_fall_that_did_not_help_is_taken_back() -> None:
    limit = BatchLimit(TIME_LIMIT)
    for _ in range(2):  # two that were under way together
        limit.committed(MAX_BATCH, 1.7)
    assert limit.value == MAX_BATCH / 2
    limit.committed(MAX_BATCH // 2, 1.7)
    assert limit.value == MAX_BATCH
    limit.committed(MAX_BATCH, 1.7)
    assert limit.value == MAX_BATCH
    limit.committed(MAX_BATCH, 0.5)
    limit.committed(MAX_BATCH, 1.7)
    assert limit.value == MAX_BATCH / 2  # it was fast meanwhile: that was another database


def test_a_batch_of_one_that_is_too_slow_leaves_one() -> None:
    limit = BatchLimit(TIME_LIMIT)
    for _ in range(10):
        limit.ran_out_of_time(1)
    assert limit.value == 1


@pytest.mark.parametrize("rows", [1, 2, 50, MAX_BATCH])
def test_batches_under_way_when_it_became_slow_count_once(rows: int) -> None:
    limit = BatchLimit(TIME_LIMIT)
    for _ in range(4):
        limit.ran_out_of_time(rows)
    assert limit.value == max(1, rows // 2)
