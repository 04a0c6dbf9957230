"""The wire protocol's routes, over HTTP without a socket."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timezone
from typing import Any

import pytest

from config_client.crypto import Binding, Keyring, decrypt
from config_client.protocol import Metadata, Position, metadata_headers, parse_config_list, parse_metadata
from config_service.api.security_headers import SECURITY_HEADERS
from config_service.api.service import describe
from config_service.domain.documents import Document
from config_service.domain.errors import StoreError, StoreFullError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, NewVersion

pytestmark = pytest.mark.anyio
CONFIGS = "/api/v1/service/configs"
CONFIG = f"{CONFIGS}/orders"
STATES = "/api/v1/service/watch"
RAW = b'{ "b": 1.10,\n "a": "x" }'


@pytest.fixture
async def reader(service: Any) -> Any:
    """A service token as it is by default: read and export."""
    return await service.mint()


@pytest.fixture
async def http(service: Any, reader: Any) -> Any:
    await service.publish("orders", RAW)
    return service.client(reader, {"X-Request-Id": "test"})


def code(response: Any) -> str:
    error: dict[str, str] = response.json()["error"]
    assert error["message"]
    return error["code"]


async def test_a_config_comes_sealed_under_the_key_of_the_token(service: Any, http: Any, reader: Any) -> None:
    """Format 1: nonce, ciphertext, tag; the published bytes inside."""
    response = await http.get(CONFIG)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    assert decrypt(response.content, reader.key) == RAW
    assert len(response.content) == len(RAW) + 28
    admins = await service.client(service.admin).get(CONFIG)
    assert decrypt(admins.content, service.admin.key) == RAW


async def test_the_headers_tell_what_was_served(service: Any, http: Any, reader: Any, epoch: str) -> None:
    """Version, revision, epoch, key, author and time, as the SDK reads them; nothing may be stored."""
    response = await http.get(CONFIG)
    told = parse_metadata(response.headers)
    assert told.version == 1
    assert told.position is not None
    assert str(told.position) == f"{epoch}-3"
    assert (told.environment, told.label, told.changed_by) == ("default", "main", service.admin.token.id)
    assert told.timestamp == service.clock.now
    assert response.headers["x-config-timestamp"] == "2026-01-31T12:00:00.000250+00:00"
    assert response.headers["etag"] == f'"{epoch}-3-{reader.token.key_ids[0]}-1"'
    assert response.headers["vary"] == "Accept, X-Service-Token"
    assert response.headers["cache-control"] == "no-store"


async def test_every_get_of_a_version_has_the_same_bytes(http: Any) -> None:
    """Sealed once, not per request."""
    assert (await http.get(CONFIG)).content == (await http.get(CONFIG)).content


async def test_what_the_client_holds_is_not_sent_again(http: Any, service: Any) -> None:
    """304 with the same headers and no body, until something is published."""
    first = await http.get(CONFIG)
    for held in (first.headers["etag"], f"W/{first.headers['etag']}", f'"x", {first.headers["etag"]}', "*"):
        again = await http.get(CONFIG, headers={"If-None-Match": held})
        assert again.status_code == 304
        assert again.content == b""
        different = {"content-length", "content-type"}
        assert {key: value for key, value in first.headers.items() if key not in different} == dict(again.headers)
    await service.publish("orders", b"{}")
    changed = await http.get(CONFIG, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200


async def test_head_is_get_without_the_body(http: Any) -> None:
    """Same status and headers, on every route."""
    for path in (CONFIG, CONFIGS, f"{CONFIG}/formatted?format=yaml", f"{CONFIG}?version=9"):
        get, head = await http.get(path), await http.head(path)
        assert head.status_code == get.status_code
        assert head.headers == get.headers
        assert head.content == b""


async def test_an_older_version_comes_with_its_own_headers(http: Any, service: Any, reader: Any) -> None:
    """By number; empty means the running one."""
    await service.publish("orders", b'{"new": true}')
    old = await http.get(CONFIG, params={"version": "1"})
    assert decrypt(old.content, reader.key) == RAW
    assert old.headers["x-config-version"] == "1"
    assert old.headers["x-config-revision"] == "3"
    assert (await http.get(CONFIG, params={"version": ""})).headers["x-config-version"] == "2"


async def test_environment_and_label_are_exact(service: Any, http: Any, reader: Any) -> None:
    """No fallback; the token's default environment and main when none is named."""
    await service.publish("orders", b'{"e": "prod"}', "prod")
    await service.publish("orders", b'{"l": "a/b"}', "default", "a/b")
    prod = await http.get(CONFIG, params={"environment": "prod"})
    assert decrypt(prod.content, reader.key) == b'{"e": "prod"}'
    label = await http.get(CONFIG, params={"label": "a/b"})
    assert decrypt(label.content, reader.key) == b'{"l": "a/b"}'
    assert label.headers["x-config-label"] == "a/b"
    assert (await http.get(CONFIG, params={"environment": "prod", "label": "a/b"})).status_code == 404
    at_home = await service.mint(environment="prod")
    own = await service.client(at_home).get(CONFIG, params={"environment": "", "label": ""})
    assert decrypt(own.content, at_home.key) == b'{"e": "prod"}'


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("version=0", 400),
        ("version=x", 400),
        ("version=-1", 400),
        ("version=2", 404),
        ("version=999999999999999999", 404),
        ("version=9999999999999999999", 400),
        ("environment=none", 404),
        ("environment=../x", 400),
        ("environment=a%00", 400),
        ("environment=default&environment=prod", 400),
        ("label=none", 404),
        ("label=/", 400),
        ("label=%ff", 400),
        ("unknown=1", 200),
    ],
)
async def test_a_query_is_valid_or_refused(http: Any, query: str, status: int) -> None:
    """On the sealed and the plain route alike; unknown parameters are ignored."""
    for path in (CONFIG, f"{CONFIG}/formatted"):
        assert (await http.get(f"{path}?{query}")).status_code == status


