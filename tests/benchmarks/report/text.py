"""Figures as a person reads them."""

import math

from tests.benchmarks.results import Figures, Spread, has_enough_answers, median
from tests.benchmarks.targets import Target

NOT_MEASURED = "–"


def number(value: float | None) -> str:
    """Write a number with three digits that count."""
    if value is None:
        return NOT_MEASURED
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 or value == 0 else f"{value:.2f}"


def of(figure: str, rounds: dict[int, Figures]) -> str:
    """Write the median of a figure."""
    return number(median(figure, rounds))


def latency(figure: str, rounds: dict[int, Figures], connections: int) -> str:
    """Write the median of a latency, where there were enough answers."""
    return of(figure, rounds) if has_enough_answers(rounds, connections) else NOT_MEASURED


def spread(value: Spread | None, unit: str = "") -> str:
    """Write a median with its spread."""
    if value is None:
        return NOT_MEASURED
    if math.isinf(value.median):
        return "too few answers"
    between = f" ({number(value.low)} to {number(value.high)})" if value.low < value.high else ""
    return f"{number(value.median)}{between} {unit}".rstrip()


def limit(target: Target) -> str:
    """Write what a target asks for."""
    if math.isinf(target.at_least):
        return f"at most {target.at_most:g}"
    return f"at least {target.at_least:g}"


def met(target: Target) -> str:
    """Write whether a target is met."""
    return "met" if target.is_met else "**missed**"


def errors(rounds: dict[int, Figures]) -> str:
    """Write the errors of all rounds."""
    kinds: dict[str, int] = {}
    for figures in rounds.values():
        for kind, count in figures.errors.items():
            kinds[kind] = kinds.get(kind, 0) + count
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "0"
