"""Two instances behind a real proxy are replaced in turn, under load: no sender notices."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.conditions import eventually
from tests.support.databases import PostgresDatabase
from tests.support.fleet import fleet
from tests.support.load import Load, losses, spooled
from tests.support.service import KEY, Service

pytestmark = pytest.mark.faults

DEPLOYMENTS = [f"u-{number}" for number in range(20)]


@pytest.mark.parametrize("retries", [True, False], ids=["as documented", "nothing sent twice"])
def test_every_callback_is_answered_200_and_every_connection_holds(
    retries: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    start_service: Callable[..., Service],
    postgres_database: PostgresDatabase,
) -> None:
    postgres_database.add_robots(DEPLOYMENTS)
    key = {"CALLBACK_API_KEY": KEY}
    spools = [tmp_path / f"spool-{number}.db" for number in (0, 1)]
    with fleet(tmp_path, start_service, postgres_database, key, retries=retries) as two:
        # So many that some are on their way at any moment: without the drain, some are lost.
        with Load(two.url, DEPLOYMENTS, connections=64, tls=two.tls) as load:
            load.wait_for(200)
            for number in (0, 1):
                two.replace(number, key)
                load.wait_for(200)
        eventually(lambda: not any(map(spooled, spools)))
    services = [*two.ended, *two.instances]

    assert load.broken == []
    assert Counter(sent.http_status for sent in load.all) == {200: len(load.all)}
    statuses = postgres_database.statuses()
    assert losses(load.answered, load.all, statuses, tmp_path / "no-spool") == []
    answers = [sum(line["event"] == "callback" for line in each.lines) for each in services]
    assert sum(answers) == len(load.all)
    assert all(answers)


def test_the_log_has_the_senders_address_and_not_a_claimed_one(
    tmp_path: Path, start_service: Callable[..., Service], postgres_database: PostgresDatabase
) -> None:
    key = {"CALLBACK_API_KEY": KEY}
    with fleet(tmp_path, start_service, postgres_database, key) as two:
        transport = httpx.HTTPTransport(verify=two.tls, local_address="127.0.0.9")
        with httpx.Client(transport=transport, base_url=two.url) as sender:
            sender.post("/callback", headers={"X-Forwarded-For": "203.0.113.7"})
    lines = [line for service in two.instances for line in service.lines]
    assert [line["client"] for line in lines if line.get("reason") == "no_key"] == ["127.0.0.9"]
