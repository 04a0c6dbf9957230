"""One table from refusals to answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from typing import Any

import pytest
from fastapi import Request
from starlette.exceptions import HTTPException

from config_service.api import web
from config_service.api.errors import STATUS, error_answer, internal_error, method_not_allowed, not_found
from config_service.domain import errors
from config_service.domain.errors import (
    InvalidDocumentError,
    NotRenderableError,
    ServiceError,
    StoreFullError,
    StoreLockedError,
    UnauthenticatedError,
    UnavailableError,
)

REFUSALS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ServiceError)]


def body(error: ServiceError) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(error_answer(error).body)
    return parsed["error"]


def test_every_refusal_has_a_status() -> None:
    """A new error cannot be forgotten."""
    assert set(REFUSALS) == set(STATUS)


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)
def test_every_answer_has_the_same_shape(kind: type[ServiceError]) -> None:
    """Code and message, not to be stored, never below 400."""
    answer = error_answer(kind("what and why"))
    headers = dict(answer.headers)
    assert answer.status == STATUS[kind] >= 400
    assert json.loads(answer.body)["error"]["code"] == kind.code
    assert set(json.loads(answer.body)["error"]) == {"code", "message"}
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"cache-control"] == b"no-store"
    assert dict(answer.encoded_headers())[b"content-length"] == str(len(answer.body)).encode()


def test_the_codes_differ() -> None:
    """A program can match on them."""
    assert len({kind.code for kind in REFUSALS}) == len(REFUSALS)


def test_an_answer_points_into_a_document() -> None:
    """Where the error does."""
    assert body(InvalidDocumentError("duplicate key", "/db"))["path"] == "/db"
    assert body(NotRenderableError("two paths", "/a/b"))["path"] == "/a/b"


def test_401_says_how_to_authenticate_and_503_when_to_come_back() -> None:
    """The headers that RFC 9110 asks for."""
    assert b"X-Service-Token" in dict(error_answer(UnauthenticatedError("x")).headers)[b"www-authenticate"]
    assert int(dict(error_answer(UnavailableError("x")).headers)[b"retry-after"]) >= 1


@pytest.mark.parametrize("kind", [StoreLockedError, StoreFullError])
def test_the_files_of_a_store_are_told_to_the_log_only(
    kind: type[ServiceError], caplog: pytest.LogCaptureFixture
) -> None:
    """Clients learn that the store failed, operators where."""
    with caplog.at_level(logging.ERROR):
        answer = error_answer(kind("/srv/config.db is in trouble"))
    assert b"/srv" not in answer.body
    assert "/srv/config.db is in trouble" in caplog.text


def test_what_is_no_service_error_has_the_same_shape() -> None:
    """Unknown routes, wrong methods and failures."""
    for answer, status, code in (
        (not_found(), 404, "not_found"),
        (method_not_allowed("GET, HEAD"), 405, "method_not_allowed"),
        (internal_error(), 500, "internal"),
    ):
        assert answer.status == status
        assert json.loads(answer.body)["error"]["code"] == code
    assert dict(method_not_allowed("GET, HEAD").headers)[b"allow"] == b"GET, HEAD"


async def _status_of(status: int) -> Any:
    return await web._refuse_routing(Request({"type": "http"}), HTTPException(status, "canary"))


def test_what_the_framework_refuses_by_itself_has_the_same_shape() -> None:
    """Whatever status it comes with; its text is not passed on."""
    response = asyncio.run(_status_of(400))
    assert response.status_code == 400
    assert b"canary" not in response.body
    assert json.loads(response.body)["error"]["code"] == "invalid_request"
