"""The description of the management API."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from pydantic import TypeAdapter
from routes import all_routes

from config_service.api import models
from config_service.api.errors import STATUS
from config_service.app import create_app
from config_service.domain.errors import ServiceError, ThrottledError
from config_service.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The description, of an application that was never started."""
    application = create_app(Settings.load(master_key="5a" * 32, store_url="sqlite:///never.db"))
    document: dict[str, Any] = json.loads(json.dumps(application.web.openapi()))
    return document


async def test_the_service_tells_its_description_to_everybody(service: Any, described: dict[str, Any]) -> None:
    """Without a token: it says nothing of any config."""
    response = await service.client().get("/api/v1/manage/openapi.json")
    assert response.status_code == 200
    assert response.json() == described


def operations(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_operation_is_described(described: dict[str, Any]) -> None:
    """Summary, description, what it answers, and what it refuses; names are unique."""
    ids = set()
    for name, operation in operations(described):
        assert operation["summary"], name
        assert operation["description"], name
        assert any(status.startswith("2") for status in operation["responses"]), name
        ids.add(operation["operationId"])
    assert len(ids) == len(operations(described))


async def test_the_frameworks_own_errors_are_not_promised(described: dict[str, Any]) -> None:
    """Its 422 repeats the input and never happens here."""
    assert "ValidationError" not in json.dumps(described)


async def test_every_route_is_described(described: dict[str, Any]) -> None:
    """Those of the wire protocol too. HEAD is answered like GET and not described apart."""
    told = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert told == {(method, path) for method, path in all_routes() if method != "HEAD"}
    assert {path for method, path in all_routes() if method == "HEAD"} <= described["paths"].keys()


async def test_every_status_is_named(described: dict[str, Any]) -> None:
    """No wildcard stands in for what nobody has thought of; the edge of the service may answer any request."""
    for name, operation in operations(described):
        statuses = operation["responses"].keys()
        assert all(re.fullmatch("[2345][0-9][0-9]", status) for status in statuses), name
        assert {"400", "408", "414", "431", "500"} <= statuses, name
        if operation.get("security"):
            assert {"401", "403", "429", "503"} <= statuses, name
        for status in ("429", "503"):
            assert "Retry-After" in operation["responses"].get(status, {"headers": "Retry-After"})["headers"], name


def media_types(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name} {where}", media)
        for name, operation in operations(described)
        for where, holder in (("request", operation.get("requestBody", {})), *operation["responses"].items())
        for media in holder.get("content", {}).values()
    ]


async def test_everything_that_goes_in_or_out_has_an_example_that_fits(described: dict[str, Any]) -> None:
    """By the schema that the document itself gives; a refusal has one for each of its codes."""
    found = 0
    validators: dict[str, Any] = {}
    for name, media in media_types(described):
        examples = [media["example"]] if "example" in media else [one["value"] for one in media["examples"].values()]
        assert examples, name
        told = json.dumps(media["schema"])
        if told not in validators:
            schema = media["schema"] | {"components": described["components"]}
            validators[told] = jsonschema_rs.validator_for(schema)
        for example in examples:
            violations = list(validators[told].iter_errors(example))
            assert not violations, (name, [str(one) for one in violations])
            found += 1
    assert found > 400


async def test_parameters_have_examples_that_fit_or_a_schema_that_says_enough(described: dict[str, Any]) -> None:
    """Every one is described."""
    for name, operation in operations(described):
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], (name, parameter["name"])
            if "example" in parameter:
                assert jsonschema_rs.is_valid(parameter["schema"], parameter["example"]), (name, parameter["name"])


async def test_every_code_of_a_refusal_is_in_some_example(described: dict[str, Any]) -> None:
    """With the status that the service's one table has for it."""
    told = {
        (code, int(status))
        for _, operation in operations(described)
        for status, answer in operation["responses"].items()
        if int(status) >= 400
        for code in answer["content"]["application/json"]["examples"]
    }
    known = {(kind.code, status) for kind, status in STATUS.items() if kind not in {ServiceError, ThrottledError}}
    assert told == known | {("internal", 500)}


async def test_every_managing_operation_asks_for_a_token(described: dict[str, Any]) -> None:
    """In the header that all of this service uses."""
    (scheme,) = described["components"]["securitySchemes"].values()
    assert (scheme["in"], scheme["name"]) == ("header", "X-Service-Token")
    for name, operation in operations(described):
        managing = ("/manage/" in name or "/service/" in name or "/metrics" in name) and "openapi" not in name
        assert bool(operation.get("security")) is managing, name
        if managing:
            assert {"400", "401", "403", "503"} <= operation["responses"].keys(), name


async def test_bodies_that_come_in_are_described_with_examples(described: dict[str, Any]) -> None:
    """Although the framework does not read them."""
    for name in ("put /api/v1/manage/configs/{name}", "post /api/v1/manage/configs/{name}/rollback"):
        body = dict(operations(described))[name]["requestBody"]
        assert body["required"]
        assert "application/json" in body["content"]
    tokens = dict(operations(described))["post /api/v1/manage/tokens"]["requestBody"]
    assert "examples" in tokens["content"]["application/json"]["schema"]["properties"]["name"]
    key = dict(operations(described))["post /api/v1/manage/tokens/{token_id}/key"]["requestBody"]
    overlap = key["content"]["application/json"]["schema"]["properties"]["overlap_seconds"]
    assert (overlap["default"], overlap["minimum"], overlap["maximum"]) == (86_400, 0, 90 * 86_400)


async def test_the_examples_are_what_the_models_accept(described: dict[str, Any]) -> None:
    """An example that does not fit would mislead."""
    schemas = described["components"]["schemas"]
    for name in ("ConfigRow", "ChangedRow", "VersionRow", "KeyRow", "TokenRow", "NewTokenRow", "NewKeyRow"):
        fields = schemas[name]["properties"]
        example = {field: about["examples"][0] for field, about in fields.items()}
        TypeAdapter(getattr(models, name)).validate_python(example)


async def test_no_page_loads_anything_from_elsewhere(service: Any) -> None:
    """There are no pages at all."""
    for path in ("/docs", "/redoc", "/api/v1/manage/docs"):
        assert (await service.client().get(path)).status_code == 404
