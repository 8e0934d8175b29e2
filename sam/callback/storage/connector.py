"""The database connections: aioodbc's pool, and what a pool needs to live through failure.

What is reached into of aioodbc is reached into here alone: `Connection._conn`, the connection of
pyodbc. `tests/test_the_pool_lives_through_failure.py` would notice a release that changes it.
"""

import asyncio
import contextlib
import math
import weakref
from collections.abc import Callable
from typing import Final, TypeVar

import aioodbc
import pyodbc

from sam.callback.logs import get_logger
from sam.callback.settings import Settings
from sam.callback.storage.connection_string import ConnectionString, connection_string
from sam.callback.storage.dialects import Dialect, dialect_of
from sam.callback.storage.errors import (
    CHECK_THE_SERVER,
    ConnectionLostError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    ErrorClass,
    PoolExhaustedError,
    advice_on,
    classify,
    is_connection_lost,
)
from sam.callback.storage.gate import Gate
from sam.callback.storage.threads import DaemonThreadPool

MAX_IDLE_SECONDS: Final = 180
"""A connection idle for longer is not used again: firewalls forget a silent one in 240 s or so."""

LOCK_TIMEOUT_SHARE: Final = 0.5
"""The lock time-out as a share of CALLBACK_DB_TIMEOUT, so that the other rows have time left."""

_log = get_logger(__name__)

T = TypeVar("T")

# The driver manager's own pool would hand out dead connections behind ours.
pyodbc.pooling = False


class Session:
    """A connection of pyodbc with its dialect and one cursor, which keeps a statement prepared."""

    def __init__(self, connection: pyodbc.Connection, lock_timeout: float) -> None:
        self.connection = connection
        self.dialect = dialect_of(connection)
        self.cursor = connection.cursor()
        lock_timeout_ms = math.ceil(lock_timeout * 1000)
        for statement in self.dialect.session_setup:
            self.cursor.execute(statement.format(lock_timeout_ms=lock_timeout_ms))
        connection.commit()
        if self.dialect.has_query_timeout:
            connection.timeout = math.ceil(lock_timeout * 2)


class Transaction:
    """What the work on a connection's thread may use. It may commit more than once."""

    def __init__(self, session: Session, gate: Gate) -> None:
        self._session = session
        self._gate = gate
        self._is_open = False

    @property
    def dialect(self) -> Dialect:
        """The database's dialect."""
        return self._session.dialect

    @property
    def cursor(self) -> pyodbc.Cursor:
        """The session's cursor; what it executes belongs to this transaction."""
        self._is_open = True
        return self._session.cursor

    def commit(self) -> None:
        """Commit, unless the time-out came first.

        Raises:
            AbandonedError: If it did.
            pyodbc.Error: If the COMMIT failed.
        """
        self._gate.enter()
        self._session.connection.commit()
        self._is_open = False

    def rollback(self) -> None:
        """Undo what is not committed."""
        if self._is_open:
            self._session.connection.rollback()
            self._is_open = False


Work = Callable[[Transaction], T]
"""A function that runs on a connection's thread: executes, fetches and commits there."""


