"""Whether the time of a refusal tells anything of the key.

``python -m tests.benchmarks.key_timing`` times ApiKeyMiddleware itself, on one thread, for wrong
keys in turns: in every round each of them once, in an order drawn anew. What a network adds would
only hide what is looked for. Each kind of call has many copies, made in turns, too: where an object
lies in memory is worth a nanosecond or two.

Each question compares kinds of calls with a first one. The slowest tenth is dropped, by one bound
for all of a question: it is the machine's. Then come the differences of the medians and of the
means, in ns, and Welch's t for the means; beyond 4.5 either way is what is taken for a leak
(Goodwill et al., "A testing methodology for side-channel resistance validation", NIST, 2011). Two
questions are controls: the same key twice must show no difference, and a comparison that stops at
the first wrong character must show one, or the method would see nothing.
"""

import functools
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam.callback.service.access_log import log_fields
from sam.callback.service.api_key import ApiKeyMiddleware

KEY: Final = "Zq7xW2mKc9LrT4vNb8YhD3sFg6JpA1eU"
LENGTHS: Final = (8, 32, 64, 512)
KEPT: Final = 0.9
LEAK_T: Final = 4.5

COPIES: Final = 256

Call = Callable[[], None]


@dataclass(frozen=True)
class Question:
    """A question, and makers of the calls to compare: the first with each of the others."""

    text: str
    makers: dict[str, Callable[[], Call]]


async def _unreachable_app(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError("a wrong key got in")


async def _receive() -> Message:
    raise AssertionError("the body was asked for")


async def _send(_message: Message) -> None:
    return


def refusal(
    guess: str,
    *,
    key: str = KEY,
    middleware_class: type[ApiKeyMiddleware] = ApiKeyMiddleware,
) -> Call:
    """Make the call that refuses a wrong key."""
    middleware = middleware_class(_unreachable_app, keys={"current": SecretStr(key)})
    headers = [(b"host", b"x"), (b"x-api-key", guess.encode()), (b"content-length", b"120")]

    def call() -> None:
        scope = {"type": "http", "method": "POST", "path": "/callback", "headers": headers}
        steps = middleware(scope, _receive, _send)
        try:
            steps.send(None)  # it awaits nothing that waits
        except StopIteration:
            return
        raise AssertionError("it waited")

    return call


class StopsAtTheFirstDifference(ApiKeyMiddleware):
    """The control: a comparison that stops at the first difference."""

    def __init__(self, app: ASGIApp, *, keys: Mapping[str, SecretStr]) -> None:
        super().__init__(app, keys=keys)
        [key] = keys.values()
        self._key = key.get_secret_value().encode()

    def _has_key(self, scope: Scope) -> bool:
        given: bytes = dict(scope["headers"])[b"x-api-key"]
        for ours, theirs in zip(self._key, given, strict=False):
            if ours != theirs:
                break
        log_fields(scope)["reason"] = "wrong_key"
        return False


def sharing(characters: int) -> str:
    """A wrong key as long as the right one, which begins with so many of its characters."""
    return KEY[:characters] + "".join(
        chr((ord(c) - 0x21 + 47) % 94 + 0x21) for c in KEY[characters:]
    )


def questions() -> list[Question]:
    """All questions of a run."""
    kind = functools.partial  # of call
    names = {
        "no character right": sharing(0),
        "half of them": sharing(len(KEY) // 2),
        "all but the last": sharing(len(KEY) - 1),
    }
    return [
        Question(
            "How much of the key is right?",
            {name: kind(refusal, guess) for name, guess in names.items()},
        ),
        Question(
            "How long is the key that is right?",
            {f"{n} characters": kind(refusal, "x" * 32, key=(KEY * 16)[:n]) for n in LENGTHS},
        ),
        Question(
            "How long is the key that was sent? (who sends it knows)",
            {f"{n} characters": kind(refusal, "x" * n) for n in LENGTHS},
        ),
        Question(
            "Control: the same key, twice",
            {name: kind(refusal, sharing(0)) for name in ("one", "the other")},
        ),
        Question(
            "Control: a comparison that stops at the first difference",
            {
                name: kind(refusal, guess, middleware_class=StopsAtTheFirstDifference)
                for name, guess in names.items()
            },
        ),
    ]


def measure(question: Question, rounds: int) -> dict[str, list[int]]:
    """Time each call once in every round; return the ns of each."""
    times: dict[str, list[int]] = {name: [] for name in question.makers}
    copies: list[dict[str, Call]] = []
    for _ in range(COPIES):
        names = random.sample(list(question.makers), len(question.makers))
        copies.append({name: question.makers[name]() for name in names})
    now = time.perf_counter_ns
    for round_number in range(-rounds // 10, rounds):
        for name in random.sample(list(times), len(times)):
            call = random.choice(copies)[name]  # noqa: S311 - not a secret
            call()  # so that it finds the caches as its own kind left them
            started = now()
            call()
            ended = now()
            if round_number >= 0:
                times[name].append(ended - started)
    return times


def without_slowest(times: dict[str, list[int]]) -> dict[str, list[int]]:
    """Drop what is slower than nine tenths of all that was measured."""
    every = sorted(each for group in times.values() for each in group)
    bound = every[int(len(every) * KEPT) - 1]
    return {name: [each for each in group if each <= bound] for name, group in times.items()}


def welch_t(one: list[int], other: list[int]) -> tuple[float, float]:
    """Return Welch's t, and the standard error of the difference of the means."""
    error = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    return (statistics.fmean(other) - statistics.fmean(one)) / error, error


def main(
    rounds: Annotated[int, typer.Option(help="Calls of each kind, for each question.")] = 200_000,
) -> None:
    """Ask every question, and print what the times say."""
    gc.disable()
    typer.echo(f"{rounds} calls of each kind; the slowest tenth is dropped")
    for question in questions():
        times = without_slowest(measure(question, rounds))
        gc.collect()
        typer.echo(f"\n{question.text}")
        (first, base), *others = times.items()
        typer.echo(f"  {first:20} median {statistics.median(base):7.0f} ns")
        for name, group in others:
            t, error = welch_t(base, group)
            medians = statistics.median(group) - statistics.median(base)
            means = statistics.fmean(group) - statistics.fmean(base)
            difference = "differs" if abs(t) > LEAK_T else "no difference to be seen"
            typer.echo(
                f"  {name:20} median {statistics.median(group):7.0f} ns  "
                f"medians {medians:+6.0f} ns  means {means:+7.1f} ± {1.96 * error:.1f} ns  "
                f"t {t:+7.1f}  {difference}"
            )


if __name__ == "__main__":
    typer.run(main)
