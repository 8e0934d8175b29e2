"""Rule 2 in the spool: ids that the database takes for the same have one entry."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.spool import Spool, SpoolUnavailableError
from sam.callback.inbox.store import Entry, Kind
from tests.support.inboxes import MIB, OpenSpool, entry


@pytest.fixture
def file(path: Path) -> Iterator[SpoolFile]:
    file = SpoolFile(path, 16 * MIB)
    yield file
    file.close()


@pytest.fixture
async def spool(open_spool: OpenSpool) -> AsyncIterator[Spool]:
    async with open_spool() as spool:
        yield spool


def by_key(file: SpoolFile) -> dict[str | None, tuple[int, str | None]]:
    return {
        entry.key: (entry.number, entry.deployment_id)
        for entry in file.page(list(Kind), after=0, limit=1000)
    }


def test_an_id_is_its_own_key_where_there_is_no_other(file: SpoolFile) -> None:
    file.put([entry(1, "aBc"), entry(2, "abc")], 2)
    assert by_key(file) == {"aBc": (1, "aBc"), "abc": (2, "abc")}


def test_a_callback_replaces_the_entry_of_its_key(file: SpoolFile) -> None:
    for number, spelling in ((5, "aBc"), (9, "ABC"), (7, "abc")):
        assert file.put([entry(number, spelling, key="abc")], number) == [True]
    assert by_key(file) == {"abc": (9, "ABC")}  # the highest number's, as it was sent
    assert file.with_entries(["abc", "ABC", "aBc"]) == {"abc"}


def test_invalid_bodies_have_no_key(file: SpoolFile) -> None:
    invalid = [Entry(number, Kind.INVALID, None, None, b"{") for number in (1, 2)]
    file.put(invalid, 2)
    file.rekey("upper", str.upper)
    assert file.page([Kind.INVALID], after=0, limit=10) == invalid


@pytest.mark.parametrize("kind", list(Kind)[:3])
def test_with_another_rule_entries_that_become_one_are_merged(kind: Kind, file: SpoolFile) -> None:
    spellings = ["abc", "aBc", "ABC", "other", "OTHER", "same"]
    file.put([entry(number, text, kind=kind) for number, text in enumerate(spellings, 1)], 6)
    file.rekey("lower", str.lower)
    assert by_key(file) == {"abc": (3, "ABC"), "other": (5, "OTHER"), "same": (6, "same")}
    assert file.totals()[kind].entries == 3
    file.rekey("id", str)
    assert by_key(file) == {"ABC": (3, "ABC"), "OTHER": (5, "OTHER"), "same": (6, "same")}


def test_keys_may_change_places(file: SpoolFile) -> None:
    file.put([entry(1, "a"), entry(2, "b")], 2)
    file.rekey("swapped", {"a": "b", "b": "a"}.__getitem__)
    assert by_key(file) == {"b": (1, "a"), "a": (2, "b")}


def test_the_rule_is_remembered_and_not_applied_again(file: SpoolFile, path: Path) -> None:
    assert file.key_rule == ""
    file.put([entry(1, "a")], 1)
    file.rekey("upper", str.upper)
    file.close()
    again = SpoolFile(path, 16 * MIB)
    assert again.key_rule == "upper"
    again.rekey("upper", str.lower)  # would change it
    assert by_key(again) == {"A": (1, "a")}
    again.close()


async def test_every_file_that_is_opened_follows_the_rule(spool: Spool, path: Path) -> None:
    await spool.put([entry(1, "a"), entry(2, "A")])
    await spool.rekey("upper", str.upper)
    assert spool.key_rule == "upper"
    assert await spool.with_entries(["A", "a"]) == {"A", "a"}

    path.rename(path.with_name("away.db"))
    other = SpoolFile(path, 16 * MIB)
    other.put([entry(3, "b")], 3)
    other.close()
    assert await spool.with_entries(["A", "B", "b"]) == {"B", "b"}
    await spool.put([entry(4, "B")])
    assert [each.number for each in await spool.page([Kind.QUEUED], after=0, limit=9)] == [4]


async def test_a_rule_that_came_while_the_spool_failed_is_not_forgotten(
    spool: Spool, path: Path
) -> None:
    await spool.put([entry(1, "a")])
    path.rename(path.with_name("away.db"))
    path.mkdir()
    with pytest.raises(SpoolUnavailableError):
        await spool.rekey("upper", str.upper)
    path.rmdir()
    path.with_name("away.db").rename(path)
    [found] = await spool.page([Kind.QUEUED], after=0, limit=10)
    assert (found.key, found.deployment_id) == ("A", "a")
