"""Every route against every kind of token; the routes come from the application, so that none can be forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from routes import all_routes

from config_client.protocol import WATCH_PATH
from config_service.api import manage
from config_service.domain.keys import ConfigKey

pytestmark = pytest.mark.anyio
SERVICE = "/api/v1/service/configs"
MANAGE = manage.PREFIX

RIGHTS = {"read", "export", "write", "admin"}
ANY_TOKEN, NO_TOKEN = RIGHTS | {"elsewhere"}, None
"""Routes that answer every token (with what it may see), and those that ask for none."""

ALLOWED: dict[tuple[str, str], set[str] | None] = {
    ("GET", SERVICE): ANY_TOKEN,
    ("GET", f"{SERVICE}/{{name}}"): {"read"},
    ("GET", f"{SERVICE}/{{name}}/formatted"): {"export"},
    ("HEAD", f"{SERVICE}/{{name}}/watch"): {"read"},
    ("GET", f"{MANAGE}/configs"): ANY_TOKEN,
    ("GET", f"{MANAGE}/configs/{{name}}"): {"read", "write"},
    ("PUT", f"{MANAGE}/configs/{{name}}"): {"write"},
    ("DELETE", f"{MANAGE}/configs/{{name}}"): {"write"},
    ("POST", f"{MANAGE}/configs/{{name}}/rollback"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/history"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/draft"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/draft/document"): {"write"},
    ("PUT", f"{MANAGE}/configs/{{name}}/draft"): {"write"},
    ("PATCH", f"{MANAGE}/configs/{{name}}/draft"): {"write"},
    ("POST", f"{MANAGE}/configs/{{name}}/draft/validate"): {"write"},
    ("POST", f"{MANAGE}/configs/{{name}}/draft/publish"): {"write"},
    ("POST", f"{MANAGE}/configs/{{name}}/draft/revert"): {"write"},
    ("POST", f"{MANAGE}/drafts/publish"): {"write"},
    ("DELETE", f"{MANAGE}/configs/{{name}}/draft"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/diff"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/savepoints"): {"write"},
    ("PUT", f"{MANAGE}/configs/{{name}}/savepoints/{{savepoint}}"): {"write"},
    ("DELETE", f"{MANAGE}/configs/{{name}}/savepoints/{{savepoint}}"): {"write"},
    ("POST", f"{MANAGE}/archive/candidates"): {"admin"},
    ("POST", f"{MANAGE}/archive"): {"admin"},
    ("GET", f"{MANAGE}/schedules"): ANY_TOKEN,
    ("GET", f"{MANAGE}/configs/{{name}}/schedule"): {"write"},
    ("DELETE", f"{MANAGE}/configs/{{name}}/schedule"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/schema"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/schema/document"): {"write"},
    ("GET", f"{MANAGE}/configs/{{name}}/schema/history"): {"write"},
    ("PUT", f"{MANAGE}/configs/{{name}}/schema"): {"write"},
    ("DELETE", f"{MANAGE}/configs/{{name}}/schema"): {"write"},
    ("POST", f"{MANAGE}/tokens"): {"admin"},
    ("GET", f"{MANAGE}/tokens"): {"admin"},
    ("POST", f"{MANAGE}/tokens/{{token_id}}/key"): {"admin"},
    ("DELETE", f"{MANAGE}/tokens/{{token_id}}"): {"admin"},
    ("GET", f"{MANAGE}/keys"): {"admin"},
    ("POST", f"{MANAGE}/keys/rotate"): {"admin"},
    ("POST", f"{MANAGE}/keys/rotate-master"): {"admin"},
    ("POST", f"{MANAGE}/keys/reseal"): {"admin"},
    ("GET", f"{MANAGE}/audit"): {"admin"},
    ("GET", f"{MANAGE}/audit/head"): {"admin"},
    ("GET", f"{MANAGE}/audit/verify"): {"admin"},
    ("GET", f"{MANAGE}/backup"): {"admin"},
    ("GET", f"{MANAGE}/export"): set(),  # admin, export and write together
    ("HEAD", SERVICE): ANY_TOKEN,
    ("HEAD", f"{SERVICE}/{{name}}"): {"read"},
    ("HEAD", f"{SERVICE}/{{name}}/formatted"): {"export"},
    ("GET", f"{SERVICE}/{{name}}/watch"): {"read"},
    ("POST", WATCH_PATH): ANY_TOKEN,  # what a token may not read is stated as refused
    ("GET", manage.OPENAPI_PATH): NO_TOKEN,
    ("HEAD", manage.OPENAPI_PATH): NO_TOKEN,
    ("GET", "/healthz"): NO_TOKEN,
    ("HEAD", "/healthz"): NO_TOKEN,
    ("GET", "/readyz"): NO_TOKEN,
    ("HEAD", "/readyz"): NO_TOKEN,
    ("GET", f"{MANAGE}/watchers"): {"admin"},
    ("GET", "/metrics"): {"admin"},
    ("HEAD", "/metrics"): {"admin"},
}
BODY = {
    ("PUT", f"{MANAGE}/configs/{{name}}"): b'{"a": 1}',
    ("POST", f"{MANAGE}/configs/{{name}}/rollback"): b'{"version": 1}',
    ("PUT", f"{MANAGE}/configs/{{name}}/draft"): b'{"a": 2}',
    ("PATCH", f"{MANAGE}/configs/{{name}}/draft"): b'{"a": 3}',
    ("POST", f"{MANAGE}/archive/candidates"): b'{"before": "2026-01-01T00:00:00Z"}',
    ("POST", f"{MANAGE}/archive"): b'{"before": "2026-01-01T00:00:00Z", "configs": '
    b'[{"name": "orders", "environment": "default", "label": "main", "versions": [1]}]}',
    ("POST", f"{MANAGE}/drafts/publish"): b'{"drafts": [{"name": "orders"}]}',
    ("PUT", f"{MANAGE}/configs/{{name}}/schema"): b'{"required": ["a"]}',
    ("POST", f"{MANAGE}/tokens"): b'{"name": "x"}',
    ("POST", WATCH_PATH): b'[{"name": "orders"}]',
}
WITHOUT_ENVIRONMENT = {f"{SERVICE}/{{name}}/watch"}
"""Routes that, asked without an environment, mean every one that the token may read."""
MALFORMED = {
    "empty": b"",
    "white space": b"  ",
    "a prefix alone": b"cst_",
    "not ASCII": b"cst_\xc3\xa9\xff",
    "control characters": b"cst_\x01\x7f",
    "long": b"cst_" + b"A" * 20_000,
}
"""What is in the header when it is no token at all."""
HEADERS = {("PATCH", f"{MANAGE}/configs/{{name}}/draft"): {"Content-Type": "application/merge-patch+json"}}


def test_the_table_has_every_route() -> None:
    """A new route needs a row here: who may use it is said once, before anybody finds out."""
    assert set(ALLOWED) == all_routes()


@pytest.fixture
async def tokens(service: Any) -> dict[str, Any]:
    """One token per right, one with every right elsewhere, and those that are no good any more."""
    await service.publish("orders", b'{"a": 0}')
    await service.operations.savepoints.set(service.admin.token, ConfigKey("orders"), "first")
    later = service.clock.now + timedelta(10)
    await service.operations.publish(service.admin.token, ConfigKey("orders"), b'{"a": 5}', valid_from=later)
    await service.operations.drafts.replace(service.admin.token, ConfigKey("orders"), b'{"a": 1}')
    await service.operations.schemas.set(service.admin.token, ConfigKey("orders"), b'{"required": []}')
    made = {right: await service.mint(f"orders@default:{right}") for right in sorted(RIGHTS)}
    made["elsewhere"] = await service.mint("other@*:read,export,write")
    made["other environment"] = await service.mint("orders@prod:read,export,write")
    made["expired"] = await service.mint("*@*:read,export,write,admin", expires_at=service.clock.now + timedelta(1))
    made["revoked"] = await service.mint("*@*:read,export,write,admin")
    await service.operations.tokens.revoke(service.admin.token, made["revoked"].token.id)
    service.clock.advance(2 * 86400)
    return made


def url_of(path: str, tokens: dict[str, Any]) -> bytes:
    """Return a path that means the one config there is, or a token."""
    return path.format(name="orders", savepoint="first", token_id=tokens["elsewhere"].token.id).encode()


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED))
async def test_a_route_answers_those_who_may_and_no_others(
    service: Any, tokens: dict[str, Any], method: str, path: str
) -> None:
    """401 without a valid token, 403 without the right, something else with it; nothing is changed on the way."""
    allowed, url, body = ALLOWED[(method, path)], url_of(path, tokens), BODY.get((method, path), b"")

    async def status_for(secret: bytes | None) -> int:
        lines = [(name.lower().encode(), value.encode()) for name, value in HEADERS.get((method, path), {}).items()]
        if secret is not None:
            lines.append((b"x-service-token", secret))
        message = {"type": "http.request", "body": body, "more_body": False}
        answer = await service.raw(url, method=method, headers=tuple(lines), body=(message,))
        status: int = answer.status
        return status

    entries = len(service.store.entries)
    proving_nothing = {
        "none": None,
        "unknown": b"cst_unknown",
        "expired": tokens["expired"].secret.encode(),
        "revoked": tokens["revoked"].secret.encode(),
        **MALFORMED,
        "cut short": service.admin.secret.encode()[:-1],
        "too long": service.admin.secret.encode() + b"A",
        "in other letters": service.admin.secret.encode().swapcase(),
        "as a bearer": b"Bearer " + service.admin.secret.encode(),
    }
    statuses = {kind: await status_for(secret) for kind, secret in proving_nothing.items()}
    assert statuses == dict.fromkeys(proving_nothing, 200 if allowed is NO_TOKEN else 401)
    if allowed is not NO_TOKEN:
        out_of_scope = {"elsewhere", "other environment", *RIGHTS} - allowed
        if allowed is ANY_TOKEN:
            out_of_scope.discard("other environment")
        statuses = {kind: await status_for(tokens[kind].secret.encode()) for kind in sorted(out_of_scope)}
        expected = dict.fromkeys(sorted(out_of_scope), 403)
        if path in WITHOUT_ENVIRONMENT:
            # It asks for what this token may read, where there is nothing.
            expected["other environment"] = 404
        assert statuses == expected
    assert len(service.store.entries) == entries
    for kind in sorted(allowed or ()):
        assert await status_for(tokens[kind].secret.encode()) in {200, 201}, kind


async def test_a_token_that_comes_twice_is_refused_everywhere(service: Any, tokens: dict[str, Any]) -> None:
    """A proxy could check one of them and the service the other."""
    entries, secret = len(service.store.entries), service.admin.secret.encode()
    for method, path in sorted(row for row, allowed in ALLOWED.items() if allowed is not NO_TOKEN):
        for first, second in ((secret, b"cst_unknown"), (b"cst_unknown", secret), (secret, secret)):
            headers = ((b"x-service-token", first), (b"x-service-token", second))
            answer = await service.raw(url_of(path, tokens), method=method, headers=headers)
            assert answer.status == 400, (method, path)
    assert len(service.store.entries) == entries


async def test_lists_hold_only_what_a_token_may_see(service: Any, tokens: dict[str, Any]) -> None:
    """A list is no way around the rights."""
    for path, seeing in ((SERVICE, {"read"}), (f"{MANAGE}/configs", {"read", "write"})):
        for kind in ("elsewhere", *RIGHTS):
            body = (await service.client(tokens[kind]).get(path)).text
            assert ("orders" in body) is (kind in seeing), (path, kind)
