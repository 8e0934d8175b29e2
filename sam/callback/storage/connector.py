"""The database connections: aioodbc's pool, and what a pool needs to live through failure.

What is reached into of aioodbc is reached into here alone: `Connection._conn`, its connection of
pyodbc, since no public call runs a function of ours on a connection's thread. After its first use a
`Session` stands in its place, so that whoever closes the one closes the other.
`tests/test_the_pool_lives_through_failure.py` would notice a release that changes this.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aioodbc
import pyodbc

from sam.callback.logs import get_logger
from sam.callback.settings import Settings
from sam.callback.storage.connection_string import connection_string
from sam.callback.storage.errors import (
    CHECK_THE_SERVER,
    ConnectionLostError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    KeyRuleChangedError,
    LoginRefusedError,
    PoolExhaustedError,
    advice_on,
    describe,
    is_connection_lost,
    is_login_refused,
)
from sam.callback.storage.gate import Gate
from sam.callback.storage.key_rule import EXACT, KeyRule
from sam.callback.storage.session import Identity, Session, close
from sam.callback.storage.statements import Table
from sam.callback.storage.transaction import Work, work_on
from sam.callback.threads import DaemonThreadPool

MAX_IDLE_SECONDS: Final = 180
"""A connection idle for longer is not used again: firewalls forget a silent one in 240 s or so."""

LOCK_TIMEOUT_SHARE: Final = 0.25
"""The lock time-out as a share of CALLBACK_DB_TIMEOUT, so that the other rows have time left."""

CLOSE_SECONDS: Final = 1
"""How long closing may take; connections that the server does not let go of are left."""

_log = get_logger(__name__)

T = TypeVar("T")

# The driver manager's own pool would hand out dead connections behind ours.
pyodbc.pooling = False


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The connections now.

    Attributes:
        size: The most in use at a time.
        in_use: At work, or being made.
        waiting: Calls that wait for one.
    """

    size: int
    in_use: int
    waiting: int


