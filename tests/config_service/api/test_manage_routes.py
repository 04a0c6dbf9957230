"""The management API, over HTTP without a socket."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from config_client.crypto import decrypt
from config_client.errors import DecryptionError
from config_client.protocol import format_timestamp

pytestmark = pytest.mark.anyio
CONFIGS = "/api/v1/manage/configs"
CONFIG = f"{CONFIGS}/orders"
TOKENS = "/api/v1/manage/tokens"
CANARY = "canary-44f0"


@pytest.fixture
async def http(service: Any) -> Any:
    return service.client(service.admin)


def refusal(response: Any, status: int, code: str) -> str:
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    message: str = error["message"]
    return message


async def test_a_publish_is_201_with_its_row(service: Any, http: Any) -> None:
    """The row tells everything but the document; the ETag is its version."""
    response = await http.put(CONFIG, content=b'{"a": 1}')
    assert response.status_code == 201
    assert response.headers["etag"] == '"1"'
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "name": "orders",
        "environment": "default",
        "label": "main",
        "version": 1,
        "revision": 2,
        "deleted": False,
        "changed_by": 1,
        "timestamp": format_timestamp(service.clock.now),
        "valid_from": None,
        "changed": True,
        "scheduled": False,
    }


async def test_the_bytes_are_served_as_they_were_sent(service: Any, http: Any) -> None:
    """Not parsed and written again."""
    raw = '{ "é": 1.10,\n\n"a": "\\u00e9" }\n'.encode()
    await http.put(CONFIG, content=raw, headers={"Content-Type": "text/plain"})
    assert (await http.get("/api/v1/service/configs/orders/formatted")).content == raw


async def test_identical_bytes_are_200_and_change_nothing(http: Any) -> None:
    """The answer says so."""
    await http.put(CONFIG, content=b'{"a": 1}')
    again = await http.put(CONFIG, content=b'{"a": 1}')
    assert (again.status_code, again.json()["changed"], again.json()["version"]) == (200, False, 1)


async def test_a_publish_names_its_key(http: Any) -> None:
    """Environment and label from the query, with the token's and main as defaults."""
    row = (await http.put(f"{CONFIG}?environment=prod&label=a/b", content=b"{}")).json()
    assert (row["environment"], row["label"], row["version"]) == ("prod", "a/b", 1)
    assert (await http.get(f"{CONFIG}?environment=prod&label=a%2Fb")).json()["version"] == 1
    assert (await http.get(CONFIG)).status_code == 404
    refusal(await http.put(f"{CONFIG}?environment=a&environment=b", content=b"{}"), 400, "invalid_request")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"2"'}, 201),
        ({"If-Match": "2"}, 201),
        ({"If-Match": "*"}, 201),
        ({"If-Match": '"1"'}, 412),
        ({"If-None-Match": "*"}, 412),
        ({"If-Match": "two"}, 400),
        ({"If-None-Match": '"2"'}, 400),
    ],
)
async def test_a_publish_under_a_condition(http: Any, headers: dict[str, str], status: int) -> None:
    """Version 2 is running."""
    await http.put(CONFIG, content=b'{"a": 1}')
    await http.put(CONFIG, content=b'{"a": 2}')
    response = await http.put(CONFIG, content=b'{"a": 3}', headers=headers)
    assert response.status_code == status
    assert (await http.get(CONFIG)).json()["version"] == (3 if status == 201 else 2)


async def test_a_mismatch_names_both_versions(http: Any) -> None:
    """What the author worked on, and what is running."""
    await http.put(CONFIG, content=b'{"a": 1}')
    message = refusal(await http.put(CONFIG, content=b"{}", headers={"If-Match": '"7"'}), 412, "precondition_failed")
    assert "version 7" in message
    assert "version 1" in message


