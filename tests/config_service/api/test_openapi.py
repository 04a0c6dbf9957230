"""The description of the management API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from config_service.api import models

pytestmark = pytest.mark.anyio


@pytest.fixture
async def described(service: Any) -> dict[str, Any]:
    response = await service.client().get("/api/v1/manage/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


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
    assert "HTTPValidationError" not in json.dumps(described)
    for name, operation in operations(described):
        assert "422" not in operation["responses"], name


async def test_every_managing_operation_asks_for_a_token(described: dict[str, Any]) -> None:
    """In the header that all of this service uses."""
    (scheme,) = described["components"]["securitySchemes"].values()
    assert (scheme["in"], scheme["name"]) == ("header", "X-Service-Token")
    for name, operation in operations(described):
        managing = "/manage/" in name
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