class DatabaseConnector:
    """Owns the connections to SAM's database. One per process, opened and closed by the lifespan.

    Raises:
        DriverNotFoundError: If the ODBC driver does not exist.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection_string: ConnectionString = connection_string(settings)
        self._size = settings.sql_sam_pool_max
        self._login_timeout = settings.sql_sam_login_timeout
        self._lock_timeout = settings.callback_db_timeout * LOCK_TIMEOUT_SHARE
        # aioodbc's `acquire` waits without limit, and a connection that is closed when it comes
        # back wakes no waiter: nobody may have to wait there.
        self._slots = asyncio.Semaphore(self._size)
        # As many again for threads that were given up and still wait in the driver.
        self._threads = DaemonThreadPool(2 * self._size, "odbc")
        self._sessions: weakref.WeakKeyDictionary[aioodbc.Connection, Session] = (
            weakref.WeakKeyDictionary()
        )
        self._releases: set[asyncio.Task[None]] = set()
        self._pool: aioodbc.Pool | None = None
        self._is_up: bool | None = None

    @property
    def driver_name(self) -> str:
        """The driver that is used."""
        return self._connection_string.driver.name

    @property
    def driver_reason(self) -> str:
        """Why that driver was chosen."""
        return self._connection_string.driver.reason

    async def open(self) -> None:
        """Make the pool. It connects when it must: a database that is down stops no start."""
        self._pool = await aioodbc.create_pool(
            dsn=self._connection_string.text,
            minsize=0,
            maxsize=self._size,
            pool_recycle=MAX_IDLE_SECONDS,
            executor=self._threads,
            timeout=math.ceil(self._login_timeout),
            autocommit=False,
        )

    async def close(self, timeout: float = 2.0) -> None:
        """Close the connections; those that do not close within `timeout` seconds are left."""
        if self._pool is None:
            return
        self._pool.close()
        with contextlib.suppress(TimeoutError, pyodbc.Error):
            async with asyncio.timeout(timeout):
                await self._pool.wait_closed()
        self._threads.shutdown()

    async def run(self, work: Work[T], *, timeout: float) -> T:
        """Run `work` on a connection's thread, in one hop.

        A connection that turns out to be dead, as all are after the server has restarted, is
        replaced once.

        Args:
            work: Executes and commits; what it has not committed is rolled back.
            timeout: Seconds for all of it: waiting for a connection, connecting, working.

        Raises:
            DatabaseTimeoutError: If time ran out. No COMMIT begins after that; how one that was
                under way ended is not known.
            DatabaseUnavailableError: If there is no connection, or the work let out an ODBC error.
        """
        try:
            result = await self._run(work, asyncio.get_running_loop().time() + timeout)
        except PoolExhaustedError:
            raise  # says nothing about the database
        except DatabaseUnavailableError as error:
            self._report(is_up=False, reason=str(error))
            raise
        self._report(is_up=True)
        return result

    async def _run(self, work: Work[T], deadline: float) -> T:
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise PoolExhaustedError(
                f"All {self._size} connections to the database were busy for too long."
            ) from None
        try:
            connection = await self._acquire(deadline)
            is_reused = connection in self._sessions
            try:
                return await self._run_on(connection, work, deadline)
            except ConnectionLostError:
                if not is_reused:
                    raise
            # The others idle here are as old as this one, and likely as dead.
            await self._drop_idle(deadline)
            return await self._run_on(await self._acquire(deadline), work, deadline)
        finally:
            self._slots.release()

    async def _acquire(self, deadline: float) -> aioodbc.Connection:
        if self._pool is None:
            raise DatabaseUnavailableError("The pool is not open.")
        try:
            async with asyncio.timeout_at(deadline):
                return await self._pool.acquire()
        except TimeoutError:
            raise DatabaseTimeoutError(f"Connecting took too long. {CHECK_THE_SERVER}") from None
        except pyodbc.Error as error:
            raise self._unavailable("cannot connect", error) from error

    async def _drop_idle(self, deadline: float) -> None:
        if self._pool is not None:
            with contextlib.suppress(TimeoutError, pyodbc.Error):
                async with asyncio.timeout_at(deadline):
                    await self._pool.clear()

    async def _run_on(self, connection: aioodbc.Connection, work: Work[T], deadline: float) -> T:
        gate = Gate()
        raw: pyodbc.Connection = connection._conn  # noqa: SLF001 - aioodbc lends nobody its thread
        job = self._threads.submit(
            _on_thread, raw, self._sessions.get(connection), self._lock_timeout, work, gate
        )
        call = asyncio.wrap_future(job)
        try:
            await asyncio.wait({call}, timeout=deadline - asyncio.get_running_loop().time())
            if not call.done():
                raise DatabaseTimeoutError("The database did not answer in time.")
            self._sessions[connection], result = call.result()
        except pyodbc.Error as error:
            raise self._unavailable("cannot write", error) from error
        else:
            return result
        finally:
            if not call.done():  # timed out, or this task was cancelled
                gate.shut()
                connection._conn = None  # noqa: SLF001 - a pool drops a closed connection
                if job.cancel():
                    self._threads.submit(_close, raw)
                else:  # its thread is at work: it closes the connection when it comes back
                    call.cancel()
                    job.add_done_callback(lambda _: _close(raw))
            elif raw.closed:
                connection._conn = None  # noqa: SLF001
            self._release(connection)

    def _release(self, connection: aioodbc.Connection) -> None:
        # Not awaited: `release` waits for a lock that another task may hold while it connects.
        if self._pool is not None:
            task = asyncio.ensure_future(self._pool.release(connection))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    def _unavailable(self, what: str, error: pyodbc.Error) -> DatabaseUnavailableError:
        reason = self._connection_string.redact(str(error.args[-1]).strip())
        kind = ConnectionLostError if is_connection_lost(error) else DatabaseUnavailableError
        return kind(f"The service {what}: {reason} {advice_on(error)}".rstrip())

    def _report(self, *, is_up: bool, reason: str = "") -> None:
        if is_up == self._is_up:
            return
        self._is_up = is_up
        if is_up:
            _log.info("database_up", driver=self.driver_name)
        else:
            _log.critical("database_down", reason=reason, driver=self.driver_name)


def _on_thread(
    raw: pyodbc.Connection,
    session: Session | None,
    lock_timeout: float,
    work: Work[T],
    gate: Gate,
) -> tuple[Session, T]:
    """Do the work; close the connection if an error leaves it unfit for the next user."""
    try:
        if session is None:
            session = Session(raw, lock_timeout)
        transaction = Transaction(session, gate)
        try:
            result = work(transaction)
        finally:
            # An open transaction would be committed by the next user.
            transaction.rollback()
    except BaseException as error:
        if session is None or not _leaves_fit(error, session.dialect):
            _close(raw)
        raise
    return session, result


def _leaves_fit(error: BaseException, dialect: Dialect) -> bool:
    return (
        isinstance(error, pyodbc.Error)
        and classify(error, dialect) is not ErrorClass.UNKNOWN
        and not is_connection_lost(error)
    )


def _close(raw: pyodbc.Connection) -> None:
    with contextlib.suppress(pyodbc.Error):  # it may be closed or dead already
        raw.close()