@pytest.mark.parametrize("name", ["a%20b", "-a", ".a", "a..b", "api", "HEALTHZ", "a" * 129, "%C3%A9", "%FF", "a:b"])
async def test_what_is_no_name_is_refused(http: Any, name: str) -> None:
    """The rule is told, the input is not repeated."""
    for view in ("", "/formatted", "/watch"):
        response = await http.get(f"{CONFIGS}/{name}{view}")
        assert response.status_code == 400
        assert code(response) == "invalid_request"
        assert "invalid config name" in response.json()["error"]["message"]


async def test_a_name_of_10_kb_is_refused(http: Any) -> None:
    """By the size of the path."""
    assert (await http.get(f"{CONFIGS}/{'a' * 10_000}")).status_code == 414


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/service",
        "/api/v1/service/",
        "/api/v1/services/configs",
        "/api/v1/service/configsx",
        f"{CONFIGS}/",
        f"{CONFIG}/",
        f"{CONFIG}/other",
        f"{CONFIG}/formatted/",
        f"{CONFIG}/formatted/x",
        f"{CONFIG}/watch/x",
        f"{CONFIG}/Formatted",
        "/",
        "/api/v1/manage",
        "/docs",
        "/openapi.json",
    ],
)
async def test_what_is_no_route_is_not_found(http: Any, path: str) -> None:
    """In the shape of every other error."""
    response = await http.get(path)
    assert response.status_code == 404
    assert code(response) == "not_found"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_the_routes_are_read_only(http: Any, method: str) -> None:
    """405 names what is allowed."""
    for path in (CONFIGS, CONFIG, f"{CONFIG}/formatted", f"{CONFIG}/watch"):
        response = await http.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, HEAD"
        assert code(response) == "method_not_allowed"


