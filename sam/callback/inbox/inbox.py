"""Inbox: takes callbacks, and owns the parts that make them durable."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Final

from sam.callback.inbox.admission import AdmissionControl
from sam.callback.inbox.circuit_breaker import CircuitBreaker
from sam.callback.inbox.database_writer import DatabaseWriter, SharedReplay
from sam.callback.inbox.expiry import Expiry
from sam.callback.inbox.fallback_store import FallbackStore
from sam.callback.inbox.in_flight import InFlight
from sam.callback.inbox.readiness import Readiness, readiness_of
from sam.callback.inbox.recorder import Recorder
from sam.callback.inbox.replayer import Replayer
from sam.callback.inbox.sequence import Sequence
from sam.callback.inbox.sql.shared_store import SharedStore
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import BackgroundTask, Metrics
from sam.callback.model import Recorded
from sam.callback.settings import Settings
from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.connector import DatabaseConnector, PoolStats
from sam.callback.storage.replay_lock import ReplayLock
from sam.callback.storage.robots import RobotRepository
from sam.callback.tasks import Supervisor

FINISH_SECONDS: Final = 1
"""Seconds for callbacks that no sender waits for any more, when the service ends."""

MAX_BYTES_IN_FLIGHT: Final = 2**24
"""Memory for the callbacks and bodies in flight together."""

_log = get_logger(__name__)


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
        admission: What is in flight, and the bounds.
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
            ConnectionSettings.of_sam(settings), self.breaker.connecting_failed, self._supervisor
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
        store: Spool | FallbackStore = self.spool
        if settings.callback_inbox_connection_string is not None:
            self.shared = SharedStore(
                settings, sequence, self._supervisor, size=self._connector.size + 1
            )
            store = self._fallback = FallbackStore(self.shared, self.spool, self._in_flight)
        self.admission = AdmissionControl(
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
            self.admission,
            metrics,
            time_limit=settings.callback_db_timeout,
            is_shared=self.shared is not None,
        )
        expiry = Expiry(settings.callback_unmatched_ttl, self.breaker)
        self.replayer = Replayer(
            self.database,
            self.spool,
            self.breaker,
            self._in_flight,
            expiry,
            metrics,
            may_run=lambda: self.shared is None or not self.shared.is_writable,
            is_fallback=self.shared is not None,
        )
        if self.shared is not None:
            self._shared_replayer = Replayer(
                self.database,
                self.shared,
                self.breaker,
                self._in_flight,
                expiry,
                metrics,
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
            run(BackgroundTask.EXPIRY, self._recorder.store_expired),
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

    def readiness(self) -> Readiness:
        """Return whether callbacks can be made durable, by what is known, without a look."""
        if self.is_draining:
            return Readiness.DRAINING
        return readiness_of(self.breaker, self.spool, self.shared)

    @property
    def pool(self) -> PoolStats:
        """How busy the database's connections are."""
        return self._connector.stats()

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
