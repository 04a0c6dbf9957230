"""Every route against every kind of token; the routes come from the application, so that none can be forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute

from config_service.api import backups, drafts, exports, health, manage, metrics, schedules, schemas
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
    ("GET", f"{MANAGE}/backup"): {"admin"},
    ("GET", f"{MANAGE}/export"): set(),  # admin, export and write together
    ("GET", "/healthz"): NO_TOKEN,
    ("HEAD", "/healthz"): NO_TOKEN,
    ("GET", "/readyz"): NO_TOKEN,
    ("HEAD", "/readyz"): NO_TOKEN,
    ("GET", "/metrics"): {"admin"},
    ("HEAD", "/metrics"): {"admin"},
}
BODY = {
    ("PUT", f"{MANAGE}/configs/{{name}}"): b'{"a": 1}',
    ("POST", f"{MANAGE}/configs/{{name}}/rollback"): b'{"version": 1}',
    ("PUT", f"{MANAGE}/configs/{{name}}/draft"): b'{"a": 2}',
    ("PATCH", f"{MANAGE}/configs/{{name}}/draft"): b'{"a": 3}',
    ("POST", f"{MANAGE}/drafts/publish"): b'{"drafts": [{"name": "orders"}]}',
    ("PUT", f"{MANAGE}/configs/{{name}}/schema"): b'{"required": ["a"]}',
    ("POST", f"{MANAGE}/tokens"): b'{"name": "x"}',
}
HEADERS = {("PATCH", f"{MANAGE}/configs/{{name}}/draft"): {"Content-Type": "application/merge-patch+json"}}


def test_the_table_has_every_route() -> None:
    """A new route of the framework needs a row here; those of the wire protocol stand in DESIGN and PROTOCOL."""
    modules = (manage, drafts, schedules, schemas, backups, exports, health, metrics)
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    found = {(method, route.path) for route in routes for method in route.methods}
    assert found == {(method, path) for method, path in ALLOWED if not path.startswith(SERVICE)}


@pytest.fixture
async def tokens(service: Any) -> dict[str, Any]:
    """One token per right, one with every right elsewhere, and those that are no good any more."""
    await service.publish("orders", b'{"a": 0}')
    later = service.clock.now + timedelta(10)
    await service.operations.publish(service.admin.token, ConfigKey("orders"), b'{"a": 5}', valid_from=later)
    await service.operations.drafts.replace(service.admin.token, ConfigKey("orders"), b'{"a": 1}')
    await service.operations.schemas.set(service.admin.token, ConfigKey("orders"), b'{"required": []}')
    made = {right: await service.mint(f"orders@default:{right}") for right in sorted(RIGHTS)}
    made["elsewhere"] = await service.mint("other@*:read,export,write")
    made["expired"] = await service.mint("*@*:read,export,write,admin", expires_at=service.clock.now + timedelta(1))
    made["revoked"] = await service.mint("*@*:read,export,write,admin")
    await service.operations.tokens.revoke(service.admin.token, made["revoked"].token.id)
    service.clock.advance(2 * 86400)
    return made


@pytest.mark.parametrize(("method", "path"), ALLOWED)
async def test_a_route_answers_those_who_may_and_no_others(
    service: Any, tokens: dict[str, Any], method: str, path: str
) -> None:
    """401 without a valid token, 403 without the right, something else with it; nothing is changed on the way."""
    allowed = ALLOWED[(method, path)]
    url = path.format(name="orders", token_id=tokens["elsewhere"].token.id)
    content = BODY.get((method, path))
    kind_of_content = HEADERS.get((method, path), {})
    refused = {"none": None, "unknown": "cst_unknown", "expired": tokens["expired"].secret}
    refused["revoked"] = tokens["revoked"].secret
    statuses = {}
    for kind, secret in refused.items():
        headers = kind_of_content | ({"X-Service-Token": secret} if secret else {})
        response = await service.client().request(method, url, content=content, headers=headers)
        statuses[kind] = response.status_code
    entries = len(service.store.entries)
    expected = 200 if allowed is NO_TOKEN else 401
    assert statuses == dict.fromkeys(refused, expected)
    for kind in ("elsewhere", *sorted(RIGHTS)):
        if allowed is not NO_TOKEN and kind not in allowed:
            response = await service.client(tokens[kind]).request(method, url, content=content, headers=kind_of_content)
            assert response.status_code == 403, kind
    assert len(service.store.entries) == entries
    for kind in sorted(allowed or ()):
        response = await service.client(tokens[kind]).request(method, url, content=content, headers=kind_of_content)
        assert response.status_code in {200, 201}, kind


async def test_lists_hold_only_what_a_token_may_see(service: Any, tokens: dict[str, Any]) -> None:
    """A list is no way around the rights."""
    for path, seeing in ((SERVICE, {"read"}), (f"{MANAGE}/configs", {"read", "write"})):
        for kind in ("elsewhere", *RIGHTS):
            body = (await service.client(tokens[kind]).get(path)).text
            assert ("orders" in body) is (kind in seeing), (path, kind)
