"""The routes about the keys of the store and its log."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from config_service.domain.errors import StoreError

pytestmark = pytest.mark.anyio
MANAGE = "/api/v1/manage"
CANARY = "canary-61aa"


async def test_keys_are_listed_without_what_they_are(service: Any) -> None:
    """Ids, uses and counts; the master key by its id."""
    await service.publish("orders", b'{"value": "%s"}' % CANARY.encode())
    answer = await service.client(service.admin).get(f"{MANAGE}/keys")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert [(key["id"], key["use"], key["values"]) for key in body["keys"]] == [(1, "chain", 0), (2, "active", 1)]
    assert {key["master_key"] for key in body["keys"]} == {body["master_key"]}


async def test_a_rotation_and_steps_of_sealing_anew(service: Any) -> None:
    """Each step answers where the next one begins; the last one destroys the old key."""
    await service.publish("orders")
    client = service.client(service.admin)
    rotated = (await client.post(f"{MANAGE}/keys/rotate")).json()
    assert [key["use"] for key in rotated["keys"]] == ["chain", "retired", "active"]
    step = (await client.post(f"{MANAGE}/keys/reseal", json={"limit": 1})).json()
    assert (step["checked"], step["resealed"], step["remaining"], step["destroyed"]) == (1, 1, None, [])
    last = (await client.post(f"{MANAGE}/keys/reseal", json={"after": step["after"]})).json()
    assert (last["checked"], last["after"], last["remaining"], last["destroyed"]) == (0, None, 0, [2])
    assert (await client.post(f"{MANAGE}/keys/rotate-master")).json()["changed"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"after": "?"},
        {"after": ""},
        {"after": base64.urlsafe_b64encode(b"[]").decode()},
        {"after": base64.urlsafe_b64encode(b'["document", 1, 2]').decode()},
        {"after": base64.urlsafe_b64encode(b'["nothing", 1]').decode()},
        {"after": base64.urlsafe_b64encode(b'["draft", "a", "b", "c", -1]').decode()},
        {"after": base64.urlsafe_b64encode(b'["draft", "a", "b", "c", true]').decode()},
        {"after": base64.urlsafe_b64encode(b'["draft", "a\\u0000", "b", "c", 1]').decode()},
        {"after": "A" * 3000},
        {"limit": 0},
        {"limit": 1001},
        {"limit": "1"},
        {"other": 1},
    ],
)
async def test_a_step_that_cannot_be_meant_is_refused(service: Any, body: dict[str, object]) -> None:
    """With 400, and nothing of what was sent."""
    answer = await service.client(service.admin).post(f"{MANAGE}/keys/reseal", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"


async def test_the_log_is_told_with_what_is_known_of_a_change(service: Any) -> None:
    """Token, request and peer; filters and pages by the query; never a value."""
    client = service.client(service.admin, {"X-Request-Id": "r-77"})
    await client.put(f"{MANAGE}/configs/orders", content=b'{"value": "%s"}' % CANARY.encode())
    answer = await client.get(f"{MANAGE}/audit", params={"name": "orders", "kind": "published", "token": "1"})
    (entry,) = answer.json()["entries"]
    assert (entry["name"], entry["version"], entry["changed_by"]) == ("orders", 1, 1)
    assert (entry["detail"]["request"], entry["detail"]["peer"], entry["detail"]["token"]) == (
        "r-77",
        "127.0.0.1",
        "admin",
    )
    assert CANARY not in answer.text
    page = (await client.get(f"{MANAGE}/audit", params={"limit": "1"})).json()
    assert (len(page["entries"]), page["after"]) == (1, 1)
    assert (await client.get(f"{MANAGE}/audit", params={"after": "999"})).json() == {"entries": [], "after": None}


@pytest.mark.parametrize(
    "query",
    ["token=x", "token=-1", "since=yesterday", "kind=none", "after=-1", "limit=0", "limit=9999", "name=" + "a" * 200],
)
async def test_a_question_that_cannot_be_meant_is_refused(service: Any, query: str) -> None:
    """With 400, and not with the framework's own words."""
    answer = await service.client(service.admin).get(f"{MANAGE}/audit?{query}")
    assert answer.status_code == 400
    assert set(answer.json()["error"]) <= {"code", "message"}


async def test_a_verification_is_told_line_by_line(service: Any) -> None:
    """How far it is, and at last what it found."""
    await service.publish("orders")
    client = service.client(service.admin)
    head = (await client.get(f"{MANAGE}/audit/head")).json()
    answer = await client.get(f"{MANAGE}/audit/verify", params={"anchor": head["anchor"]})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *progress, last = (json.loads(line) for line in answer.text.splitlines())
    assert progress[0] == {"done": 0, "total": head["revision"]}
    assert progress[-1] == {"done": head["revision"], "total": head["revision"]}
    assert last["report"] == {"sound": True, "head": head, "findings": [], "more": 0}
    service.store.entries[0] = service.store.entries[1]
    answer = await client.get(f"{MANAGE}/audit/verify")
    assert json.loads(answer.text.splitlines()[-1])["report"]["sound"] is False
    assert (await client.get(f"{MANAGE}/audit/verify", params={"anchor": "5"})).status_code == 400


async def test_a_verification_that_fails_in_between_ends_in_an_error(service: Any) -> None:
    """The status has been sent; the last line says what happened, and is no report."""

    async def fail(_after: int, _limit: int) -> list[object]:
        raise StoreError("the disk is gone")

    service.store.log = fail
    answer = await service.client(service.admin).get(f"{MANAGE}/audit/verify")
    assert json.loads(answer.text.splitlines()[-1]) == {
        "error": {"code": "store_unavailable", "message": "the disk is gone"}
    }
