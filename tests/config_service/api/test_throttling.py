"""Limits of requests as clients see them, and whose address counts behind a proxy."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from config_client import ConfigClient, Options
from config_client.errors import ConnectionError as UnreachableError
from config_service.api.peers import Peers, peer_of

pytestmark = pytest.mark.anyio
CONFIGS = "/api/v1/service/configs"


async def test_a_token_over_its_rate_is_429_on_every_kind_of_route(start: Callable[..., Any]) -> None:
    """With Retry-After in whole seconds and the body of every error; other tokens and health go on."""
    service = await start(rate_limit=0.4, rate_burst=3)
    one, two = await service.mint(), await service.mint()
    client = service.client(one)
    assert [(await client.get(CONFIGS)).status_code for _ in range(3)] == [200] * 3
    for method, path in (("GET", CONFIGS), ("POST", "/api/v1/service/watch"), ("GET", "/api/v1/manage/configs")):
        answer = await client.request(method, path, content=b"[]")
        assert answer.status_code == 429, path
        assert answer.json()["error"]["code"] == "rate_limited"
        assert answer.headers["retry-after"] == "3"
        assert answer.headers["cache-control"] == "no-store"
    assert (await service.client(two).get(CONFIGS)).status_code == 200
    assert (await client.get("/healthz")).status_code == 200


async def test_wrong_tokens_are_401_and_then_429(start: Callable[..., Any]) -> None:
    """A request without any token is none of the failures; a valid token gets through."""
    service = await start(auth_failures=2)
    wrong = {"X-Service-Token": "cst_wrong"}
    statuses = [(await service.client(headers=wrong).get(CONFIGS)).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    answer = await service.client(headers=wrong).get("/api/v1/manage/configs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_failures")
    assert answer.headers["retry-after"] == "1"
    assert (await service.client().get(CONFIGS)).status_code == 401
    assert (await service.client(service.admin).get(CONFIGS)).status_code == 200


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("10.0.0.1", [b"203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"198.51.100.1", b"203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", [b"198.51.100.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        ("10.0.0.1", [b"10.1.1.1,10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", [b"2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.7:1234"], "10.0.0.1"),
        ("203.0.113.9", [b"203.0.113.7"], "203.0.113.9"),
        ("somewhere", [b"203.0.113.7"], "somewhere"),
    ],
)
async def test_the_client_behind_a_trusted_proxy_is_the_last_that_is_none(
    client: str, forwarded: list[bytes], expected: str
) -> None:
    """What stands further to the left the client may have written; from anyone else the header is not believed."""
    scope: dict[str, Any] = {"client": (client, 1), "headers": [(b"x-forwarded-for", value) for value in forwarded]}
    Peers([ip_network("10.0.0.0/8")]).resolve(scope)
    assert peer_of(scope) == expected


async def test_nobody_is_trusted_unless_told_otherwise() -> None:
    """Nor does a server without addresses matter."""
    scope: dict[str, Any] = {"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", b"203.0.113.7")]}
    Peers(()).resolve(scope)
    assert peer_of(scope) == "127.0.0.1"
    assert peer_of({"client": None}) == ""


async def test_behind_a_trusted_proxy_clients_are_told_apart(start: Callable[..., Any]) -> None:
    """One that fails too often is told to wait, another is told what is wrong."""
    service = await start(auth_failures=1, trusted_proxies="127.0.0.1")
    wrong = {"X-Service-Token": "cst_wrong"}
    one = service.client(headers=wrong | {"X-Forwarded-For": "203.0.113.7"})
    other = service.client(headers=wrong | {"X-Forwarded-For": "203.0.113.8"})
    assert [(await one.get(CONFIGS)).status_code for _ in range(2)] == [401, 429]
    assert (await other.get(CONFIGS)).status_code == 401


@pytest.mark.e2e
def test_the_sdk_waits_for_its_rate(begin: Callable[..., Any]) -> None:
    """Five gets at two a second with a burst of one are all answered, none raised; without retries the last one is."""
    service = begin(rate_limit=2.0, rate_burst=1)
    service.publish(b'{"n": 1}')
    access = {"service_token": service.reader.secret, "encryption_key": service.reader.key.hex()}
    with ConfigClient(Options(host=service.url, retry_count=3, retry_delay=0.01, **access)) as client:
        assert [client.get_raw("orders") for _ in range(3)] == [{"n": 1}] * 3
    with ConfigClient(Options(host=service.url, retry_count=0, **access)) as client:
        with pytest.raises(UnreachableError) as told:
            [client.get_raw("orders") for _ in range(3)]
        assert told.value.retry_after == 1
