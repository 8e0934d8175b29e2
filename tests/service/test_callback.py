"""A callback with the key is answered 200 `updated`, and its row then has its status."""

import json
from concurrent.futures import ThreadPoolExecutor

from tests.support.callbacks import AS_A360_SENDS_THEM, body
from tests.support.databases import SqliteDatabase
from tests.support.service import Service


def test_the_row_has_the_status_once_the_answer_is_there(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    response = service.post(body("d-1", "RUN_COMPLETED"))

    assert sqlite_database.statuses() == {"d-1": "RUN_COMPLETED"}
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "outcome": "updated",
        "deploymentId": "d-1",
        "requestId": response.headers["X-Request-ID"],
    }


def test_every_body_that_a360_sends_is_understood(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    expected = {
        callback["deploymentId"].strip(): callback["status"].strip()
        for callback in AS_A360_SENDS_THEM
    }
    sqlite_database.add_robots(expected)

    for callback in AS_A360_SENDS_THEM:
        response = service.post(json.dumps(callback).encode())
        assert response.status_code == 200
        assert response.json()["deploymentId"] == callback["deploymentId"].strip()

    assert sqlite_database.statuses() == {"d-1": "RUNNING", **expected}


def test_the_content_type_is_not_held_against_the_sender(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    for content_type in ("", "text/plain", "application/xml", "nonsense"):
        response = service.post(
            body("d-1", content_type or "NONE"), **{"Content-Type": content_type}
        )
        assert response.status_code == 200
        assert sqlite_database.statuses() == {"d-1": content_type or "NONE"}


def test_only_the_row_of_the_deployment_changes(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    sqlite_database.add_robots(["d-2", "D-1", "d-1 "])

    service.post(body("d-2", "RUN_FAILED"))

    assert sqlite_database.statuses() == {
        "d-1": "RUNNING",
        "d-2": "RUN_FAILED",
        "D-1": "RUNNING",
        "d-1 ": "RUNNING",
    }


def test_a_later_callback_of_the_same_deployment_wins(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    for status in ("RUN_PAUSED", "RUNNING", "RUN_COMPLETED"):
        assert service.post(body("d-1", status)).status_code == 200
    assert sqlite_database.statuses() == {"d-1": "RUN_COMPLETED"}


def test_a_thousand_callbacks_over_64_connections_all_reach_their_rows(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    deployments = [f"d-{number}" for number in range(2, 1002)]
    sqlite_database.add_robots(deployments)

    def post_some(first: int) -> list[int]:
        with service.client() as client:
            return [
                client.post("/callback", content=body(name, f"DONE {name}")).status_code
                for name in deployments[first::64]
            ]

    with ThreadPoolExecutor(64) as senders:
        answers = [status for some in senders.map(post_some, range(64)) for status in some]

    assert answers == [200] * 1000
    assert sqlite_database.statuses() == {
        "d-1": "RUNNING",
        **{name: f"DONE {name}" for name in deployments},
    }
    assert service.stop() == 0  # by then its last line is written
    lines = [line for line in service.lines if line["event"] == "callback"]
    assert {line["deployment_id"] for line in lines} == set(deployments)
