"""Rules 5 and 7: an old entry ends by a fresh answer of 0 rows, or by an unknown error.

A lock ends none, however long it is held: what it keeps is applied when it is gone.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.store import Entry, Kind
from sam.callback.settings import Settings
from tests.support.databases import PostgresDatabase
from tests.support.inboxes import open_inbox
from tests.support.load import spooled


async def test_an_old_entry_ends_by_the_databases_fresh_answer(
    postgres_database: PostgresDatabase, settings_for: Callable[..., Settings], path: Path
) -> None:
    names = ["locked", "refused-by-a-trigger", "gone", "there"]
    postgres_database.add_robots(name for name in names if name != "gone")
    postgres_database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
    )
    postgres_database.execute(
        "CREATE TRIGGER t BEFORE UPDATE ON robots FOR EACH ROW"
        " WHEN (OLD.\"deploymentId\" = 'refused-by-a-trigger') EXECUTE FUNCTION refuse()"
    )
    with closing(SpoolFile(path, 2**20)) as file:
        of_1970 = [Entry(n, Kind.UNMATCHED, name, "DONE") for n, name in enumerate(names, 1)]
        assert all(file.put(of_1970, len(names)))

    settings = settings_for(
        postgres_database, callback_spool_path=path, callback_unmatched_ttl=1, callback_db_timeout=4
    )
    async with open_inbox(settings) as inbox:
        with closing(postgres_database.server.connect(postgres_database.name)) as other:
            other.autocommit = False
            other.execute("SELECT * FROM robots WHERE \"deploymentId\" = 'locked' FOR UPDATE")
            assert await inbox.replayer.replay(of_1970)
        assert spooled(path) == {
            "locked": ("unmatched", "DONE"),
            "refused-by-a-trigger": ("dead_letter", "DONE"),
            "gone": ("dead_letter", "DONE"),
        }
        assert await inbox.replayer.replay(of_1970[:1])
    statuses = postgres_database.statuses()
    assert (statuses["locked"], statuses["there"]) == ("DONE", "DONE")
