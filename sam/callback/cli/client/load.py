"""Load: many callbacks, at a rate or over so many connections, and the count of their answers."""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from sam.callback.cli.client.answers import Fault, NotTakenError
from sam.callback.cli.client.callback_client import CallbackClient
from sam.callback.cli.client.latency import LatencyHistogram
from sam.callback.model import Outcome

_PAUSE_SECONDS: Final = 0.5
"""After a failure, where no rate says when the next one is due: or a service that is restarted
would be sent a thousand callbacks while it is away."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send; it ends with `count` or `seconds`, whichever comes first.

    Attributes:
        count: How many callbacks.
        seconds: How long callbacks are begun, or are due.
        rate: Callbacks a second; None is as fast as the answers come.
    """

    count: int | None
    seconds: float | None
    rate: float | None

    @property
    def expected(self) -> int | None:
        """How many callbacks it takes, where that is known."""
        if self.rate is None or self.seconds is None:
            return self.count
        due = math.ceil(self.rate * self.seconds)
        return due if self.count is None else min(due, self.count)

    def part_done(self, answered: int, seconds: float) -> float:
        """Return how much of it is done, from 0 to 1."""
        parts = [answered / self.expected] if self.expected else []
        if self.seconds is not None and self.rate is None:
            parts.append(seconds / self.seconds)
        return min(max(parts), 1.0)


@dataclass(slots=True)
class Tally:
    """What became of the callbacks so far; its size does not depend on their number.

    Attributes:
        sent: How many were begun.
        outcomes: How many were answered 2xx, by outcome.
        faults: How many were not, by fault.
        examples: The first message of each fault.
        latency: Of those that were answered 2xx; from when each was due, if there is a rate.
        started: When it began, on `perf_counter`'s clock.
        ended: When the last answer came.
    """

    sent: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    examples: dict[Fault, str] = field(default_factory=dict)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    started: float = field(default_factory=perf_counter)
    ended: float = field(default_factory=perf_counter)

    @property
    def answered(self) -> int:
        """How many are settled, one way or the other."""
        return self.outcomes.total() + self.faults.total()

    @property
    def seconds(self) -> float:
        """From the beginning to the last answer."""
        return self.ended - self.started


async def send_load(
    clients: Sequence[CallbackClient], bodies: Iterator[bytes], plan: Plan, tally: Tally
) -> None:
    """Send what the plan says, and count the answers.

    The first callback goes alone.

    Args:
        clients: One for each connection.
        bodies: What to send; it does not end.
        plan: How many, how fast, how long.
        tally: What counts.

    Raises:
        NotTakenError: If the first one is not taken: no other is sent then.
    """
    await _send_one(clients[0], next(bodies), tally, due=perf_counter())
    numbers = itertools.count(1)
    begun = perf_counter()

    async def keep_sending(client: CallbackClient) -> None:
        for number in numbers:
            after = perf_counter() - begun if plan.rate is None else number / plan.rate
            if plan.count is not None and number >= plan.count:
                return
            if plan.seconds is not None and after >= plan.seconds:
                return
            due = begun + after
            # One that is late is sent at once, and measured from when it was due: a service that
            # stands still must not hide that from those that would have come meanwhile.
            await asyncio.sleep(max(0.0, due - perf_counter()))
            try:
                await _send_one(client, next(bodies), tally, due=due)
            except NotTakenError:
                if plan.rate is None:
                    await asyncio.sleep(_PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(keep_sending(client))


async def _send_one(client: CallbackClient, body: bytes, tally: Tally, *, due: float) -> None:
    tally.sent += 1
    try:
        answer = await client.post(body)
    except NotTakenError as error:
        tally.faults[error.fault] += 1
        tally.examples.setdefault(error.fault, str(error))
        raise
    else:
        tally.outcomes[answer.outcome] += 1
        tally.latency.record(perf_counter() - due)
    finally:
        tally.ended = perf_counter()
