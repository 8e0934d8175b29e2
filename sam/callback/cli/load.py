"""Load generator: callbacks at a rate, or as fast as they are answered, and a tally of answers."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import quantiles
from time import perf_counter

import httpx

from sam.callback.cli.client import Fault, NotTakenError, Target
from sam.callback.model import Outcome


@dataclass(slots=True)
class Tally:
    """Callbacks so far, and their answers.

    Attributes:
        sent: How many were begun.
        outcomes: How many were answered 2xx, by outcome.
        faults: How many were not, by fault.
        examples: The first message of each fault.
        latencies: Seconds of those that were answered 2xx; from when each was due, at a rate.
        started: When it began, on `perf_counter`'s clock.
        ended: When the last answer came.
    """

    sent: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    examples: dict[Fault, str] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    started: float = field(default_factory=perf_counter)
    ended: float = field(default_factory=perf_counter)

    @property
    def answered(self) -> int:
        """How many are settled, one way or the other."""
        return self.outcomes.total() + self.faults.total()

    def milliseconds(self) -> dict[str, float] | None:
        """Return percentiles and the maximum of the latencies; None if there are none."""
        if not self.latencies:
            return None
        values = self.latencies * (2 if len(self.latencies) == 1 else 1)  # of one there are none
        cuts = quantiles(values, n=100, method="inclusive")
        named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(self.latencies)}
        return {name: round(seconds * 1000, 3) for name, seconds in named.items()}

    def summary(self) -> dict[str, object]:
        """Return it as JSON has it."""
        seconds = self.ended - self.started
        return {
            "callbacks": self.answered,
            "seconds": round(seconds, 3),
            "perSecond": round(self.answered / seconds, 1) if seconds else 0.0,
            "outcomes": dict(self.outcomes),
            "failures": {fault.label: number for fault, number in self.faults.items()},
            "latencyMs": self.milliseconds(),
            "messages": list(self.examples.values()),
            "notWaitedFor": self.sent - self.answered,
        }


def schedule(count: float, seconds: float, rate: float | None) -> Iterator[float]:
    """Yield when each callback but the first is due, on `perf_counter`'s clock from its own start.

    Args:
        count: How many callbacks, with the first.
        seconds: How long.
        rate: Callbacks a second; None is as fast as the answers come.
    """
    begun = perf_counter()
    for number in itertools.count(1):
        after = number / rate if rate else perf_counter() - begun
        if number >= count or after >= seconds:
            return
        yield begun + after


async def send_load(
    target: Target,
    bodies: Iterator[bytes],
    due_times: Iterator[float],
    tally: Tally,
    *,
    connections: int,
    pause: float = 0.0,
    on_answer: Callable[[], object] = lambda: None,
) -> None:
    """Send one callback and, once it is answered, as many as `due_times` has.

    Args:
        target: The service.
        bodies: What to send; as many as it takes.
        due_times: When each but the first is due.
        tally: What counts the answers.
        connections: How many callbacks may be under way at once.
        pause: Seconds that a connection waits after a failure.
        on_answer: Is called whenever a callback is settled.

    Raises:
        NotTakenError: If the first one is not taken: no other is sent then.
    """

    async def send_one(client: httpx.AsyncClient, due: float) -> None:
        tally.sent += 1
        try:
            answer = await target.post(client, next(bodies))
        except NotTakenError as error:
            tally.faults[error.fault] += 1
            tally.examples.setdefault(error.fault, str(error))
            raise
        else:
            tally.outcomes[answer.outcome] += 1
            tally.latencies.append(perf_counter() - due)
        finally:
            tally.ended = perf_counter()
            on_answer()

    async def keep_sending(client: httpx.AsyncClient) -> None:
        for due in due_times:
            # One that is late is sent at once, and measured from when it was due: a service that
            # stands still must not hide that from those that would have come meanwhile.
            await asyncio.sleep(max(0.0, due - perf_counter()))
            try:
                await send_one(client, due)
            except NotTakenError:
                await asyncio.sleep(pause)

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(target.client()) for _ in range(connections)]
        await send_one(clients[0], perf_counter())
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(keep_sending(client))
