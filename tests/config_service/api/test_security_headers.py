"""What every answer tells a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from config_service.api.security_headers import SECURITY_HEADERS, secured

pytestmark = pytest.mark.anyio
EXPECTED = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/service/configs", 200),
        ("GET", "/api/v1/service/configs/orders", 200),
        ("GET", "/api/v1/service/configs/orders/formatted", 200),
        ("HEAD", "/api/v1/service/configs/orders/watch", 200),
        ("GET", "/api/v1/manage/configs", 200),
        ("GET", "/api/v1/manage/configs/none", 404),
        ("GET", "/api/v1/manage/openapi.json", 200),
        ("GET", "/healthz", 200),
        ("GET", "/none", 404),
        ("POST", "/healthz", 405),
    ],
)
async def test_every_answer_has_each_of_them_once(service: Any, method: str, path: str, status: int) -> None:
    """Whichever part of the application makes it; and none names the software."""
    await service.publish("orders")
    response = await service.client(service.admin).request(method, path)
    assert response.status_code == status
    for name, value in EXPECTED.items():
        assert response.headers.get_list(name) == [value], name
    assert not {"server", "x-powered-by", "strict-transport-security"} & set(response.headers)


async def test_a_trick_is_answered_with_them_too(service: Any) -> None:
    """Refused by the outermost layer."""
    assert (await service.raw(b"/a/../b")).headers.items() >= EXPECTED.items()


async def test_tls_is_asked_for_over_tls_only() -> None:
    """Over plain HTTP the header must not be sent (RFC 6797, 7.2)."""
    assert secured([], "http") == SECURITY_HEADERS
    assert dict(secured([], "https"))[b"strict-transport-security"] == b"max-age=31536000"


@pytest.mark.e2e
def test_a_stream_and_what_is_not_http_are_answered_with_them_too(
    begin: Callable[..., Any], open_raw: Callable[..., Any]
) -> None:
    """Although the server itself writes those."""
    service = begin()
    service.publish(b"{}")
    for stream in (service.open_stream(), open_raw(service.address, b"nonsense\r\n\r\n")):
        assert stream.headers.items() >= EXPECTED.items()
        assert "server" not in stream.headers
        stream.close()
