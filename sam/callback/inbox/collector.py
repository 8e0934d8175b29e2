"""Prometheus collector: the inbox's known state as gauges, with no look-up at a scrape."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sam.callback.inbox.inbox import Database, Inbox, SharedState
from sam.callback.inbox.store import Kind
from sam.callback.metrics import PREFIX

_NS: Final = 1_000_000_000


class InboxCollector(Collector):
    """Yields one gauge for each figure of `Inbox.state`.

    Args:
        inbox: Whose state it is.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def collect(self) -> Iterable[Metric]:
        """Return the gauges as of now."""
        state = self._inbox.state()
        pool, disk, totals = state.pool, state.spool_disk, state.spool_totals
        yield _gauge(
            "database_up",
            "Whether writes to the database are committed (1), or fail or none was tried yet (0).",
            state.database is Database.UP,
        )
        yield _gauge(
            "no_row_matches",
            "Whether many callbacks met no row, and not one its own, since the start.",
            state.is_wrong_database,
        )
        yield _gauge(
            "callbacks_in_flight",
            "Callbacks, and bodies not understood, that wait to be durable.",
            state.in_flight,
        )
        yield _gauge(
            "callbacks_in_flight_max",
            "Above so many in flight, callbacks are refused as overloaded.",
            state.max_in_flight,
        )
        yield _gauge(
            "pool_connections_in_use", "Database connections at work, or being made.", pool.in_use
        )
        yield _gauge("pool_connections_max", "The most database connections at a time.", pool.size)
        yield _gauge(
            "pool_requests_waiting", "Batches and probes that wait for a connection.", pool.waiting
        )
        yield _gauge(
            "spool_writable",
            "Whether the spool can be used: the last write succeeded, and no read failed since.",
            state.is_spool_writable,
        )
        yield _by_kind(
            "spool_entries",
            "Entries of the spool.",
            {kind: total.entries for kind, total in totals.items()},
        )
        yield _by_kind(
            "spool_bytes",
            "Size of the spool's entries, roughly.",
            {kind: total.bytes for kind, total in totals.items()},
        )
        yield _by_kind(
            "spool_oldest_entry_age_seconds",
            "Time since the oldest entry of the spool was received; 0 where there is none.",
            {kind: _age(total.oldest) for kind, total in totals.items()},
        )
        yield _gauge("spool_max_bytes", "The largest size of the spool.", state.spool_max_bytes)
        yield _gauge(
            "spool_dead_letters_max_bytes",
            "The share of it for dead letters and invalid bodies together.",
            state.spool_dead_max_bytes,
        )
        yield _gauge(
            "spool_unmatched_max_bytes",
            "The share of it for unmatched callbacks.",
            state.spool_unmatched_max_bytes,
        )
        if state.shared is not None:
            yield from _of_shared_inbox(state.shared)
        if disk is not None:  # it is not known before the spool was opened
            yield _gauge("spool_disk_free_bytes", "Free space on the spool's volume.", disk.free)
            yield _gauge("spool_disk_size_bytes", "Size of the spool's volume.", disk.size)


def _of_shared_inbox(state: SharedState) -> Iterable[Metric]:
    yield _gauge("inbox_up", "Whether the shared inbox answers.", state.is_up)
    yield _by_kind(
        "inbox_entries",
        "Entries of the shared inbox; every instance tells the same.",
        {kind: total.entries for kind, total in state.totals.items()},
    )
    yield _by_kind(
        "inbox_oldest_entry_age_seconds",
        "Time since the oldest entry of the shared inbox was received; 0 where there is none.",
        {kind: _age(total.oldest) for kind, total in state.totals.items()},
    )
    yield _gauge(
        "inbox_connections_in_use",
        "Connections to the shared inbox at work, or being made.",
        state.pool.in_use,
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _by_kind(name: str, text: str, values: Mapping[Kind, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=["kind"])
    for kind, value in values.items():
        family.add_metric([kind.value], value)
    return family


def _age(number: int | None) -> float:
    """Return the seconds since a sequence number; a clock that was set back makes it 0."""
    return 0.0 if number is None else max(0, time.time_ns() - number) / _NS
