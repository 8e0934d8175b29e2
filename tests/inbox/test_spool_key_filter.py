"""Spool key filter: no look into the spool for a deployment that has no entry."""

from contextlib import closing
from pathlib import Path

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.key_filter import KeyFilter
from sam.callback.inbox.sqlite.spool import Spool
from sam.callback.inbox.store import Kind
from sam.callback.storage.key_rule import COARSEST
from tests.support.inboxes import MIB, OpenSpool, entry


def may_have_one(spool: Spool, deployment_id: str) -> bool:
    return spool.may_have_entry(COARSEST.key(deployment_id))


async def test_a_stored_deployment_may_have_an_entry_and_others_have_none(
    open_spool: OpenSpool,
) -> None:
    async with open_spool() as spool:
        assert not may_have_one(spool, "d-1")
        await spool.put([entry(1, "d-1"), entry(2, "D-2", Kind.DEAD_LETTER)])
        assert may_have_one(spool, "d-1")
        assert may_have_one(spool, "d-2")  # the database may take it for the same
        assert not may_have_one(spool, "d-3")


async def test_it_is_known_of_an_earlier_life(open_spool: OpenSpool) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1, "d-1")])
    async with open_spool() as spool:
        assert may_have_one(spool, "d-1")
        assert not may_have_one(spool, "d-3")


async def test_where_there_is_no_entry_no_deployment_has_one(open_spool: OpenSpool) -> None:
    async with open_spool() as spool:
        await spool.put([entry(1, "d-1")])
        await spool.settle([entry(1, "d-1")])
        assert not may_have_one(spool, "d-1")


async def test_an_entry_made_by_an_operator_is_seen_when_it_is_due(
    open_spool: OpenSpool, path: Path
) -> None:
    async with open_spool() as spool:
        with closing(SpoolFile(path, 16 * MIB)) as beside:
            beside.put([entry(1, "d-1")], 1)
        assert [each.deployment_id for each in (await spool.due(10)).entries] == ["d-1"]
        assert may_have_one(spool, "d-1")


def test_hardly_any_of_a_million_others_is_taken_for_one_that_was_added() -> None:
    added = KeyFilter()
    keys = [f"added {number}" for number in range(200_000)]
    added.add(keys)
    assert all(key in added for key in keys)
    assert sum(f"other {number}" in added for number in range(100_000)) < 1_000
