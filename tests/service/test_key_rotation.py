"""The key is changed in three steps, under load: no 401, and the log says when a step is done."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.callbacks import body
from tests.support.databases import PostgresDatabase, SqliteDatabase
from tests.support.fleet import fleet
from tests.support.load import Load
from tests.support.service import Service

DEPLOYMENTS = [f"k-{number}" for number in range(20)]
OLD, NEW = "old-key-8d1f3a", "new-key-c07be2"


def test_the_log_says_which_key_was_used(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string,
        CALLBACK_API_KEY=NEW,
        CALLBACK_API_KEY_PREVIOUS=OLD,
    )
    for key, name in ((OLD, "previous"), (NEW, "current")):
        for content, event in ((body("d-1", name), "callback"), (b"{", "refused")):
            answer = httpx.post(
                service.url + "/callback", content=content, headers={"X-API-KEY": key}
            )
            request_id = answer.headers["X-Request-ID"]
            line = service.wait_for_line(
                lambda line, request_id=request_id: line.get("request_id") == request_id  # type: ignore[misc]
            )
            assert (line["event"], line["key"]) == (event, name)


def test_a_request_that_gave_no_valid_key_has_no_key_in_its_line(service: Service) -> None:
    httpx.post(service.url + "/callback", headers={"X-API-KEY": "guess"})
    assert "key" not in service.wait_for_event("refused")


@pytest.mark.faults
def test_three_steps_behind_a_proxy_and_no_401(
    tmp_path: Path, start_service: Callable[..., Service], postgres_database: PostgresDatabase
) -> None:
    postgres_database.add_robots(DEPLOYMENTS)
    before = {"CALLBACK_API_KEY": OLD}
    both = {"CALLBACK_API_KEY": NEW, "CALLBACK_API_KEY_PREVIOUS": OLD}
    after = {"CALLBACK_API_KEY": NEW}
    with fleet(tmp_path, start_service, postgres_database, before) as two:
        load = Load(two.url, DEPLOYMENTS, connections=16, pause=0.01, tls=two.tls)
        load.key = OLD
        with load:
            load.wait_for(200)
            for number in (0, 1):  # the service takes both keys
                two.replace(number, both)
            load.wait_for(200)
            load.key = NEW  # the sender changes
            load.wait_for(200)
            for number in (0, 1):  # the old key is worth nothing any more
                two.replace(number, after)
            load.wait_for(200)
        with httpx.Client(verify=two.tls, base_url=two.url) as sender:
            refused = sender.post("/callback", content=body(), headers={"X-API-KEY": OLD})
            assert refused.status_code == 401

    assert load.broken == []
    assert Counter(sent.http_status for sent in load.all) == {200: len(load.all)}
    in_between = two.ended[2:]
    keys = [[line["key"] for line in each.lines if "key" in line] for each in in_between]
    assert all(set(each) == {"previous", "current"} for each in keys)
    # Once the sender has changed, no line has the old one: that is what an operator waits for.
    assert all(each[-1] == "current" for each in keys)
