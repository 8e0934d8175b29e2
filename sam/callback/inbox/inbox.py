"""Inbox: takes callbacks, owns the parts that make them durable, and tells its state."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sam.callback.inbox.admission import AdmissionControl
from sam.callback.inbox.circuit_breaker import CircuitBreaker, CircuitState
from sam.callback.inbox.database_writer import DatabaseWriter, SharedReplay
from sam.callback.inbox.fallback_store import FallbackStore
from sam.callback.inbox.in_flight import InFlight
from sam.callback.inbox.recorder import Recorder
from sam.callback.inbox.replayer import Replayer
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sqlite.file import share_bytes
from sam.callback.inbox.sqlite.file_system import Disk
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.inbox.store import DEAD, Kind, Store, Total
from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask, Metrics
from sam.callback.model import Recorded
from sam.callback.settings import Settings
from sam.callback.storage.connector import DatabaseConnector, PoolStats
from sam.callback.storage.replay_lock import ReplayLock
from sam.callback.storage.robots import RobotRepository
from sam.callback.tasks import Supervisor

FINISH_SECONDS: Final = 1
"""How long callbacks that no sender waits for any more may take when the service ends."""

MAX_BYTES_IN_FLIGHT: Final = 2**24
"""What callbacks and bodies that wait for the disk may hold in memory together."""

_log = get_logger(__name__)


class Readiness(StrEnum):
    """Whether callbacks can be made durable."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"


