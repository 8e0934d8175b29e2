"""The circuit opens for a database that is away, and not for one connection that is late."""

import time

import pytest

from sam.callback.inbox.circuit_breaker import CircuitBreaker, CircuitState
from sam.callback.storage.errors import (
    ConnectionLostError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    NoConnectionError,
)

LATE = DatabaseTimeoutError("The database did not answer in time.")
GONE = ConnectionLostError("gone")


def states_after(breaker: CircuitBreaker, *steps: str) -> list[str]:
    """Take steps, and tell the state after each: what fails began at the last `begin`."""
    begun = time.monotonic()
    states: list[str] = []
    for step in steps:
        match step:
            case "begin":
                begun = time.monotonic()
                continue
            case "commit":
                breaker.committed()
            case "probe":
                breaker.probed()
            case "late":
                breaker.failed(LATE, begun)
            case "late probe":
                breaker.failed(LATE, begun, is_probe=True)
            case "gone":
                breaker.failed(GONE, begun)
            case "no connection":
                breaker.connecting_failed(GONE, begun)
            case _:
                assert step == "busy"
                breaker.failed(NoConnectionError("busy"), begun)
        states.append(breaker.state)
    return states


@pytest.mark.parametrize(
    ("steps", "states"),
    [
        pytest.param(["commit"], ["closed"], id="up is only after a commit"),
        pytest.param(["gone"], ["open"], id="away at the start"),
        pytest.param(["commit", "begin", "late"], ["closed", "open"], id="silent"),
        pytest.param(["commit", "begin", "gone"], ["closed", "open"], id="away"),
        pytest.param(
            ["commit", "begin", "commit", "late"], ["closed"] * 3, id="others commit meanwhile"
        ),
        pytest.param(["commit", "begin", "busy"], ["closed"] * 2, id="no connection is free"),
        pytest.param(["commit", "begin", "no connection"], ["closed", "open"], id="no connection"),
        pytest.param(
            ["begin", "commit", "no connection"], ["closed"] * 2, id="none before others commit"
        ),
        pytest.param(["begin", "late", "late"], ["unknown"] * 2, id="cold connections, together"),
        pytest.param(
            ["begin", "late", "begin", "late"], ["unknown", "open"], id="silent at the start"
        ),
        pytest.param(["begin", "late probe"], ["open"], id="silent at the start, as a probe says"),
        pytest.param(["begin", "commit", "late probe"], ["closed"] * 2, id="a late probe"),
        pytest.param(["gone", "probe", "commit"], ["open", "half_open", "closed"], id="back again"),
        pytest.param(
            ["gone", "probe", "begin", "late"],
            ["open", "half_open", "open"],
            id="a probe proves little",
        ),
        pytest.param(["commit", "begin", "gone", "late"], ["closed", "open", "open"], id="both"),
    ],
)
def test_the_circuit_opens_and_closes(steps: list[str], states: list[str]) -> None:
    assert states_after(CircuitBreaker(), *steps) == states


def test_writes_begun_before_the_outage_do_not_put_off_the_probe() -> None:
    breaker = CircuitBreaker()
    begun = time.monotonic()
    for _ in range(10):
        breaker.failed(DatabaseUnavailableError("gone"), begun)
    assert breaker.failures == 1
    assert breaker.seconds_to_probe <= 0.1


@pytest.mark.parametrize("state", CircuitState)
def test_callbacks_are_written_unless_it_is_open(state: CircuitState) -> None:
    breaker = CircuitBreaker()
    breaker.state = state
    assert breaker.takes_callbacks is (state in {CircuitState.CLOSED, CircuitState.UNKNOWN})