async def test_tokens_are_asked_for_on_every_route(service: Any, http: Any) -> None:
    """Missing, wrong and revoked tokens are 401; two of them are 400."""
    revoked = await service.mint()
    await service.operations.tokens.revoke(service.admin.token, revoked.token.id)
    for path in (CONFIGS, CONFIG, f"{CONFIG}/formatted", f"{CONFIG}/watch"):
        for headers in ({}, {"X-Service-Token": ""}, {"X-Service-Token": "cst_x"}, {"X-Service-Token": revoked.secret}):
            response = await service.client().get(path, headers=headers)
            assert response.status_code == 401
            assert code(response) == "unauthenticated"
            assert "www-authenticate" in response.headers
        twice = [("X-Service-Token", service.admin.secret)] * 2
        assert (await service.client().get(path, headers=twice)).status_code == 400


async def test_out_of_scope_is_forbidden_whether_it_exists_or_not(service: Any, http: Any) -> None:
    """Existence is not told to those who may not read."""
    client = service.client(await service.mint("other@*:read,export", "orders@test:read,export"))
    for name in ("orders", "unknown"):
        for view in ("", "/formatted", "/watch"):
            response = await client.get(f"{CONFIGS}/{name}{view}", params={"environment": "default"})
            assert response.status_code == 403
            assert code(response) == "access_denied"


async def test_what_is_not_there_is_not_found(service: Any, http: Any) -> None:
    """Never published, and deleted."""
    await service.operations.delete(service.admin.token, ConfigKey("orders"))
    for name in ("orders", "unknown"):
        for view in ("", "/formatted"):
            response = await http.get(f"{CONFIGS}/{name}{view}")
            assert response.status_code == 404
            assert code(response) == "not_found"
    assert (await http.get(f"{CONFIGS}/unknown/watch")).status_code == 404


@pytest.mark.parametrize(
    ("query", "content_type", "content"),
    [
        ("", "application/json", b'{"db": {"port": 1}}'),
        ("?format=json", "application/json", b'{"db": {"port": 1}}'),
        ("?format=yaml", "application/yaml", b"db:\n  port: 1\n"),
        ("?format=env", "text/plain; charset=utf-8", b"DB_PORT=1\n"),
    ],
)
async def test_plaintext_comes_in_the_format_asked_for(
    service: Any, http: Any, epoch: str, query: str, content_type: str, content: bytes
) -> None:
    """JSON as published, YAML, and variables; with an entity tag that names the format and no key."""
    await service.publish("orders", b'{"db": {"port": 1}}')
    response = await http.get(f"{CONFIG}/formatted{query}")
    assert response.status_code == 200
    assert response.headers["content-type"] == content_type
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.content == content
    fmt = query.rpartition("=")[2] or "json"
    assert response.headers["etag"] == f'"{epoch}-4-plain-{fmt}"'
    held = {"If-None-Match": response.headers["etag"]}
    assert (await http.get(f"{CONFIG}/formatted{query}", headers=held)).status_code == 304


async def test_an_unknown_format_is_refused(http: Any) -> None:
    """The known ones are told."""
    response = await http.get(f"{CONFIG}/formatted?format=toml")
    assert response.status_code == 400
    assert "json, yaml or env" in response.json()["error"]["message"]


async def test_plaintext_needs_the_right_to_export(service: Any, http: Any) -> None:
    """Read alone is for sealed payloads."""
    client = service.client(await service.mint("*@*:read"))
    assert (await client.get(CONFIG)).status_code == 200
    assert (await client.get(f"{CONFIG}/formatted")).status_code == 403


async def test_what_has_no_faithful_form_is_422_with_its_path(service: Any, http: Any) -> None:
    """Two paths that collide as variables; no value is told."""
    await service.publish("orders", b'{"a": {"b": "canary-1"}, "a_b": "canary-2"}')
    response = await http.get(f"{CONFIG}/formatted?format=env")
    assert response.status_code == 422
    assert code(response) == "not_renderable"
    assert response.json()["error"]["path"].startswith("/a")
    assert "canary" not in response.text


async def test_the_list_is_what_the_sdk_reads(service: Any, http: Any) -> None:
    """One row per name; deleted names are not valid."""
    service.clock.now = datetime(2026, 2, 1, tzinfo=timezone.utc)
    await service.publish("gone")
    await service.operations.delete(service.admin.token, ConfigKey("gone"))
    response = await http.get(CONFIGS)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    rows = parse_config_list(response.content)
    assert [(row.name, row.is_valid) for row in rows] == [("gone", False), ("orders", True)]
    assert rows[0].updated_at == service.clock.now
    assert b'"2026-02-01T00:00:00+00:00"' in response.content


