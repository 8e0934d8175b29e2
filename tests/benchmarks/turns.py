"""Several servers side by side, each of them under load for a second in turn.

A machine that is faster in one minute than in the next is so for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import measure, warm_up
from tests.benchmarks.results import Cell
from tests.benchmarks.run import Run
from tests.benchmarks.server import Server

SECONDS: Final = 1.0
TURNS: Final = 4
"""How often each has its turn before all are started anew; the turns of one second are a round."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server, and what it is measured for.

    Attributes:
        server: It, running.
        bodies: The file of the callbacks that are sent to it.
        cells: Returns its cells in a round.
    """

    server: Server
    bodies: Path
    cells: Callable[[int], list[Cell]]


def rounds_of(start: int) -> list[int]:
    """Return the rounds that are measured with the servers that are started for the nth time."""
    return [(start - 1) * TURNS + turn for turn in range(1, TURNS + 1)]


def take_turns(run: Run, contenders: Sequence[Contender], rounds: list[int]) -> None:
    """Measure all in turns, the other way round each time."""
    for contender in contenders:
        warm_up(contender.server, contender.bodies)
    for number in rounds:
        in_turn = contenders[:: 1 if number % 2 else -1]
        for cells in zip(*(each.cells(number) for each in in_turn), strict=True):
            for each, cell in zip(in_turn, cells, strict=True):
                take = partial(measure, each.server, each.bodies, connections=cell.connections)
                run.take(cell, partial(take, seconds=SECONDS))
