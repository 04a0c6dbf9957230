"""The management API of drafts, differences and schemas, over HTTP without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
CONFIG = "/api/v1/manage/configs/orders"
DRAFT = f"{CONFIG}/draft"
SCHEMA = f"{CONFIG}/schema"
MERGE = {"Content-Type": "application/merge-patch+json"}
OPERATIONS = {"Content-Type": "application/json-patch+json"}
CANARY = "canary-90d1"
SERVED = "/api/v1/service/configs/orders/formatted"


@pytest.fixture
async def http(service: Any) -> Any:
    return service.client(service.admin)


def refusal(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    return error


async def document(http: Any) -> bytes:
    content: bytes = (await http.get(f"{DRAFT}/document")).content
    return content


async def test_a_draft_is_kept_byte_for_byte_and_served_to_nobody(service: Any, http: Any) -> None:
    """What is set is what is read; what is running stays, and no revision is taken."""
    await service.publish("orders", b'{"a": 1}')
    entries = len(service.store.entries)
    raw = '{ "é": 1.10,\n\n"a": "\\u00e9" }\n'.encode()
    row = (await http.put(DRAFT, content=raw)).json()
    assert (row["base"], row["newest"], row["outdated"], row["changed_by"]) == (1, 1, False, 1)
    assert await document(http) == raw
    assert (await http.get(DRAFT)).json() == row
    assert (await http.get(SERVED)).content == b'{"a": 1}'
    assert len(service.store.entries) == entries
    assert raw not in service.store.held_drafts.popitem()[1].document


async def test_a_draft_outlives_a_restart(service: Any, start: Any, http: Any) -> None:
    """It is in the store, as it was."""
    await http.put(DRAFT, content=b'{"a": 1}')
    again = await start()
    assert await document(again.client(again.admin)) == b'{"a": 1}'


async def test_a_patch_changes_the_draft_or_begins_one_from_what_runs(service: Any, http: Any) -> None:
    """Both kinds; the result is compact, with characters as themselves."""
    await service.publish("orders", '{ "db": {"host": "é", "port": 1} }'.encode())
    first = await http.patch(DRAFT, content=b'{"db": {"port": null, "user": "x"}}', headers=MERGE)
    assert first.json()["base"] == 1
    assert await document(http) == '{"db":{"host":"é","user":"x"}}'.encode()
    patch = [{"op": "test", "path": "/db/user", "value": "x"}, {"op": "add", "path": "/list", "value": [1]}]
    second = await http.patch(DRAFT, json=patch, headers=OPERATIONS)
    assert second.status_code == 200
    assert json.loads(await document(http)) == {"db": {"host": "é", "user": "x"}, "list": [1]}


async def test_a_patch_that_does_not_apply_changes_nothing(service: Any, http: Any) -> None:
    """Malformed, failing in the middle, of another type, without anything to change: each has an error of its own."""
    refusal(await http.patch(DRAFT, content=b"{}", headers=MERGE), 404, "not_found")
    await http.put(DRAFT, content=b'{"a": 1}')
    half = [{"op": "add", "path": "/b", "value": CANARY}, {"op": "test", "path": "/a", "value": CANARY}]
    for content, headers, status, code in (
        (json.dumps(half).encode(), OPERATIONS, 409, "patch_conflict"),
        (b'[{"op": "remove", "path": "/canary-90d1"}]', OPERATIONS, 409, "patch_conflict"),
        (b'[{"op": "canary-90d1", "path": "/a"}]', OPERATIONS, 400, "invalid_patch"),
        (b'[{"op": "add", "path": "/c"}]', OPERATIONS, 400, "invalid_patch"),
        (b'{"a": "canary-90d1"}', OPERATIONS, 400, "invalid_patch"),
        (b'["canary-90d1"]', MERGE, 400, "invalid_patch"),
        (b'[{"op": "replace", "path": "", "value": "canary-90d1"}]', OPERATIONS, 400, "invalid_document"),
        (b'{"a": "' + b"x" * 4090 + b'"}', MERGE, 413, "document_too_large"),
        (b'{"a": "canary-90d1"}', {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    ):
        response = await http.patch(DRAFT, content=content, headers=headers)
        refusal(response, status, code)
        assert CANARY not in response.text
    assert response.headers["accept-patch"] == "application/merge-patch+json, application/json-patch+json"
    assert await document(http) == b'{"a": 1}'


async def test_publishing_a_draft_serves_it_and_removes_it(service: Any, http: Any) -> None:
    """Byte for byte, as the next version."""
    await service.publish("orders", b'{"a": 1}')
    await http.put(DRAFT, content=b'{ "a": 2 }')
    response = await http.post(f"{DRAFT}/publish", headers={"If-Match": '"1"'})
    assert response.status_code == 201
    assert response.headers["etag"] == '"2"'
    assert (response.json()["version"], response.json()["changed"]) == (2, True)
    assert (await http.get(SERVED)).content == b'{ "a": 2 }'
    refusal(await http.get(DRAFT), 404, "not_found")
    refusal(await http.post(f"{DRAFT}/publish"), 404, "not_found")


async def test_publishing_what_runs_already_makes_no_version_and_removes_the_draft(service: Any, http: Any) -> None:
    """Identical bytes make no new version."""
    await service.publish("orders", b'{"a": 1}')
    await http.post(f"{DRAFT}/revert")
    response = await http.post(f"{DRAFT}/publish")
    assert (response.status_code, response.json()["changed"]) == (200, False)
    refusal(await http.get(DRAFT), 404, "not_found")


async def test_a_draft_made_on_an_older_version_overwrites_nothing(service: Any, http: Any) -> None:
    """409 with both versions; set again on the newest, it is published."""
    await service.publish("orders", b'{"a": 1}')
    await http.put(DRAFT, content=b'{"a": 2}')
    await service.publish("orders", b'{"a": 9}')
    message = refusal(await http.post(f"{DRAFT}/publish"), 409, "draft_outdated")["message"]
    assert "version 1," in message
    assert "version 2 " in message
    assert (await http.get(SERVED)).content == b'{"a": 9}'
    assert (await http.put(DRAFT, content=b'{"a": 3}')).json()["outdated"] is True
    assert (await http.put(DRAFT, content=b'{"a": 3}', params={"base": "2"})).json()["outdated"] is False
    assert (await http.post(f"{DRAFT}/publish")).status_code == 201
    refusal(await http.put(DRAFT, content=b"{}", params={"base": "4"}), 400, "invalid_request")


async def test_a_publish_on_another_version_than_the_author_saw_is_412(service: Any, http: Any) -> None:
    """Both versions are named, and the draft is still there."""
    await service.publish("orders", b'{"a": 1}')
    await service.publish("orders", b'{"a": 2}')
    await http.put(DRAFT, content=b'{"a": 3}')
    message = refusal(await http.post(f"{DRAFT}/publish", headers={"If-Match": "1"}), 412, "precondition_failed")
    assert "version 1" in message["message"]
    assert "version 2" in message["message"]
    assert await document(http) == b'{"a": 3}'


async def test_a_draft_is_reverted_to_what_runs_or_to_a_saved_version(service: Any, http: Any) -> None:
    """On the newest version, so that it can be published at once."""
    await service.publish("orders", b'{"a": 1}')
    await service.publish("orders", b'{"a": 2}')
    await http.put(DRAFT, content=b'{"a": 3}', params={"base": "1"})
    assert (await http.post(f"{DRAFT}/revert", json={"version": 1})).json()["base"] == 2
    assert await document(http) == b'{"a": 1}'
    assert (await http.post(f"{DRAFT}/revert")).status_code == 200
    assert await document(http) == b'{"a": 2}'
    refusal(await http.post(f"{DRAFT}/revert", json={"version": 7}), 404, "not_found")


async def test_a_discarded_draft_is_gone(http: Any) -> None:
    """And there is nothing to discard again."""
    await http.put(DRAFT, content=b'{"a": 1}')
    assert (await http.delete(DRAFT)).json()["base"] == 0
    refusal(await http.delete(DRAFT), 404, "not_found")


async def test_the_difference_of_any_two(service: Any, http: Any) -> None:
    """Staged, running, a version, and what runs elsewhere; added has no old, removed no new."""
    await service.publish("orders", b'{"a": 1, "gone": true}')
    await service.publish("orders", b'{"a": 2}')
    await service.publish("orders", b'{"a": 2, "p/q": "prod"}', "prod")
    await http.put(DRAFT, content=b'{"a": 2.0}')
    cases = {
        ("running", "staged"): [{"op": "changed", "path": "/a", "old": 2, "new": 2.0}],
        ("1", "2"): [
            {"op": "changed", "path": "/a", "old": 1, "new": 2},
            {"op": "removed", "path": "/gone", "old": True},
        ],
        ("running", "running@prod"): [{"op": "added", "path": "/p~1q", "new": "prod"}],
        ("2", "running"): [],
    }
    for (old, new), expected in cases.items():
        response = await http.get(f"{CONFIG}/diff", params={"from": old, "to": new})
        assert response.json()["differences"] == expected, (old, new)
        assert response.headers["cache-control"] == "no-store"
    assert (await http.get(f"{CONFIG}/diff")).json()["differences"] == cases["running", "staged"]
    for side in ("0", "1x", "running@", "running@../x", f"{CANARY}/"):
        response = await http.get(f"{CONFIG}/diff", params={"to": side})
        refusal(response, 400, "invalid_request")
        assert side == "0" or side not in response.json()["error"]["message"].split()
    assert CANARY not in refusal(await http.get(f"{CONFIG}/diff", params={"to": CANARY}), 404, "not_found")["message"]
    refusal(await http.get(f"{CONFIG}/diff", params={"to": "9"}), 404, "not_found")


async def test_a_difference_needs_the_right_in_both_environments(service: Any) -> None:
    """Otherwise it would be a way around the rights."""
    await service.publish("orders", b'{"a": 1}')
    await service.publish("orders", b'{"a": 2}', "prod")
    http = service.client(await service.mint("*@default:write"))
    response = await http.get(f"{CONFIG}/diff", params={"from": "running", "to": "running@prod"})
    refusal(response, 403, "access_denied")


async def test_every_publish_has_to_fit_the_newest_schema(service: Any, http: Any) -> None:
    """Direct, by draft and by rollback: 422 with every place and keyword, and no value."""
    await service.publish("orders", json.dumps({"db": {"port": CANARY}}).encode())
    await service.publish("orders", b'{"db": {"port": 1}}')
    schema = {
        "required": ["db"],
        "properties": {"db": {"properties": {"port": {"type": "integer"}, "host": {"enum": ["db1"]}}}},
    }
    response = await http.put(SCHEMA, json=schema)
    assert response.status_code == 201
    assert response.json()["number"] == 1
    bad = json.dumps({"db": {"port": CANARY, "host": CANARY}}).encode()
    await http.put(DRAFT, content=bad)
    violations = [{"path": "/db/host", "keyword": "enum"}, {"path": "/db/port", "keyword": "type"}]
    for answer, expected in (
        (await http.put(CONFIG, content=bad), violations),
        (await http.post(f"{DRAFT}/publish"), violations),
        (await http.post(f"{CONFIG}/rollback", json={"version": 1}), violations[1:]),
    ):
        error = refusal(answer, 422, "schema_violation")
        assert sorted(error["violations"], key=lambda one: str(one["path"])) == expected
        assert CANARY not in answer.text
    validation = (await http.post(f"{DRAFT}/validate")).json()
    assert (validation["valid"], validation["schema_number"], len(validation["violations"])) == (False, 1, 2)
    assert (await http.put(CONFIG, content=b'{"db": {"port": 2}}')).status_code == 201


async def test_schemas_are_versions_of_their_own(http: Any, service: Any) -> None:
    """Set, shown by number, listed and removed; a removal is one too, and afterwards anything goes."""
    first, second = b'{ "required": ["a"] }', b'{"required":["b"]}'
    assert (await http.put(SCHEMA, content=first)).status_code == 201
    assert (await http.put(SCHEMA, content=first)).status_code == 200
    assert (await http.put(SCHEMA, content=second)).json()["number"] == 2
    assert (await http.get(f"{SCHEMA}/document")).content == second
    assert (await http.get(f"{SCHEMA}/document", params={"version": "1"})).content == first
    assert (await http.get(SCHEMA, params={"version": "1"})).json()["number"] == 1
    refusal(await http.put(CONFIG, content=b"{}"), 422, "schema_violation")
    assert (await http.delete(SCHEMA)).json()["removed"] is True
    refusal(await http.delete(SCHEMA), 404, "not_found")
    for response in (await http.get(SCHEMA), await http.get(SCHEMA, params={"version": "3"})):
        refusal(response, 404, "not_found")
    history = (await http.get(f"{SCHEMA}/history")).json()["schemas"]
    assert [(row["number"], row["removed"]) for row in history] == [(3, True), (2, False), (1, False)]
    assert [entry.schema for entry in service.store.entries[1:]] == [1, 2, 3]
    assert (await http.put(CONFIG, content=b"{}")).status_code == 201


async def test_a_schema_that_cannot_be_used_is_refused(http: Any) -> None:
    """With the place at fault and without what stands there; no reference is ever followed to another document."""
    for schema, path in (
        ({"properties": {"a": {"type": CANARY}}}, "/properties/a/type"),
        ({"pattern": f"({CANARY}"}, "/pattern"),
        ({"$schema": f"https://{CANARY}.invalid/"}, "/$schema"),
        ({"$ref": f"https://{CANARY}.invalid/schema.json"}, None),
        ({"$ref": "#/$defs/missing"}, None),
    ):
        response = await http.put(SCHEMA, json=schema)
        assert refusal(response, 400, "invalid_schema").get("path") == path
        assert CANARY not in response.text
    refusal(await http.put(SCHEMA, content=b"[]"), 400, "invalid_schema")
    refusal(await http.put(SCHEMA, content=b"{" + b" " * 5000 + b"}"), 413, "document_too_large")
    refusal(await http.get(SCHEMA), 404, "not_found")


async def test_a_config_is_valid_while_what_runs_fits_its_schema(service: Any, start: Any, http: Any) -> None:
    """A schema that what runs does not fit makes it invalid, also after a restart; a publish that fits mends it."""

    async def is_valid(client: Any) -> bool:
        (row,) = (await client.get("/api/v1/service/configs")).json()
        valid: bool = row["is_valid"]
        return valid

    await service.publish("orders", b'{"a": 1}')
    assert await is_valid(http)
    await http.put(SCHEMA, json={"required": ["b"]})
    assert not await is_valid(http)
    again = await start()
    assert not await is_valid(again.client(again.admin))
    await http.put(CONFIG, content=b'{"b": 1}')
    assert await is_valid(http)


async def test_a_draft_is_refused_to_whoever_may_only_read(service: Any, http: Any) -> None:
    """A service token is served what runs, and neither a draft nor a schema."""
    await http.put(DRAFT, content=json.dumps({"a": CANARY}).encode())
    client = service.client(await service.mint())
    for path in (DRAFT, f"{DRAFT}/document", f"{CONFIG}/diff", SCHEMA):
        refusal(await client.get(path), 403, "access_denied")
    for path in ("", "/orders", "/orders/formatted", "/orders?version=1"):
        assert CANARY not in (await client.get(f"/api/v1/service/configs{path}")).text


TOGETHER = "/api/v1/manage/drafts/publish"
BILLING = "/api/v1/manage/configs/billing"


def named(*drafts: dict[str, object]) -> dict[str, object]:
    return {"drafts": list(drafts)}


async def test_several_drafts_are_published_together(service: Any, http: Any) -> None:
    """In the order named, at consecutive revisions; no draft is left, and one that changes nothing makes no version."""
    await service.publish("orders", b'{"a": 1}')
    await service.publish("same", b'{"a": 1}')
    for config in (CONFIG, BILLING, "/api/v1/manage/configs/same"):
        await http.put(f"{config}/draft", content=b'{"a": 2}' if "same" not in config else b'{"a": 1}')
    before = len(service.store.entries)
    response = await http.post(
        TOGETHER, json=named({"name": "billing"}, {"name": "same"}, {"name": "orders", "if_match": 1})
    )
    assert response.status_code == 201
    rows = response.json()["published"]
    assert [(row["name"], row["version"], row["changed"]) for row in rows] == [
        ("billing", 1, True),
        ("same", 1, False),
        ("orders", 2, True),
    ]
    assert [rows[0]["revision"], rows[2]["revision"]] == [before + 1, before + 2]
    assert not service.store.held_drafts
    assert (await http.get(SERVED)).content == b'{"a": 2}'


async def test_what_changes_nothing_together_is_answered_200(service: Any, http: Any) -> None:
    """As for a single draft; the drafts are gone."""
    await service.publish("orders", b"{}")
    await service.publish("billing", b"{}")
    await http.put(DRAFT, content=b"{}")
    await http.put(f"{BILLING}/draft", content=b"{}")
    entries = len(service.store.entries)
    response = await http.post(TOGETHER, json=named({"name": "orders"}, {"name": "billing"}))
    assert (response.status_code, len(service.store.entries)) == (200, entries)
    assert not service.store.held_drafts


async def test_one_draft_that_is_refused_refuses_all_and_is_named(service: Any, http: Any) -> None:
    """By condition, base, schema or absence; nothing is published and every draft is as it was."""
    await service.publish("orders", b'{"a": 1}')
    await service.publish("billing", b'{"a": 1}')
    await http.put(DRAFT, content=b'{"a": 2}')
    await http.put(f"{BILLING}/draft", content=json.dumps({"a": CANARY}).encode())
    drafts, entries = dict(service.store.held_drafts), len(service.store.entries)
    both = ({"name": "orders"}, {"name": "billing", "if_match": 7})
    error = refusal(await http.post(TOGETHER, json=named(*both)), 412, "precondition_failed")
    assert error["message"].startswith("billing (default, main): the change was made on version 7, but version 1")
    await service.publish("billing", b'{"a": 3}')
    both = ({"name": "orders"}, {"name": "billing"})
    assert "billing" in refusal(await http.post(TOGETHER, json=named(*both)), 409, "draft_outdated")["message"]
    missing = await http.post(TOGETHER, json=named({"name": "orders"}, {"name": "other"}))
    assert "other" in refusal(missing, 404, "not_found")["message"]
    assert (dict(service.store.held_drafts), len(service.store.entries)) == (drafts, entries + 1)


async def test_the_violations_of_every_draft_are_told(service: Any, http: Any) -> None:
    """Each with its config, so that all can be mended at once; and no value."""
    for config in (CONFIG, BILLING):
        await http.put(f"{config}/schema", content=b'{"properties": {"a": {"type": "integer"}}, "required": ["b"]}')
        await http.put(f"{config}/draft", content=json.dumps({"a": CANARY}).encode())
    response = await http.post(TOGETHER, json=named({"name": "orders"}, {"name": "billing"}))
    error = refusal(response, 422, "schema_violation")
    found = {(one["config"], one["path"], one["keyword"]) for one in error["violations"]}
    assert found == {
        (f"{name} (default, main)", path, keyword)
        for name in ("orders", "billing")
        for path, keyword in (("/a", "type"), ("", "required"))
    }
    assert CANARY not in response.text
    assert len(service.store.held_drafts) == 2


async def test_publishing_together_needs_every_right_and_a_list_that_makes_sense(service: Any, http: Any) -> None:
    """403 for a single config that the token may not write; 400 for none, one twice, or fields that are not ours."""
    await http.put(DRAFT, content=b"{}")
    await http.put(f"{BILLING}/draft", content=b"{}")
    limited = service.client(await service.mint("orders@*:write"))
    both = named({"name": "orders"}, {"name": "billing"})
    refusal(await limited.post(TOGETHER, json=both), 403, "access_denied")
    twice = ({"name": "orders"}, {"name": "orders", "environment": "default"})
    for body in (named(), named(*twice), {}, named({"name": "a/b"}), named({"name": "orders", "x": 1})):
        refusal(await http.post(TOGETHER, json=body), 400, "invalid_request")
    assert len(service.store.held_drafts) == 2
