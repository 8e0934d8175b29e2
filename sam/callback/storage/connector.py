"""Database connector: runs work on a connection's thread, within a deadline.

aioodbc makes the connections, and bounds and counts them. While it makes one it holds a lock that
`acquire` waits for even where a connection is idle; so each is acquired once, and released when it
is closed. Which are idle is `ConnectionPool`'s to know.

Of aioodbc's internals `Connection._conn` is used, and in this module alone: its pyodbc connection,
since no public call runs a given function on a connection's thread. It is taken out, so that
aioodbc never closes what a thread works on. `tests/storage/test_connection_pool.py` would
notice a release that changes this.
"""

import asyncio
import contextlib
import math
import threading
from dataclasses import dataclass
from typing import Final, TypeVar

import aioodbc
import pyodbc

from sam.callback.log_throttle import LogThrottle
from sam.callback.logs import get_logger
from sam.callback.metrics import Metrics
from sam.callback.storage.connection import DatabaseConnection, Identity, Work
from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.errors import (
    ConnectionLostError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    ErrorClass,
    KeyRuleChangedError,
    LoginRefusedError,
    TransientError,
    advice_on,
    describe,
    is_connection_lost,
    is_login_refused,
)
from sam.callback.storage.key_rule import EXACT, KeyRule
from sam.callback.storage.pool import ConnectionPool, OnConnectFailed
from sam.callback.tasks import Supervisor
from sam.callback.threads import DaemonThreadPool