async def test_create_only_creates(http: Any) -> None:
    """While nothing is running, also after a delete."""
    create = {"If-None-Match": "*"}
    assert (await http.put(CONFIG, content=b"{}", headers=create)).status_code == 201
    assert (await http.put(CONFIG, content=b"{}", headers=create)).status_code == 412
    await http.delete(CONFIG)
    assert (await http.put(CONFIG, content=b"{}", headers=create)).json()["version"] == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        f'["{CANARY}"]'.encode(),
        f'{{"a": "{CANARY}", "a": 1}}'.encode(),
        f'{{"a": "{CANARY}", "b": NaN}}'.encode(),
        f'{{"a": "{CANARY}'.encode(),
        f'{{"a": "{CANARY}'.encode() + b'\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 1500 + b"]" * 1500 + b"}",
    ],
)
async def test_what_is_not_one_strict_json_object_is_refused(http: Any, body: bytes) -> None:
    """400, no value in the answer, nothing published."""
    response = await http.put(CONFIG, content=body)
    refusal(response, 400, "invalid_document")
    assert CANARY not in response.text
    assert (await http.get(CONFIG)).status_code == 404


async def test_a_body_over_the_limit_is_413(http: Any) -> None:
    """Announced or not; exactly the limit is fine. The limit here is 4096 bytes."""

    async def unannounced() -> Any:
        for _ in range(100):
            yield b" " * 100

    refusal(await http.put(CONFIG, content=b"{" + b" " * 4095 + b"}"), 413, "document_too_large")
    refusal(await http.put(CONFIG, content=unannounced()), 413, "document_too_large")
    assert (await http.put(CONFIG, content=b"{" + b" " * 4094 + b"}")).status_code == 201


async def test_a_body_that_breaks_off_is_not_published(service: Any, http: Any) -> None:
    """The connection ended before the body did."""
    token = (b"x-service-token", service.admin.secret.encode())
    broken = ({"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"})
    answer = await service.raw(CONFIG.encode(), method="PUT", headers=(token,), body=broken)
    assert answer.status == 400
    assert (await http.get(CONFIG)).status_code == 404


async def test_a_row_shows_the_newest_version(http: Any) -> None:
    """Also when it is a tombstone."""
    refusal(await http.get(CONFIG), 404, "not_found")
    await http.put(CONFIG, content=b"{}")
    await http.delete(CONFIG)
    response = await http.get(CONFIG)
    assert (response.json()["version"], response.json()["deleted"]) == (2, True)
    assert response.headers["etag"] == '"2"'


async def test_a_delete_leaves_a_tombstone(http: Any) -> None:
    """200 with its row; 404 when nothing runs; 412 when something else runs."""
    refusal(await http.delete(CONFIG), 404, "not_found")
    await http.put(CONFIG, content=b"{}")
    refusal(await http.delete(CONFIG, headers={"If-Match": '"3"'}), 412, "precondition_failed")
    response = await http.delete(CONFIG, headers={"If-Match": '"1"'})
    assert response.status_code == 200
    assert (response.json()["version"], response.json()["deleted"]) == (2, True)
    assert response.headers["etag"] == '"2"'
    refusal(await http.delete(CONFIG), 404, "not_found")
    refusal(await http.get("/api/v1/service/configs/orders"), 404, "not_found")


async def test_a_rollback_is_a_new_version(http: Any) -> None:
    """201 when it changes something, 200 when it does not."""
    await http.put(CONFIG, content=b'{"a": 1}')
    await http.put(CONFIG, content=b'{"a": 2}')
    refusal(
        await http.post(f"{CONFIG}/rollback", json={"version": 1}, headers={"If-Match": "9"}),
        412,
        "precondition_failed",
    )
    back = await http.post(f"{CONFIG}/rollback", json={"version": 1}, headers={"If-Match": "2"})
    assert (back.status_code, back.json()["version"], back.json()["changed"]) == (201, 3, True)
    again = await http.post(f"{CONFIG}/rollback", json={"version": 3})
    assert (again.status_code, again.json()["changed"]) == (200, False)
    assert (await http.get("/api/v1/service/configs/orders/formatted")).content == b'{"a": 1}'


