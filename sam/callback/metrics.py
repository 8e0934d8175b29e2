"""Prometheus metrics of events. Those of a state are in `inbox/collector.py`.

Series are looked up once, so that the hot path only adds. Every label has a closed set of values:
no request can add a series.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from sam.callback import __version__
from sam.callback.model import Outcome

PREFIX: Final = "sam_callback_"

OTHER: Final = "other"
"""The route of every path that is not told apart."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DEPLOYMENTS = (1, 2, 5, 10, 20, 50, 100)

# The time at which each series began, as a series of its own: twice the counters for what
# Prometheus finds out by itself. The library has one switch for the process.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's


class RefusalReason(StrEnum):
    """Reason for which a request was refused, or given up by its sender."""

    NO_KEY = "no_key"
    SEVERAL_KEYS = "several_keys"
    WRONG_KEY = "wrong_key"
    UNKNOWN_PATH = "unknown_path"
    WRONG_METHOD = "wrong_method"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    INVALID_BODY = "invalid_body"
    SENDER_HUNG_UP = "sender_hung_up"
    OVERLOADED = "overloaded"
    NOT_SAFE = "not_safe"
    SHUTDOWN = "shutdown"
    CRASH = "crash"
    BAD_REQUEST = "bad_request"
    HEADERS_TOO_SLOW = "headers_too_slow"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_HEADERS = "too_many_headers"
    URL_TOO_LONG = "url_too_long"
    TOO_MANY_PIPELINED = "too_many_pipelined"

    UNKNOWN = "unknown"
    """None was given."""


class CutReason(StrEnum):
    """Reason for which a connection was closed without an answer."""

    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_OPEN_FILES = "too_many_open_files"
    NOTHING_SENT = "nothing_sent"
    HANDSHAKE_TOO_SLOW = "handshake_too_slow"
    HANDSHAKE_FAILED = "handshake_failed"
    ANSWER_NOT_FETCHED = "answer_not_fetched"


class Source(StrEnum):
    """Source of a batch."""

    CALLBACK = "callback"
    """Of callbacks that wait for their answers."""

    REPLAY = "replay"
    """Of entries of the spool."""


class Replayed(StrEnum):
    """Result of a try to apply an entry of the spool."""

    APPLIED = "applied"
    """It is in the database."""

    SUPERSEDED = "superseded"
    """It was not written: the database has a later one."""

    UNMATCHED = "unmatched"
    """There is no such row yet."""

    DEAD_LETTER = "dead_letter"
    """The database refuses it for good, or its time is up."""

    FAILED = "failed"
    """It met a lock, a deadlock or an unknown error."""

    UNANSWERED = "unanswered"
    """The database failed before it answered."""


class BackgroundTask(StrEnum):
    """Task that runs as long as the service does; see `tasks.Supervisor`."""

    ACCEPT = "accept"
    """Accepts connections."""

    DEADLINES = "deadlines"
    """Closes connections whose time is up."""

    CONNECT = "connect"
    """Connects to the database."""

    WRITE = "write"
    """Writes batches of callbacks to the database."""

    EXPIRY = "expiry"
    """Lets callbacks that waited too long for the database go into the spool."""

    REPLAY = "replay"
    """Applies entries of the spool."""

    INBOX = "inbox"
    """Looks after the shared inbox: whether it answers, and what is to be moved there."""


class Metrics:
    """The metrics; one with a label is a dict of series by its values.

    Args:
        routes: The paths that requests are told apart by.
    """

    def __init__(self, routes: Collection[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info(f"{PREFIX}build", "The running version.", registry=registry).info(
            {"version": __version__}
        )
        callbacks = Counter(
            f"{PREFIX}callbacks",
            "Callbacks that were made durable, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.callbacks = {outcome: callbacks.labels(outcome.value) for outcome in Outcome}
        refusals = Counter(
            f"{PREFIX}refusals",
            "Requests that were refused, or given up by their sender, by why.",
            ["reason"],
            registry=registry,
        )
        self.refusals = {reason: refusals.labels(reason.value) for reason in RefusalReason}
        self._routes = frozenset(routes)
        self._request = Histogram(
            f"{PREFIX}request_duration_seconds",
            "From a request's head to the end of its answer.",
            ["route", "code"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._requests: dict[tuple[str, int], Histogram] = {}
        commit = Histogram(
            f"{PREFIX}commit_duration_seconds",
            "From asking for a database connection to the end of a batch's COMMIT.",
            ["source"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._commit = {source: commit.labels(source.value) for source in Source}
        batch_size = Histogram(
            f"{PREFIX}batch_size",
            "Deployments in a batch that was committed.",
            ["source"],
            registry=registry,
            buckets=_DEPLOYMENTS,
        )
        self._batch_size = {source: batch_size.labels(source.value) for source in Source}
        self.connections = Gauge(f"{PREFIX}connections", "Open connections.", registry=registry)
        self.connections_max = Gauge(
            f"{PREFIX}connections_max", "The most connections at a time.", registry=registry
        )
        cut = Counter(
            f"{PREFIX}connections_cut",
            "Connections that were closed without an answer, by why.",
            ["reason"],
            registry=registry,
        )
        self.connections_cut = {reason: cut.labels(reason.value) for reason in CutReason}
        self.payloads_refused = Counter(
            f"{PREFIX}payloads_refused",
            "Payloads that their column refused; the status was written without them.",
            registry=registry,
        )
        self.spool_write = Histogram(
            f"{PREFIX}spool_write_duration_seconds",
            "Writing a batch of callbacks to the spool, fsync included.",
            registry=registry,
            buckets=_SECONDS,
        )
        replayed = Counter(
            f"{PREFIX}replay_attempts",
            "Tries to apply an entry of the spool, by what they came to.",
            ["result"],
            registry=registry,
        )
        self.replayed = {result: replayed.labels(result.value) for result in Replayed}
        task_failures = Counter(
            f"{PREFIX}task_failures",
            "Exceptions of background tasks; each of them went on.",
            ["task"],
            registry=registry,
        )
        self.task_failures = {task: task_failures.labels(task.value) for task in BackgroundTask}

    def answered(self, path: str, http_status: int, seconds: float) -> None:
        """Count and time a request that has its answer."""
        key = (path if path in self._routes else OTHER, http_status // 100)
        request = self._requests.get(key)
        if request is None:
            route, hundreds = key
            request = self._requests[key] = self._request.labels(route, f"{hundreds}xx")
        request.observe(seconds)

    def committed(self, source: Source, deployments: int, seconds: float) -> None:
        """Count and time a batch that was committed."""
        self._commit[source].observe(seconds)
        self._batch_size[source].observe(deployments)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and its content type.

        Args:
            accept: The header of the request: OpenMetrics for those who ask for it, else
                Prometheus' own format.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
