"""A repository in the test's own process, on a database or on its stand-in."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from sam.callback.model import Callback
from sam.callback.settings import Settings
from sam.callback.storage.connection import DatabaseConnection
from sam.callback.storage.connection_settings import ConnectionSettings
from sam.callback.storage.connector import DatabaseConnector
from sam.callback.storage.errors import KeyRuleChangedError
from sam.callback.storage.pool import OnConnectFailed
from sam.callback.storage.results import BatchResult
from sam.callback.storage.robots import RobotRepository
from tests.support.conditions import LIMIT_SECONDS

_numbers = count(1)


@asynccontextmanager
async def open_connector(
    settings: Settings,
    on_connect_failed: OnConnectFailed = lambda *_: None,
) -> AsyncIterator[DatabaseConnector]:
    """Open its connections, and close them."""
    connector = DatabaseConnector(ConnectionSettings.of_sam(settings), on_connect_failed)
    await connector.open()
    try:
        yield connector
    finally:
        await connector.close()


@asynccontextmanager
async def open_repository(settings: Settings) -> AsyncIterator[RobotRepository]:
    """Open the connections that it needs, and close them."""
    async with open_connector(settings) as connector:
        yield RobotRepository(connector, settings)


def backend_pid(connection: DatabaseConnection) -> int:
    """The process of PostgreSQL that serves a connection."""
    pid: int = connection.cursor.execute("SELECT pg_backend_pid()").fetchone()[0]
    return pid


def callback(deployment_id: str, status: str = "DONE") -> Callback:
    """Make a callback that came after all before it."""
    return Callback(next(_numbers), deployment_id, status, None)


async def apply(
    repository: RobotRepository, callbacks: Sequence[Callback], *, timeout: float = LIMIT_SECONDS
) -> BatchResult:
    """Apply callbacks of different deployments, by whatever rule these are told apart."""
    while True:
        try:
            return await repository.apply(callbacks, timeout=timeout, key_rule=repository.key_rule)
        except KeyRuleChangedError:
            continue