async def test_there_is_no_rollback_to_what_is_not_there(http: Any) -> None:
    """Unknown versions, tombstones, unknown configs."""
    await http.put(CONFIG, content=b"{}")
    await http.delete(CONFIG)
    for version in (2, 3, 10**17):
        refusal(await http.post(f"{CONFIG}/rollback", json={"version": version}), 404, "not_found")
    refusal(await http.post(f"{CONFIGS}/unknown/rollback", json={"version": 1}), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"1",
        b'{"version": 0}',
        b'{"version": "1"}',
        b'{"version": 1.5}',
        b'{"version": true}',
        b'{"version": 1000000000000000000}',
        b'{"version": 1, "canary-44f0": 1}',
        b'{"canary-44f0": "canary-44f0"}',
        b'{"version": "1 canary-44f0"}',
        b"\xff",
    ],
)
async def test_a_rollback_that_cannot_be_read_is_refused(http: Any, body: bytes) -> None:
    """400; the answer repeats neither values nor names that are not ours."""
    response = await http.post(f"{CONFIG}/rollback", content=body)
    refusal(response, 400, "invalid_request")
    assert CANARY not in response.text


async def test_the_history_is_told_newest_first(http: Any) -> None:
    """With kind and source, without documents."""
    await http.put(CONFIG, content=b'{"a": 1}')
    await http.delete(CONFIG)
    await http.post(f"{CONFIG}/rollback", json={"version": 1})
    response = await http.get(f"{CONFIG}/history")
    versions = response.json()["versions"]
    assert [(one["version"], one["kind"], one["source_version"], one["deleted"]) for one in versions] == [
        (3, "rolled_back", 1, False),
        (2, "deleted", None, True),
        (1, "published", None, False),
    ]
    refusal(await http.get(f"{CONFIGS}/unknown/history"), 404, "not_found")


async def test_configs_are_listed_by_key(http: Any) -> None:
    """Newest versions, tombstones included."""
    for key in ("b", "a?environment=prod", "a"):
        await http.put(f"{CONFIGS}/{key}", content=b"{}")
    await http.delete(f"{CONFIGS}/b")
    rows = (await http.get(CONFIGS)).json()["configs"]
    assert [(row["name"], row["environment"], row["deleted"]) for row in rows] == [
        ("a", "default", False),
        ("a", "prod", False),
        ("b", "default", True),
    ]


async def test_a_token_is_shown_once(service: Any, http: Any) -> None:
    """Secret and key are in the answer to its creation and in nothing else."""
    response = await http.post(TOKENS, json={"name": "orders"})
    assert response.status_code == 201
    row = response.json()
    assert row["secret"].startswith("cst_")
    assert len(bytes.fromhex(row["key"])) == 32
    assert row["key_ids"] == [row["key_id"]]
    assert row["keys"] == [{"id": row["key_id"], "retires_at": None}]
    assert (row["environment"], row["scopes"], row["expires_at"]) == ("default", ["*@*:export,read"], None)
    listed = await http.get(TOKENS)
    assert row["secret"] not in listed.text
    assert row["key"] not in listed.text
    shown = {key: value for key, value in row.items() if key not in {"secret", "key", "key_id"}}
    assert listed.json()["tokens"][1] == shown


