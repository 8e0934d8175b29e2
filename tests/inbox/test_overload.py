"""Callbacks in flight are bounded, and the event loop never waits for the database or the disk."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from sam.callback.inbox.admission import OverloadedError
from sam.callback.inbox.inbox import Inbox
from sam.callback.inbox.sqlite import spool
from sam.callback.model import Outcome
from sam.callback.settings import Settings
from tests.support.conditions import LIMIT_SECONDS
from tests.support.databases import PostgresDatabase, SqliteDatabase, free_port
from tests.support.disk import hung_disk
from tests.support.inboxes import open_inbox
from tests.support.proxy import proxy_to
from tests.support.service import KEY, clean_environment


async def test_more_callbacks_than_the_bound_are_refused_and_none_waits_for_ever(
    sqlite_database: SqliteDatabase, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = settings_for(
        sqlite_database, callback_spool_path=tmp_path / "spool.db", callback_max_connections=2
    )
    async with open_inbox(settings) as inbox:
        results = await asyncio.gather(
            *(inbox.record(f"d-{number}", "DONE", b"") for number in range(6)),
            return_exceptions=True,
        )
        after = await inbox.record("d-1", "DONE", b"")

    assert [type(result) for result in results[4:]] == [OverloadedError, OverloadedError]
    assert not any(isinstance(result, BaseException) for result in results[:4])
    assert after.outcome is Outcome.UPDATED


async def test_the_event_loop_waits_for_neither_the_database_nor_the_disk(
    postgres_database: PostgresDatabase,
    settings_for: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both go on when it says so: did it wait for one of them, it would for ever, or in vain."""
    monkeypatch.setattr(spool, "IO_SECONDS", 2 * LIMIT_SECONDS)

    @asynccontextmanager
    async def recording(inbox: Inbox) -> AsyncIterator[list[Outcome]]:
        """Record callbacks; what they wait for may go on when this is left."""
        outcomes: list[Outcome] = []
        records = asyncio.gather(
            *(inbox.record(f"d-{number}", "DONE", b"") for number in range(50))
        )
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert not records.done()
        yield outcomes
        outcomes += [recorded.outcome for recorded in await records]

    with proxy_to(postgres_database.server.port) as proxy:
        through_proxy = postgres_database.server.connection_string(
            postgres_database.name, port=proxy.port
        )
        settings = settings_for(
            postgres_database,
            sql_sam_connection_string=through_proxy,
            callback_spool_path=tmp_path / "spool.db",
        )
        async with open_inbox(settings) as inbox:
            proxy.fall_silent()
            async with recording(inbox) as by_the_database:
                proxy.speak()
            postgres_database.rename("robots", "away")
            async with AsyncExitStack() as disk:
                await disk.enter_async_context(hung_disk(inbox.spool))
                async with recording(inbox) as by_the_disk:
                    await disk.aclose()

    assert set(by_the_database) == {Outcome.UPDATED, Outcome.UNMATCHED}
    assert set(by_the_disk) == {Outcome.QUEUED}


_CONNECT_AND_COUNT: Final = """
import gc, http.client, os, signal, socket, sys, threading, time
from sam.callback.server.protocol import HttpProtocol
from sam.callback.server.server import run
from sam.callback.service.main import create_app
from sam.callback.settings import Settings

def protocols():
    return sum(isinstance(each, HttpProtocol) for each in gc.get_objects())

def client():
    try:
        begin()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)

def begin():
    while not gc.get_freeze_count():  # it listens by then
        time.sleep(0.02)
    time_limit = time.monotonic() + 60
    gc.disable()
    for content in (b'{"deploymentId": "d-1", "status": "DONE"}', b"{", b""):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/callback", content, {"X-API-KEY": sys.argv[1]})
        connection.getresponse().read()
        connection.close()
    with socket.create_connection(("127.0.0.1", port)) as hung_up:
        hung_up.sendall(b"POST /callback HTTP/1.1\\r\\nContent-Length: 10\\r\\n\\r\\n{")
    while protocols() and time.monotonic() < time_limit:
        time.sleep(0.02)
    print(protocols(), file=sys.stderr)

settings = Settings.load()
port = settings.callback_port
threading.Thread(target=client).start()
run(create_app(settings), settings)
"""


def test_a_connection_that_is_closed_leaves_nothing_for_the_garbage_collector(
    sqlite_database: SqliteDatabase, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _CONNECT_AND_COUNT, KEY],
        cwd=tmp_path,
        env=clean_environment(
            CALLBACK_API_KEY=KEY,
            CALLBACK_HOST="127.0.0.1",
            CALLBACK_PORT=str(free_port()),
            PYTHONPATH=str(Path(__file__).parents[2]),
            SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        ),
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_SECONDS,
        check=False,
    )
    assert ended.stderr.splitlines()[-1] == "0", ended.stderr