class Database(StrEnum):
    """Whether the database takes writes."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    """None has been committed since the start, and none has failed."""


_DATABASE: Final = {
    CircuitState.UNKNOWN: Database.UNKNOWN,
    CircuitState.CLOSED: Database.UP,
    CircuitState.OPEN: Database.DOWN,
    CircuitState.HALF_OPEN: Database.DOWN,
}


@dataclass(frozen=True, slots=True)
class SharedState:
    """What is known of the shared inbox.

    Attributes:
        is_up: Whether it answers.
        totals: What there is of each kind, as of some seconds ago.
        pool: Its connections.
    """

    is_up: bool
    totals: dict[Kind, Total]
    pool: PoolStats

    @property
    def entries(self) -> dict[str, int]:
        """How many entries there are of each kind."""
        return {kind.value: total.entries for kind, total in self.totals.items()}


@dataclass(frozen=True, slots=True)
class State:
    """Known state, without a look-up: for readiness and metrics."""

    readiness: Readiness
    database: Database
    is_wrong_database: bool
    in_flight: int
    max_in_flight: int
    pool: PoolStats
    is_spool_writable: bool
    spool_totals: dict[Kind, Total]
    spool_max_bytes: int
    spool_dead_max_bytes: int
    spool_unmatched_max_bytes: int
    spool_disk: Disk | None
    shared: SharedState | None

    @property
    def spool_entries(self) -> dict[str, int]:
        """How many entries there are of each kind."""
        return {kind.value: total.entries for kind, total in self.spool_totals.items()}

    @property
    def spool_bytes(self) -> int:
        """The size of all entries, roughly."""
        return sum(total.bytes for total in self.spool_totals.values())


class Inbox:
    """Takes callbacks, and makes them durable.

    Args:
        settings: How.
        metrics: Where it counts; by default counted in vain.
        supervisor: Runs background tasks; by default their failures are only logged.

    Attributes:
        spool: What is kept on disk.
        shared: The shared inbox, if there is one.
        breaker: What is known of the database.
        database: Writes to the database.
        replayer: What applies the spool; where there is a shared inbox, while that is away.
        is_draining: Set when the service is about to end.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        metrics = metrics or Metrics()
        self._supervisor = supervisor or Supervisor(metrics, LogThrottle())
        self.breaker = CircuitBreaker()
        self._connector = DatabaseConnector(
            settings, self.breaker.connecting_failed, self._supervisor
        )
        sequence = Sequence()
        self.spool = Spool(
            settings.callback_spool_path, settings.callback_spool_max_bytes, sequence
        )
        self.database = DatabaseWriter(
            RobotRepository(self._connector, settings, metrics),
            self.breaker,
            metrics,
            max_writes=self._connector.size,
            time_limit=settings.callback_db_timeout,
            probe_time_limit=settings.sql_sam_login_timeout + settings.callback_db_timeout,
        )
        self._in_flight = InFlight()
        self.shared: SharedStore | None = None
        store: Store = self.spool
        if settings.callback_inbox_connection_string is not None:
            self.shared = SharedStore(
                settings, sequence, self._supervisor, size=self._connector.size + 1
            )
            store = self._fallback = FallbackStore(self.shared, self.spool, self._in_flight)
        self._admission = AdmissionControl(
            # One for each connection, and as many again whose senders have hung up.
            2 * settings.callback_max_connections,
            max(MAX_BYTES_IN_FLIGHT, settings.callback_max_body_bytes),
        )
        self._recorder = Recorder(
            self.database,
            store,
            self.breaker,
            sequence,
            self._in_flight,
            self._admission,
            metrics,
            time_limit=settings.callback_db_timeout,
        )
        self.replayer = Replayer(
            self.database,
            self.spool,
            self.breaker,
            self._in_flight,
            metrics,
            unmatched_ttl=settings.callback_unmatched_ttl,
            may_run=lambda: self.shared is None or not self.shared.is_writable,
            is_fallback=self.shared is not None,
        )
        if self.shared is not None:
            self._shared_replayer = Replayer(
                self.database,
                self.shared,
                self.breaker,
                self._in_flight,
                metrics,
                unmatched_ttl=settings.callback_unmatched_ttl,
                may_run=lambda: self._fallback.may_replay,
                shared=SharedReplay(ReplayLock(settings.callback_inbox_table), self.shared.stale),
            )
        self._keeps_payload = settings.sql_sam_payload_column is not None
        self._writing: list[asyncio.Task[None]] = []
        self._replaying: list[asyncio.Task[None]] = []
        self.is_draining = False

    async def open(self, *, replay: bool = True) -> None:
        """Open the spool and the pool; begin to replay, unless that is left to the caller."""
        driver = self._connector.driver
        _log.info("driver", driver=driver.name, reason=driver.reason)
        await self.spool.open()
        await self._connector.open()
        if self.shared is not None:
            await self.shared.open()
        run = self._supervisor.run
        self._writing = _start(
            run(BackgroundTask.EXPIRY, self._recorder.spool_expired),
            *(
                run(BackgroundTask.WRITE, self._recorder.write_batches)
                for _ in range(self._connector.size)
            ),
        )
        if replay:
            self._replaying = _start(
                self._probe_at_start(), run(BackgroundTask.REPLAY, self.replayer.run)
            )
        if replay and self.shared is not None:
            self._replaying += _start(
                run(BackgroundTask.INBOX, self.shared.watch),
                run(BackgroundTask.INBOX, self._fallback.run),
                run(BackgroundTask.REPLAY, self._shared_replayer.run),
            )

    async def close(self) -> None:
        """Finish what is under way, within limits, and close all."""
        await _end(self._replaying)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await self._recorder.finish()
        await _end(self._writing)
        await self._connector.close()
        if self.shared is not None:
            await self.shared.close()
        await self.spool.close()

    async def record(self, deployment_id: str, status: str, body: bytes) -> Recorded:
        """Make a callback durable; to be called as soon as its body is read.

        Raises:
            NotDurableError: If it could not be done.
        """
        payload = body if self._keeps_payload else None
        return await self._recorder.record(deployment_id, status, payload)

    async def keep_invalid(self, body: bytes, reason: str) -> None:
        """Keep a body that was not understood, for an operator.

        Raises:
            NotDurableError: If it could not be kept.
        """
        await self._recorder.keep_invalid(body, reason)

    def state(self) -> State:
        """Return what is known, without looking."""
        shared = self.shared
        writable = self.spool.is_writable
        is_inbox_up = shared is None or shared.is_writable
        database = _DATABASE[self.breaker.state]
        is_up = database is Database.UP
        if self.is_draining:
            readiness = Readiness.DRAINING
        elif not (is_up or writable or (shared is not None and is_inbox_up)):
            readiness = Readiness.UNAVAILABLE
        elif is_up and writable and is_inbox_up and not self.breaker.is_wrong_database:
            readiness = Readiness.OK
        else:
            readiness = Readiness.DEGRADED
        return State(
            readiness=readiness,
            database=database,
            is_wrong_database=self.breaker.is_wrong_database,
            in_flight=self._admission.count,
            max_in_flight=self._admission.max_count,
            pool=self._connector.stats(),
            is_spool_writable=writable,
            spool_totals=self.spool.totals,
            spool_max_bytes=self.spool.max_bytes,
            spool_dead_max_bytes=share_bytes(DEAD, self.spool.max_bytes),
            spool_unmatched_max_bytes=share_bytes((Kind.UNMATCHED,), self.spool.max_bytes),
            spool_disk=self.spool.disk,
            shared=None
            if shared is None
            else SharedState(shared.is_writable, shared.totals, shared.stats()),
        )

    async def _probe_at_start(self) -> None:
        """Find out at the start, not with the first callback, whether the table can be written."""
        if await self.database.probe():
            self.breaker.committed()


def _start(*work: Coroutine[object, object, None]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(each) for each in work]


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