async def test_a_token_is_made_as_asked_for(service: Any, http: Any) -> None:
    """Environment, scopes and expiry."""
    expires = format_timestamp(service.clock.now + timedelta(days=1))
    wanted = {"name": "o", "environment": "prod", "scopes": ["orders-*@prod:read", "x@y:write"], "expires_at": expires}
    row = (await http.post(TOKENS, json=wanted)).json()
    assert {key: row[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": " "},
        {"name": 5},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": "*@*:read"},
        {"name": "x", "scopes": ["*"]},
        {"name": "x", "scopes": ["*@*:everything"]},
        {"name": "x", "environment": "a/b"},
        {"name": "x", "expires_at": "2020-01-01T00:00:00+00:00"},
        {"name": "x", "expires_at": "2030-01-01T00:00:00"},
        {"name": "x", "expires_at": CANARY},
        {"name": "x", "expires_in": CANARY},
        {"name": "x", CANARY: CANARY},
        [CANARY],
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(http: Any, body: Any) -> None:
    """400, without repeating what came in; no token is made."""
    response = await http.post(TOKENS, json=body)
    refusal(response, 400, "invalid_request")
    assert CANARY not in response.text
    assert len((await http.get(TOKENS)).json()["tokens"]) == 1


async def test_a_request_body_is_bounded_too(http: Any) -> None:
    """64 KiB are more than any request needs."""
    refusal(await http.post(TOKENS, content=b" " * 70_000), 413, "document_too_large")


async def test_a_token_is_revoked_by_its_id(service: Any, http: Any) -> None:
    """It is refused from then on; again is 200 and changes nothing."""
    row = (await http.post(TOKENS, json={"name": "orders"})).json()
    response = await http.delete(f"{TOKENS}/{row['id']}")
    assert response.status_code == 200
    assert response.json()["revoked_at"] == format_timestamp(service.clock.now)
    refused = await service.client().get(CONFIGS, headers={"X-Service-Token": row["secret"]})
    assert "expired or revoked" in refusal(refused, 401, "unauthenticated")
    service.clock.advance(60)
    assert (await http.delete(f"{TOKENS}/{row['id']}")).json() == response.json()


@pytest.mark.parametrize(
    ("token_id", "status"), [("99", 404), ("0", 404), ("1" * 30, 404), (CANARY, 400), ("1.5", 400)]
)
async def test_only_a_known_id_can_be_revoked(http: Any, token_id: str, status: int) -> None:
    """What is no number is a malformed request, and is not repeated."""
    response = await http.delete(f"{TOKENS}/{token_id}")
    assert response.status_code == status
    assert CANARY not in response.text


@pytest.mark.parametrize(("body", "overlap"), [(b"", 86_400), (b"{}", 86_400), (b'{"overlap_seconds": 90}', 90)])
async def test_a_key_is_rotated_and_shown_once(service: Any, http: Any, body: bytes, overlap: int) -> None:
    """The new key is in this answer and in no other; the old one ends after the overlap, a day by default."""
    made = (await http.post(TOKENS, json={"name": "orders"})).json()
    response = await http.post(f"{TOKENS}/{made['id']}/key", content=body)
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    row = response.json()
    assert len(bytes.fromhex(row["key"])) == 32
    assert row["key"] != made["key"]
    assert "secret" not in row
    end = format_timestamp(service.clock.now + timedelta(seconds=overlap))
    assert row["keys"] == [{"id": row["key_id"], "retires_at": None}, {"id": made["key_id"], "retires_at": end}]
    assert row["key_ids"] == [row["key_id"], made["key_id"]]
    listed = await http.get(TOKENS)
    assert row["key"] not in listed.text
    assert listed.json()["tokens"][1] == {name: row[name] for name in row if name not in {"key", "key_id"}}
    service.clock.advance(overlap)
    assert (await http.get(TOKENS)).json()["tokens"][1]["key_ids"] == [row["key_id"]]


async def test_both_keys_open_what_is_served_during_an_overlap_and_the_new_one_alone_after_it(
    service: Any, http: Any
) -> None:
    """Over the wire: who says nothing gets what the old key opens, until it has retired; nothing was restarted."""
    await service.publish("orders", b'{"a": 1}')
    made = (await http.post(TOKENS, json={"name": "orders"})).json()
    reader = service.client(headers={"X-Service-Token": made["secret"]})
    old = bytes.fromhex(made["key"])

    async def read() -> bytes:
        response = await reader.get("/api/v1/service/configs/orders")
        assert response.status_code == 200
        return bytes(response.content)

    assert decrypt(await read(), old) == b'{"a": 1}'
    row = (await http.post(f"{TOKENS}/{made['id']}/key", json={"overlap_seconds": 60})).json()
    new = bytes.fromhex(row["key"])
    assert decrypt(await read(), old) == b'{"a": 1}'
    service.clock.advance(60)
    assert decrypt(await read(), new) == b'{"a": 1}'
    with pytest.raises(DecryptionError):
        decrypt(await read(), old)
    row = (await http.post(f"{TOKENS}/{made['id']}/key", json={"overlap_seconds": 0})).json()
    assert row["key_ids"] == [row["key_id"]]
    assert decrypt(await read(), bytes.fromhex(row["key"])) == b'{"a": 1}'
    with pytest.raises(DecryptionError):
        decrypt(await read(), new)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"0",
        b'{"overlap_seconds": -1}',
        b'{"overlap_seconds": 7776001}',
        b'{"overlap_seconds": 1.5}',
        b'{"overlap_seconds": true}',
        b'{"overlap_seconds": "canary-44f0"}',
        b'{"overlap_seconds": null}',
        b'{"overlap_seconds": 1' + b"0" * 400 + b"}",
        b'{"overlap": 60, "canary-44f0": "canary-44f0"}',
        b"\xff",
    ],
)
async def test_a_rotation_that_makes_no_sense_is_refused(http: Any, body: bytes) -> None:
    """400, without repeating what came in; the key stays."""
    before = (await http.get(TOKENS)).json()
    response = await http.post(f"{TOKENS}/1/key", content=body)
    refusal(response, 400, "invalid_request")
    assert CANARY not in response.text
    assert (await http.get(TOKENS)).json() == before