async def test_a_failing_store_is_503_or_507_for_what_needs_it(service: Any, http: Any) -> None:
    """What runs comes from memory all the same."""
    await service.publish("orders", b"{}")
    service.store.fail_reads = StoreError("/srv/x.db is away")
    assert (await http.get(CONFIG)).status_code == 200
    response = await http.get(CONFIG, params={"version": "1"})
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "/srv" not in response.text
    service.store.fail = StoreFullError("full")
    full = await service.client(service.admin).put("/api/v1/manage/configs/orders", content=b'{"a": 1}')
    assert full.status_code == 507
    assert code(full) == "store_full"


async def test_headers_stay_right_when_many_versions_are_served(
    service: Any, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded headers are kept for a bounded number of versions."""
    monkeypatch.setattr("config_service.api.service._REMEMBERED", 2)
    for number in range(2, 8):
        await service.publish("orders", b'{"n": %d}' % number)
        for version in (1, number):
            response = await http.get(CONFIG, params={"version": str(version)})
            assert response.headers["x-config-version"] == str(version)
    assert len(service.app._service._described) <= 2


async def test_the_head_of_a_watch_is_told_without_a_stream(service: Any, http: Any, epoch: str) -> None:
    """Its headers, and nothing stays open."""
    response = await http.head(f"{CONFIG}/watch", headers={"Last-Event-ID": f"{epoch}-1"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-config-heartbeat"] == "5"
    assert response.headers["x-config-replay"] == "exact"
    assert (response.headers["x-config-epoch"], response.headers["x-config-revision"]) == (epoch, "3")
    assert response.headers["x-accel-buffering"] == "no"
    assert len(service.app._hub) == 0


@pytest.mark.parametrize("query", ["environment=../x", "label=//", "environment=a&environment=b"])
async def test_the_query_of_a_watch_is_valid_or_refused(http: Any, query: str) -> None:
    """As on the other routes."""
    assert (await http.get(f"{CONFIG}/watch?{query}")).status_code == 400


ACCEPT_BOUND = {"Accept": "application/vnd.config-service.sealed; format=2"}


async def test_format_2_comes_when_it_is_accepted(http: Any, reader: Any, epoch: str) -> None:
    """Bound to what it is, with a tag of its own; each format's tag is 304 for that format only."""
    response = await http.get(CONFIG, headers=ACCEPT_BOUND)
    assert response.headers["content-type"] == "application/vnd.config-service.sealed; format=2"
    binding = Binding(epoch, "orders", "default", "main", 1, 3)
    assert Keyring([reader.key]).open_bound(response.content) == (binding, RAW)
    tag = response.headers["etag"]
    assert tag == f'"{epoch}-3-{reader.token.key_ids[0]}-2"'
    assert (await http.get(CONFIG, headers=ACCEPT_BOUND | {"If-None-Match": tag})).status_code == 304
    first_format = await http.get(CONFIG, headers={"If-None-Match": tag})
    assert first_format.status_code == 200
    assert decrypt(first_format.content, reader.key) == RAW
    assert (await http.get(CONFIG, headers=ACCEPT_BOUND)).content == response.content


@pytest.mark.parametrize("before", ["", ",", " , ,", "text/html,,", "text/html , \t,"])
async def test_empty_elements_of_a_list_are_nothing(http: Any, before: str) -> None:
    """RFC 9110, 5.6.1.2: proxies that join and strip lists leave some behind."""
    response = await http.get(CONFIG, headers={"Accept": before + ACCEPT_BOUND["Accept"]})
    assert response.headers["content-type"] == ACCEPT_BOUND["Accept"]


@pytest.mark.parametrize("accept", ["*/*", "application/octet-stream", f"{ACCEPT_BOUND['Accept']}; q=0"])
async def test_format_1_comes_otherwise(http: Any, accept: str) -> None:
    """Also for a client that excludes format 2."""
    response = await http.get(CONFIG, headers={"Accept": accept})
    assert response.headers["content-type"] == "application/octet-stream"


async def test_the_key_follows_what_the_client_holds(service: Any, http: Any, reader: Any) -> None:
    """During a rotation: who names the new key gets it; who does not, or names the old one, gets the old one."""
    rotated = await service.operations.tokens.rotate_key(service.admin.token, reader.token.id, 3600)
    new, old = rotated.token.key_ids
    for header, key, key_id in (
        ({}, reader.key, old),
        ({"X-Config-Key-Ids": old}, reader.key, old),
        ({"X-Config-Key-Ids": f"{old}, {new}"}, rotated.key, new),
        ({"X-Config-Key-Ids": "0" * 16}, rotated.key, new),
    ):
        response = await http.get(CONFIG, headers=header)
        assert decrypt(response.content, key) == RAW
        assert response.headers["etag"].split("-")[2] == key_id
        bound = await http.get(CONFIG, headers=header | ACCEPT_BOUND)
        assert Keyring([key]).open_bound(bound.content)[1] == RAW
    assert code(await http.get(CONFIG, headers={"X-Config-Key-Ids": "all of them"})) == "invalid_request"


async def commit_elsewhere(service: Any, content: bytes) -> str:
    """Commit the next version of orders as another process would; return its position."""
    key = ConfigKey("orders")
    base = len(service.store.held[key])
    sealed = service.app._vault.seal_document(content, key, base + 1)
    change = NewVersion(key, base, sealed, ChangeKind.PUBLISHED, 1, service.clock())
    version = await service.store.commit_version(change)
    return f"{service.store.epoch}-{version.revision}"


@pytest.mark.parametrize("path", [CONFIG, f"{CONFIG}/formatted"])
async def test_a_client_reads_what_it_has_heard_of(service: Any, http: Any, path: str) -> None:
    """What is beyond this process is read from the log first; what is not needs no look at it."""
    position = await commit_elsewhere(service, b'{"n": 2}')
    assert (await http.get(path)).headers["x-config-version"] == "1"
    here = str(service.operations.position)
    service.store.fail_reads = StoreError("must not be asked")
    assert (await http.get(path, headers={"X-Config-Min-Revision": here})).headers["x-config-version"] == "1"
    assert (await http.get(path, headers={"X-Config-Min-Revision": f"{'0' * 24}-99"})).status_code == 200
    service.store.fail_reads = None
    assert (await http.get(path, headers={"X-Config-Min-Revision": position})).headers["x-config-version"] == "2"


@pytest.mark.parametrize("path", [CONFIG, f"{CONFIG}/formatted", f"{CONFIG}?version=1"])
async def test_a_process_that_is_behind_says_so(
    http: Any, epoch: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After, after the time that a request may wait, or at once for a later history."""
    monkeypatch.setattr("config_service.delivery.reaching.PATIENCE", 0.05)
    for position in (f"{epoch}-99", f"{'f' * 24}-1"):
        response = await http.get(path, headers={"X-Config-Min-Revision": position})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert code(response) == "unavailable"
    malformed = await http.get(path, headers={"X-Config-Min-Revision": "99"})
    assert malformed.status_code == 400
    assert code(malformed) == "invalid_request"


async def test_rights_are_looked_at_before_anything_is_waited_for(service: Any, http: Any, epoch: str) -> None:
    """A token without them learns nothing of how far the service is."""
    narrow = service.client(await service.mint("other@*:read"))
    for path in (CONFIG, f"{CONFIG}/formatted"):
        response = await narrow.get(path, headers={"X-Config-Min-Revision": f"{epoch}-99"})
        assert response.status_code == 403


async def watch(service: Any, minted: Any, body: bytes, *headers: tuple[bytes, bytes], method: str = "POST") -> Any:
    """Open a state-first stream of a service that is stopping as soon as it is open: the answer then has an end."""
    token = () if minted is None else ((b"x-service-token", minted.secret.encode()),)
    asyncio.get_running_loop().call_later(0.05, service.app.end_streams)
    message = {"type": "http.request", "body": body, "more_body": False}
    return await service.raw(STATES.encode(), method=method, headers=(*token, *headers), body=(message,), keep=True)


async def test_a_state_first_watch_says_where_it_begins(service: Any, http: Any, reader: Any, epoch: str) -> None:
    """Its headers: heartbeat, position, the environment that counts where none is named; and nothing may be stored."""
    answer = await watch(service, reader, b'[{"name": "orders"}]')
    assert answer.status == 200
    assert re.fullmatch("[0-9a-f]{16}", answer.headers.pop("x-request-id"))
    assert answer.headers == {name.decode(): value.decode() for name, value in SECURITY_HEADERS} | {
        "content-type": "text/event-stream",
        "x-accel-buffering": "no",
        "x-config-heartbeat": "15",
        "x-config-epoch": epoch,
        "x-config-revision": "3",
        "x-config-environment": "default",
    }
    assert answer.body.startswith(b":\nevent: config_state\ndata: {")
    assert answer.body.endswith(b'event: synced\ndata: {"epoch":"%s","revision":3}\n\n' % epoch.encode())


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        (b"", (), 400, "invalid_request"),
        (b"[]", (), 400, "invalid_request"),
        (b'[{"name": "../x"}]', (), 400, "invalid_request"),
        (b'[{"name": "orders", "epoch": "e"}]', (), 400, "invalid_request"),
        (b'[{"name": "orders"}]', ((b"x-config-key-ids", b"?"),), 400, "invalid_request"),
        (b" " * (4 * 1024 * 1024 + 1), (), 413, "document_too_large"),
        (b"[]", ((b"content-length", b"99999999"),), 413, "document_too_large"),
    ],
)
async def test_a_malformed_state_first_watch_is_refused(
    service: Any, reader: Any, body: bytes, headers: tuple[tuple[bytes, bytes], ...], status: int, error: str
) -> None:
    """In the shape of every error; no stream is left."""
    answer = await watch(service, reader, body, *headers)
    assert answer.status == status
    assert answer.json()["error"]["code"] == error
    assert len(service.app._hub) == 0


async def test_a_state_first_watch_needs_a_token_and_a_post(service: Any, reader: Any) -> None:
    """401 without one, whatever the body; every other method is told which one there is."""
    answer = await watch(service, None, b"not even JSON")
    assert answer.status == 401
    client = service.client(reader)
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        response = await client.request(method, STATES)
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
    assert (await client.post(f"{STATES}/")).status_code == 404
    assert (await client.post(CONFIG)).headers["allow"] == "GET, HEAD"


async def test_a_state_first_watch_ahead_of_the_service_is_told_to_come_back(
    service: Any, reader: Any, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After and no stream."""
    monkeypatch.setattr("config_service.delivery.reaching.PATIENCE", 0.02)
    body = b'[{"name": "orders", "epoch": "%s", "revision": 99}]' % epoch.encode()
    message = {"type": "http.request", "body": body, "more_body": False}
    headers = ((b"x-service-token", reader.secret.encode()),)
    answer = await service.raw(STATES.encode(), method="POST", headers=headers, body=(message,))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "unavailable"


async def test_a_payload_is_described_as_the_protocol_describes_it() -> None:
    """The lines that are made without a detour are those of the module that clients read them with, in its order."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=timezone.utc)
    document = Document(
        key=ConfigKey("orders", "prod", "release/1"),
        version=7,
        revision=12,
        kind=ChangeKind.PUBLISHED,
        changed_by=3,
        timestamp=moment,
        content=b"{}",
    )
    position = Position("0" * 24, 12)
    metadata = Metadata(
        version=7,
        position=position,
        environment="prod",
        label="release/1",
        changed_by=3,
        timestamp=moment,
        etag='"tag"',
    )
    expected = "".join(f"{name.lower()}: {value}\r\n" for name, value in metadata_headers(metadata).items())
    assert describe(document, position, '"tag"') == expected.encode()