class DatabaseConnector:
    """Owns the connections to SAM's database. One per process, opened and closed by the lifespan.

    Attributes:
        driver: The ODBC driver.
        caveat: What of the settings the driver does not do; '' if it does all.
        size: The most connections in use at a time.
        key_rule: Which deployment ids the database takes for the same, by the newest connection.

    Args:
        settings: Of the database.
        on_connect_failed: Is told why a connection could not be made, where no call of `run` is.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        on_connect_failed: Callable[[DatabaseUnavailableError], object] = lambda _: None,
    ) -> None:
        self._on_connect_failed = on_connect_failed
        self.key_rule = EXACT
        self._connection_string = connection_string(settings)
        self.driver = self._connection_string.driver
        self.caveat = self._connection_string.caveat
        # SQLite has one lock for the whole file: more writers would only wait for one another.
        self.size = 1 if self.driver.is_sqlite else settings.sql_sam_pool_max
        self._table = Table.of(settings)
        self._login_timeout = settings.sql_sam_login_timeout
        self._lock_timeout = settings.callback_db_timeout * LOCK_TIMEOUT_SHARE
        # aioodbc's `acquire` waits without limit, and a connection that is closed when it comes
        # back wakes no waiter: nobody may have to wait there.
        self._slots = asyncio.Semaphore(self.size)
        self._in_use = 0
        self._waiting = 0
        # As many again for threads that were given up and still wait in the driver.
        self._threads = DaemonThreadPool(2 * self.size, "odbc")
        self._releases: set[asyncio.Task[None]] = set()
        self._pool: aioodbc.Pool | None = None
        self._identity: Identity | None = None

    async def open(self) -> None:
        """Make the pool. It connects when it must: a database that is down stops no start."""
        self._pool = await aioodbc.create_pool(
            dsn=self._connection_string.text,
            minsize=0,
            maxsize=self.size,
            # Its own recycling drops whatever comes back while it closes another (aioodbc 0.5),
            # and counts from a connection's making, not from its last use.
            pool_recycle=-1,
            executor=self._threads,
            timeout=math.ceil(self._login_timeout),
            autocommit=False,
        )

    async def close(self) -> None:
        """Close the connections that can be closed within `CLOSE_SECONDS`."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.close()
        with contextlib.suppress(TimeoutError, pyodbc.Error):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._releases)
                await pool.wait_closed()
        self._threads.shutdown()

    async def run(self, work: Work[T], *, timeout: float, key_rule: KeyRule | None = None) -> T:
        """Run `work` on a connection's thread, in one hop.

        A connection that turns out to be dead, as all are after the server has restarted, is
        replaced once.

        Args:
            work: Executes and commits; what it has not committed is rolled back.
            timeout: Seconds for all of it: waiting for a connection, connecting, working.
            key_rule: What `self.key_rule` has to be when the work begins, if that matters to it.

        Raises:
            KeyRuleChangedError: If it is not; the work has not begun.
            DatabaseTimeoutError: If time ran out. No COMMIT begins after that; how one that was
                under way ended is not known.
            DatabaseUnavailableError: If there is no connection, or the work let out an ODBC error.
        """
        if key_rule not in {None, self.key_rule}:
            raise KeyRuleChangedError
        return await self._run(work, asyncio.get_running_loop().time() + timeout)

    def stats(self) -> PoolStats:
        """Return how busy the pool is."""
        return PoolStats(self.size, self._in_use, self._waiting)

    async def _run(self, work: Work[T], deadline: float) -> T:
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise PoolExhaustedError(
                f"All {self.size} connections to the database were busy for too long."
            ) from None
        finally:
            self._waiting -= 1
        self._in_use += 1
        try:
            connection = await self._acquire_trusted(deadline)
            # Whether it was just made is not known: the pool may have made it for another call.
            with contextlib.suppress(ConnectionLostError):
                return await self._run_on(connection, work, deadline)
            # The others idle here are as old as this one, and likely as dead.
            await self._drop_idle(deadline)
            return await self._run_on(await self._acquire(deadline), work, deadline)
        finally:
            self._in_use -= 1
            self._slots.release()

    async def _acquire_trusted(self, deadline: float) -> aioodbc.Connection:
        """Acquire a connection that has not been idle for too long."""
        while True:
            connection = await self._acquire(deadline)
            opened = connection._conn  # noqa: SLF001 - see above
            if not isinstance(opened, Session) or opened.idle_seconds <= MAX_IDLE_SECONDS:
                return connection
            self._threads.submit(close, opened)
            connection._conn = None  # noqa: SLF001 - see above
            await self._release(connection)

    async def _acquire(self, deadline: float) -> aioodbc.Connection:
        if self._pool is None:
            raise DatabaseUnavailableError("The pool is not open.")
        try:
            async with asyncio.timeout_at(deadline):
                return await self._pool.acquire()
        except TimeoutError:
            raise DatabaseTimeoutError(f"Connecting took too long. {CHECK_THE_SERVER}") from None
        except pyodbc.Error as error:
            if is_login_refused(error):
                raise self._unavailable(LoginRefusedError, "cannot log in", error) from error
            raise self._unavailable(ConnectionLostError, "cannot connect", error) from error

    async def _drop_idle(self, deadline: float) -> None:
        if self._pool is not None:
            with contextlib.suppress(TimeoutError, pyodbc.Error):
                async with asyncio.timeout_at(deadline):
                    await self._pool.clear()

    async def _run_on(self, connection: aioodbc.Connection, work: Work[T], deadline: float) -> T:
        gate = Gate()
        opened: pyodbc.Connection | Session = connection._conn  # noqa: SLF001 - see above
        job = self._threads.submit(work_on, opened, self._table, self._lock_timeout, work, gate)
        call = asyncio.wrap_future(job)
        try:
            await asyncio.wait({call}, timeout=deadline - asyncio.get_running_loop().time())
            if not call.done():
                raise DatabaseTimeoutError("The database did not answer in time.")
            opened, result = call.result()
            self._tell(opened.identity)
        except pyodbc.Error as error:
            lost = is_connection_lost(error)
            kind = ConnectionLostError if lost else DatabaseUnavailableError
            raise self._unavailable(kind, "cannot write", error) from error
        else:
            return result
        finally:
            if call.done():
                connection._conn = None if opened.closed else opened  # noqa: SLF001 - see above
            else:  # timed out, or this task was cancelled
                gate.shut()
                self._abandon(job, opened)
                call.cancel()
                connection._conn = None  # noqa: SLF001 - see above
            await self._release(connection)

    def _tell(self, identity: Identity) -> None:
        """Log whom this is connected with, at first and if it changes (a failover, an update)."""
        if identity != self._identity:
            _log.info(
                "connected",
                driver=identity.driver,
                driver_version=identity.driver_version,
                database=identity.database,
                database_version=identity.database_version,
            )
            self._identity = identity

    def _abandon(self, job: Future[Any], opened: pyodbc.Connection | Session) -> None:
        if job.cancel():  # no thread had taken it up
            self._threads.submit(close, opened)
        else:  # its thread is at work, and closes the connection when it comes back
            job.add_done_callback(lambda _: close(opened))

    async def _release(self, connection: aioodbc.Connection) -> None:
        if self._pool is None:
            return
        release = self._pool.release(connection)
        if connection.closed:  # the pool drops it, and waits for nothing
            await release
        else:  # not awaited: it waits for a lock that another task may hold while it connects
            task = asyncio.ensure_future(release)
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    def _unavailable(
        self, kind: type[DatabaseUnavailableError], what: str, error: pyodbc.Error
    ) -> DatabaseUnavailableError:
        reason = self._connection_string.redact(describe(error))
        return kind(f"The service {what}: {reason} {advice_on(error)}".rstrip())