@pytest.mark.parametrize(
    ("token_id", "status"), [("99", 404), ("0", 404), ("1" * 30, 404), (CANARY, 400), ("1.5", 400)]
)
async def test_only_a_known_id_can_be_given_a_key(http: Any, token_id: str, status: int) -> None:
    """What is no number is a malformed request, and is not repeated."""
    response = await http.post(f"{TOKENS}/{token_id}/key")
    assert response.status_code == status
    assert CANARY not in response.text


async def test_no_key_for_a_token_that_is_revoked_or_full(service: Any, http: Any) -> None:
    """409 with the remedy, and nothing is changed."""
    made = (await http.post(TOKENS, json={"name": "orders"})).json()
    for _ in range(3):
        assert (await http.post(f"{TOKENS}/{made['id']}/key")).status_code == 201
    assert "overlap of 0" in refusal(await http.post(f"{TOKENS}/{made['id']}/key"), 409, "conflict")
    await http.delete(f"{TOKENS}/{made['id']}")
    entries = len(service.store.entries)
    assert "create a new token" in refusal(await http.post(f"{TOKENS}/{made['id']}/key"), 409, "conflict")
    assert len(service.store.entries) == entries


@pytest.mark.parametrize("name", ["a%20b", "..", "api", "a" * 129, "%00"])
async def test_what_is_no_name_is_refused(service: Any, name: str) -> None:
    """On every route of a config."""
    token = (b"x-service-token", service.admin.secret.encode())
    for method, view in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/rollback"), ("GET", "/history")):
        answer = await service.raw(f"{CONFIGS}/{name}{view}".encode(), method=method, headers=(token,))
        assert answer.status == 400
        assert answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", CONFIG, "DELETE, GET, PUT"),
        ("POST", CONFIGS, "GET"),
        ("GET", f"{CONFIG}/rollback", "POST"),
        ("PATCH", TOKENS, "GET, POST"),
        ("GET", f"{TOKENS}/1", "DELETE"),
        ("GET", f"{TOKENS}/1/key", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_with_all_that_are_right(http: Any, method: str, path: str, allowed: str) -> None:
    """Over all routes of the path."""
    response = await http.request(method, path)
    refusal(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", [f"{CONFIGS}/", f"{CONFIG}/other", "/api/v1/manage/nothing", f"{TOKENS}/1/x"])
async def test_what_is_no_route_is_not_found(http: Any, path: str) -> None:
    """Without a redirect, which would name a host."""
    refusal(await http.get(path), 404, "not_found")


async def test_documents_are_not_read_from_those_who_may_not_write(service: Any) -> None:
    """403 before the body is taken in."""
    reader = await service.mint()
    client = service.client(reader)
    refusal(await client.put(CONFIG, content=b"not json"), 403, "access_denied")
    refusal(await client.post(f"{CONFIG}/rollback", content=b"not json"), 403, "access_denied")
    refusal(await client.post(TOKENS, content=b"not json"), 403, "access_denied")


async def test_an_unforeseen_failure_is_a_500_in_the_same_shape(
    service: Any, http: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the answer nor the log has the text of the failure."""

    async def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(service.operations, "publish", failing)
    response = await http.put(CONFIG, content=b"{}")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert CANARY not in response.text
    assert CANARY not in caplog.text
    assert "RuntimeError at failing" in caplog.text
