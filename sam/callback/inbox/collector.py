"""Prometheus collector: the inbox's known state as gauges, with no look-up at a scrape."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.readiness import DatabaseState, database_state
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sqlite.file import share_bytes
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.inbox.store import DEAD, Kind, Total
from sam.callback.metrics import PREFIX

_NS: Final = 1_000_000_000


class InboxCollector(Collector):
    """Yields one gauge for each figure of an inbox's known state.

    Args:
        inbox: The inbox.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def collect(self) -> Iterable[Metric]:
        """Return the gauges as of now."""
        inbox = self._inbox
        yield from _of_database(inbox)
        yield from _of_spool(inbox.spool)
        if inbox.shared is not None:
            yield from _of_shared_inbox(inbox.shared)


def _of_database(inbox: Inbox) -> Iterable[Metric]:
    pool = inbox.pool
    yield _gauge(
        "database_up",
        "Whether writes to the database are committed (1), or fail or none was tried yet (0).",
        database_state(inbox.breaker) is DatabaseState.UP,
    )
    yield _gauge(
        "no_row_matches",
        "Whether many callbacks met no row, and not one its own, since the start.",
        inbox.breaker.is_wrong_database,
    )
    yield _gauge(
        "callbacks_in_flight",
        "Callbacks, and bodies not understood, that wait to be durable.",
        inbox.admission.count,
    )
    yield _gauge(
        "callbacks_in_flight_max",
        "Above so many in flight, callbacks are refused as overloaded.",
        inbox.admission.max_count,
    )
    yield _gauge(
        "pool_connections_in_use", "Database connections at work, or being made.", pool.in_use
    )
    yield _gauge("pool_connections_max", "The most database connections at a time.", pool.size)
    yield _gauge(
        "pool_requests_waiting", "Batches and probes that wait for a connection.", pool.waiting
    )


def _of_spool(spool: Spool) -> Iterable[Metric]:
    yield _gauge(
        "spool_writable",
        "Whether the spool can be used: the last write succeeded, and no read failed since.",
        spool.is_writable,
    )
    yield from _of_totals("spool", "the spool", spool.totals)
    yield _by_kind(
        "spool_bytes",
        "Size of the spool's entries, roughly.",
        {kind: total.bytes for kind, total in spool.totals.items()},
    )
    yield _gauge("spool_max_bytes", "The largest size of the spool.", spool.max_bytes)
    yield _gauge(
        "spool_dead_letters_max_bytes",
        "The share of it for dead letters and invalid bodies together.",
        share_bytes(DEAD, spool.max_bytes),
    )
    yield _gauge(
        "spool_unmatched_max_bytes",
        "The share of it for unmatched callbacks.",
        share_bytes((Kind.UNMATCHED,), spool.max_bytes),
    )
    if disk := spool.disk:  # it is not known before the spool was opened
        yield _gauge("spool_disk_free_bytes", "Free space on the spool's volume.", disk.free)
        yield _gauge("spool_disk_size_bytes", "Size of the spool's volume.", disk.size)


def _of_shared_inbox(shared: SharedStore) -> Iterable[Metric]:
    yield _gauge("inbox_up", "Whether the shared inbox answers.", shared.is_writable)
    yield from _of_totals("inbox", "the shared inbox", shared.totals)
    yield _gauge(
        "inbox_connections_in_use",
        "Connections to the shared inbox at work, or being made.",
        shared.stats().in_use,
    )


def _of_totals(prefix: str, store: str, totals: Mapping[Kind, Total]) -> Iterable[Metric]:
    yield _by_kind(
        f"{prefix}_entries",
        f"Entries of {store}.",
        {kind: total.entries for kind, total in totals.items()},
    )
    yield _by_kind(
        f"{prefix}_oldest_entry_age_seconds",
        f"Time since the oldest entry of {store} was received; 0 where there is none.",
        {kind: _age(total.oldest) for kind, total in totals.items()},
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
