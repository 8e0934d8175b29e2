"""The OpenAPI document is valid and true: each status code it lists has an example as answered."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.service import KEY, Service


@pytest.fixture
def document(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = service.get("/openapi.json").raise_for_status().json()
    return document


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)
    assert document["paths"].keys() == {"/callback", "/health", "/metrics", "/ready"}


def test_authorize_takes_the_key(document: dict[str, Any]) -> None:
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    assert scheme == {"type": "apiKey", "in": "header", "name": "X-API-KEY"}
    assert document["paths"]["/callback"]["post"]["security"] == [{name: []}]
    assert document["paths"]["/metrics"]["get"]["security"] == [{name: []}]
    assert document["paths"]["/ready"]["get"]["security"] == [{name: []}, {}]  # or without
    assert "security" not in document["paths"]["/health"]["get"]


def test_every_status_code_of_the_contract_has_an_example(document: dict[str, Any]) -> None:
    responses = document["paths"]["/callback"]["post"]["responses"]
    assert responses.keys() == {"200", "401", "408", "413", "422", "503"}
    for response in responses.values():
        content = response["content"]["application/json"]
        _validate(document, content["schema"], content["example"])


def test_real_answers_have_the_shape_of_their_schema(
    document: dict[str, Any], service: Service, sqlite_database: SqliteDatabase
) -> None:
    responses = document["paths"]["/callback"]["post"]["responses"]

    def check(response: httpx.Response, status_code: int) -> None:
        assert response.status_code == status_code
        described = responses[str(status_code)]
        schema = described["content"]["application/json"]["schema"]
        _validate(document, schema, response.json())
        for header in described.get("headers", {}):
            assert header in response.headers

    check(service.post(body()), 200)
    check(httpx.post(service.url + "/callback", content=body()), 401)
    check(service.post(body("d-unknown")), 200)
    check(service.post(b"x" * (16 * 1024**2 + 1)), 413)
    check(service.post(b"{}"), 422)
    spool = service.directory / "var/callback-spool.db"
    spool.rename(spool.with_name("away"))
    spool.mkdir()
    sqlite_database.execute("DROP TABLE robots")
    check(service.post(body()), 503)


def test_the_bodys_schema_takes_what_the_service_takes(document: dict[str, Any]) -> None:
    content = document["paths"]["/callback"]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    assert schema["required"] == ["deploymentId", "status"]
    for example in schema["examples"]:
        _validate(document, schema, example)


def test_the_page_refers_to_no_other_host(service: Service) -> None:
    page = service.get("/docs").raise_for_status().text
    references = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(references) == 3
    for reference in references:
        assert service.get(reference).status_code == 200
    assert not re.findall(r"https?://|[\"']//", page)
    assert '"validatorUrl": null' in page


def test_without_docs_there_is_neither_page_nor_document(
    start_service: Callable[..., Service], sqlite_database: SqliteDatabase
) -> None:
    service = start_service(
        SQL_SAM_CONNECTION_STRING=sqlite_database.connection_string, CALLBACK_DOCS="false"
    )
    for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
        assert service.get(path).status_code == 401
        assert service.get(path, **{"X-API-KEY": KEY}).status_code == 404


def test_ready_has_the_shape_of_its_schema(document: dict[str, Any], service: Service) -> None:
    responses = document["paths"]["/ready"]["get"]["responses"]
    for response in responses.values():
        content = response["content"]["application/json"]
        _validate(document, content["schema"], content["example"])
    for answer in (service.ready(), service.get("/ready")):
        schema = responses["200"]["content"]["application/json"]["schema"]
        _validate(document, schema, answer.json())


def _validate(document: dict[str, Any], schema: dict[str, Any], instance: object) -> None:
    jsonschema.validate(instance, {**schema, "components": document["components"]})


def test_generated_clients_keep_the_names_of_their_operations(
    document: dict[str, Any],
) -> None:
    operations = {
        path: operation["operationId"]
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    assert operations == {
        "/callback": "callback_callback_post",
        "/health": "health_health_get",
        "/ready": "ready_ready_get",
        "/metrics": "scrape_metrics_get",
    }
