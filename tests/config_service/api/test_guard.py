"""The outermost layer: tricks with paths and sizes are refused before routing, and nothing escapes."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from config_service.api.exchange import EXCHANGE
from config_service.api.guard import Guard, check_request
from config_service.domain.errors import InvalidRequestError, NotFoundError

pytestmark = pytest.mark.anyio
CANARY = "canary-91aa"

BASE = b"/api/v1/service/configs/"
TRICKS = [
    BASE + b"a%2Fformatted",
    BASE + b"a%2fformatted",
    BASE + b"a%252Fformatted",
    BASE + b"a%5Cb",
    BASE + b"a%5cb",
    BASE + b"a\\b",
    BASE + b"a%00",
    BASE + b"a%0a",
    BASE + b"a%0D%0Ax",
    BASE + b"a%1f",
    BASE + b"a%7f",
    BASE + b"a\x7f",
    BASE + b"a\x01",
    BASE + b"a b",
    BASE + b"\xc3\xa9",
    BASE + b"../tokens",
    BASE + b"./a",
    BASE + b"%2e%2e/tokens",
    BASE + b".%2E/tokens",
    BASE + b"%2e/a",
    BASE + b"a/..",
    BASE + b"a/.",
    BASE + b"a/%2e%2e",
    b"/api/v1/service//configs",
    b"//api/v1/service/configs",
    b"/api/v1/service/configs//watch",
    b"/..",
    b"/.",
    b"*",
    b"api/v1/service/configs",
    BASE + b"a%",
    BASE + b"a%2",
    BASE + b"a%zz",
    BASE + b"a%u002f",
    b"/healthz/%2e%2e/api",
]
FINE = [
    b"/",
    b"/healthz",
    BASE + b"orders",
    BASE + b"orders.v2_x-1~",
    BASE + b"%6frders",
    BASE + b"a/formatted",
    b"/a/",
]


def scope(raw_path: bytes, **changes: Any) -> dict[str, Any]:
    base = {"type": "http", "method": "GET", "raw_path": raw_path, "path": "/", "query_string": b"", "headers": []}
    return base | changes


@pytest.mark.parametrize("raw", TRICKS)
async def test_a_path_that_others_could_read_differently_is_refused(service: Any, raw: bytes) -> None:
    """400 before routing and before authentication, on the raw bytes."""
    answer = await service.raw(raw, headers=((b"x-service-token", service.admin.secret.encode()),))
    assert answer.status == 400
    assert answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("raw", TRICKS)
def test_every_trick_is_refused_by_the_check_itself(raw: bytes) -> None:
    """Whatever routing or the rules for names would make of it."""
    with pytest.raises(InvalidRequestError, match="invalid path"):
        check_request(scope(raw))


@pytest.mark.parametrize("raw", FINE)
async def test_an_ordinary_path_passes(raw: bytes) -> None:
    """Unreserved characters, also percent-encoded, and a slash at the end."""
    check_request(scope(raw))


async def test_a_server_without_raw_paths_is_checked_as_well() -> None:
    """Then the decoded path is what routing will see."""
    with pytest.raises(InvalidRequestError):
        check_request(scope(b"", path="/configs/../tokens"))
    described = scope(b"", path="/configs/orders")
    check_request(described)
    assert described["raw_path"] == b"/configs/orders"


async def test_sizes_are_bounded() -> None:
    """Path with query, and headers."""
    with pytest.raises(InvalidRequestError, match="8192 bytes"):
        check_request(scope(b"/" + b"a" * 10_000))
    with pytest.raises(InvalidRequestError, match="8192 bytes"):
        check_request(scope(b"/a", query_string=b"a" * 8192))
    with pytest.raises(InvalidRequestError, match="32768 bytes"):
        check_request(scope(b"/a", headers=[(b"x", b"y" * 1000)] * 40))


class Client:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def run(app: Any, **changes: Any) -> list[dict[str, Any]]:
    client = Client()
    await Guard(app)(scope(b"/configs/orders", **changes), client.receive, client.send)
    return client.sent


async def test_an_unexpected_failure_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The log has type and place; neither log nor answer has the text, which may repeat a secret."""

    async def failing(*_: Any) -> None:
        raise RuntimeError(CANARY)

    with caplog.at_level(logging.DEBUG):
        sent = await run(failing)
    assert sent[0]["status"] == 500
    assert CANARY not in repr(sent)
    assert CANARY not in caplog.text
    assert "RuntimeError at failing" in caplog.text
    assert "test_guard.py" in caplog.text


async def test_a_failure_after_the_answer_began_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    """A second answer would corrupt the connection."""
    for error in (RuntimeError(CANARY), NotFoundError("late")):

        async def failing(_scope: Any, _receive: Any, send: Any, error: Exception = error) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise error

        sent = await run(failing)
        assert [message.get("status") for message in sent] == [200]
    assert CANARY not in caplog.text


async def test_an_answer_that_was_not_sent_over_asgi_is_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that took its connection over has noted its status; a failure after that answers nothing more."""

    async def taking_over(scope: Any, *_: Any) -> None:
        scope[EXCHANGE].status = 200

    async def failing_afterwards(scope: Any, *_: Any) -> None:
        scope[EXCHANGE].status = 200
        raise RuntimeError(CANARY)

    async def refusing_afterwards(scope: Any, *_: Any) -> None:
        scope[EXCHANGE].status = 200
        raise NotFoundError("late")

    for app in (taking_over, failing_afterwards, refusing_afterwards):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert await run(app) == []
        assert caplog.messages[-1].startswith("GET - 200 ")
        assert CANARY not in caplog.text


async def test_a_head_request_gets_an_error_without_a_body() -> None:
    """Status and headers as for GET."""

    async def failing(*_: Any) -> None:
        raise NotFoundError("gone")

    sent = await run(failing, method="HEAD")
    assert sent[0]["status"] == 404
    assert int(dict(sent[0]["headers"])[b"content-length"]) > 0
    assert sent[1]["body"] == b""


async def test_what_is_not_http_is_closed() -> None:
    """The service has no websockets."""
    client = Client()
    await Guard(run)({"type": "websocket"}, client.receive, client.send)
    assert client.sent[0]["type"] == "websocket.close"