GRACE_SECONDS: Final = 0.5
"""What connecting may take beyond SQL_SAM_LOGIN_TIMEOUT, so that the driver says why it failed."""

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
    """The connections to one database.

    Attributes:
        driver: The ODBC driver.
        size: The most connections in use at a time.
        key_rule: Which deployment ids the database takes for the same, by the newest connection;
            `EXACT` before the first.

    Args:
        settings: Of the connections.
        on_connect_failed: Is told why a connection could not be made, where no call of `run` is.
        supervisor: Runs the task that connects; its failures go unnoticed, unless given.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        on_connect_failed: OnConnectFailed = lambda *_: None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._settings = settings
        self.driver = settings.connection_string.driver
        # SQLite has one lock for the whole file: more writers would only wait for one another.
        self.size = 1 if self.driver.is_sqlite else settings.size
        self.key_rule = EXACT
        # As many again for threads that were given up and still wait in the driver.
        self._threads = DaemonThreadPool(2 * self.size, "odbc")
        self._aioodbc: aioodbc.Pool | None = None
        self._acquired: dict[DatabaseConnection, aioodbc.Connection] = {}
        self._pool = ConnectionPool(
            self._connect,
            self._disconnect,
            supervisor or Supervisor(Metrics(), LogThrottle()),
            size=self.size,
            on_failed=on_connect_failed,
        )
        self._identity: Identity | None = None
        self._unknown = ""

    async def open(self) -> None:
        """Begin to connect. A database that is down stops no start."""
        self._aioodbc = await aioodbc.create_pool(
            dsn=self._settings.connection_string.text,
            minsize=0,
            maxsize=2 * self.size,
            executor=self._threads,
            timeout=math.ceil(self._settings.login_timeout),
            autocommit=False,
        )
        self._pool.open()

    async def close(self) -> None:
        """Close the connections that can be closed within `CLOSE_SECONDS`."""
        pool = self._aioodbc
        if pool is None:
            return
        pool.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.close()
                await pool.wait_closed()
        self._aioodbc = None
        self._threads.shutdown()

    def stats(self) -> PoolStats:
        """Return how busy the pool is."""
        return PoolStats(self.size, self._pool.in_use, self._pool.waiting)

    async def run(self, work: Work[T], *, timeout: float, key_rule: KeyRule | None = None) -> T:
        """Run `work` on a connection's thread, in one hop.

        A connection that turns out to be dead, as all are after the server has restarted, is
        replaced once, and the work begun anew.

        Args:
            work: Executes and commits; what it has not committed is rolled back.
            timeout: Seconds for all of it: waiting for a connection, working.
            key_rule: What `self.key_rule` has to be when the work begins, if that matters to it.

        Raises:
            KeyRuleChangedError: If it is not; the work has not begun.
            DatabaseTimeoutError: If time ran out. No COMMIT begins after that; how one that was
                under way ended is not known.
            DatabaseUnavailableError: If there is no connection, or the work let out an ODBC error.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        connection = await self._take(deadline, key_rule)
        with contextlib.suppress(ConnectionLostError):
            return await self._run_on(connection, work, deadline)
        # The others idle here are as old as this one, and likely as dead.
        self._pool.drop_idle()
        return await self._run_on(await self._take(deadline, key_rule), work, deadline)

    async def _take(self, deadline: float, key_rule: KeyRule | None) -> DatabaseConnection:
        connection = await self._pool.take(deadline)
        if key_rule is not None and key_rule != self.key_rule:
            self._pool.put(connection)
            raise KeyRuleChangedError
        return connection

    async def _run_on(self, connection: DatabaseConnection, work: Work[T], deadline: float) -> T:
        cancelled = threading.Event()
        call = self._threads.run(connection.run, work, cancelled)
        try:
            await asyncio.wait({call}, timeout=deadline - asyncio.get_running_loop().time())
            if not call.done():
                raise DatabaseTimeoutError("The database did not answer in time.")
            return call.result()
        except pyodbc.Error as error:
            lost = is_connection_lost(error)
            kind: type[DatabaseUnavailableError]
            kind = ConnectionLostError if lost else DatabaseUnavailableError
            if not lost and connection.dialect.classify(error) is ErrorClass.TRANSIENT:
                kind = TransientError
            raise self._unavailable(kind, "cannot write", error) from error
        finally:
            if call.done():
                self._pool.put(connection)
            else:  # timed out, or this task was cancelled
                cancelled.set()
                self._pool.give_up(connection)
                call.add_done_callback(lambda call: self._came_back(connection, call))

    def _came_back(self, connection: DatabaseConnection, call: "asyncio.Future[T]") -> None:
        if not call.cancelled():
            call.exception()  # is for no caller any more
        self._pool.put(connection)

    async def _connect(self) -> DatabaseConnection:
        pool = self._aioodbc
        if pool is None or pool.size >= pool.maxsize:
            raise DatabaseTimeoutError("The database answers on none of the connections to it.")
        what = "cannot connect"
        try:
            async with asyncio.timeout(self._settings.login_timeout + GRACE_SECONDS):
                acquired = await pool.acquire()
                what = "cannot write"
                connection = await self._set_up(pool, acquired)
        except TimeoutError:
            reason = f"Connecting took too long. {self._settings.advice.server}"
            raise DatabaseTimeoutError(reason) from None
        except pyodbc.Error as error:
            if is_login_refused(error):
                raise self._unavailable(LoginRefusedError, "cannot log in", error) from error
            raise self._unavailable(ConnectionLostError, what, error) from error
        self.key_rule = connection.key_rule
        self._log_changes(connection)
        return connection

    async def _set_up(self, pool: aioodbc.Pool, acquired: aioodbc.Connection) -> DatabaseConnection:
        odbc, acquired._conn = acquired._conn, None  # noqa: SLF001 - see above
        call = self._threads.run(DatabaseConnection, odbc, self._settings)
        try:
            connection = await asyncio.shield(call)
        except BaseException:
            call.add_done_callback(self._came_too_late)
            await pool.release(acquired)
            raise
        self._acquired[connection] = acquired
        return connection

    def _came_too_late(self, call: "asyncio.Future[DatabaseConnection]") -> None:
        if not call.cancelled() and not call.exception() and self._aioodbc is not None:
            self._threads.submit(call.result().close)

    async def _disconnect(self, connection: DatabaseConnection) -> None:
        acquired = self._acquired.pop(connection)
        if self._aioodbc is None:
            return  # it ends with its last reference
        await self._aioodbc.release(acquired)
        if not connection.closed:
            await self._threads.run(connection.close)

    def _log_changes(self, connection: DatabaseConnection) -> None:
        """Log the database, and what it does not tell: at first, and after a failover or update."""
        identity = connection.identity
        if identity != self._identity:
            _log.info(
                "connected",
                driver=identity.driver,
                driver_version=identity.driver_version,
                database=identity.database,
                database_version=identity.database_version,
            )
            self._identity = identity
        if connection.unknown != self._unknown:
            if connection.unknown:
                reason = connection.unknown
                _log.warning("column_types_unknown", table=self._settings.table.name, reason=reason)
            self._unknown = connection.unknown

    def _unavailable(
        self, kind: type[DatabaseUnavailableError], what: str, error: pyodbc.Error
    ) -> DatabaseUnavailableError:
        reason = self._settings.connection_string.redact(describe(error))
        advice = advice_on(error, self._settings.advice)
        return kind(f"The service {what}: {reason} {advice}".rstrip())
