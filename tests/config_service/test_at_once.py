"""Reads that are answered where their head was read: to the byte what a call of the application answers, in order."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from config_client.protocol import CONFIGS_PATH, Position
from config_service.app import Application
from config_service.server import Connection

pytestmark = pytest.mark.e2e
PATH = f"{CONFIGS_PATH}/orders"
_VARYING = re.compile(rb"(date|x-request-id): [^\r]+")
BOUND = "Accept: application/vnd.config-service.sealed; format=2"


def head(secret: str, target: str = PATH, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    fields = ["Host: service", f"X-Service-Token: {secret}", *lines]
    return "\r\n".join((f"{method} {target} HTTP/{version}", *fields, "", "")).encode()


def told(address: tuple[str, int], request: bytes, answers: int = 1) -> bytes:
    """Return what the service sends for ``request``, whose last answer closes the connection, without what varies."""
    with socket.create_connection(address, 30) as connection:
        connection.sendall(request)
        data = b""
        while len(found := re.findall(rb"HTTP/1\.1 \d+", data)) < answers or not _ends(data):
            more = connection.recv(65536)
            if not more:
                break
            data += more
        assert len(found) == answers, data
    return _VARYING.sub(rb"\1: -", data)


def _ends(data: bytes) -> bool:
    start = data.rindex(b"HTTP/1.1 ")
    end = data.find(b"\r\n\r\n", start)
    length = re.search(rb"content-length: (\d+)", data[start : max(end, start)])
    return end > 0 and len(data) >= end + 4 + (int(length[1]) if length else 0)


@pytest.fixture
def service(begin: Callable[..., Any]) -> Any:
    started = begin()
    started.publish(b'{"n": 1}')
    started.publish(b'{"n": 2}')
    return started


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses of the answers that were given at once."""
    given: list[int] = []
    ask = Application.answer_at_once

    def noted(self: Application, scope: Any) -> Any:
        answer = ask(self, scope)
        if answer is not None:
            given.append(answer.status)
        return answer

    monkeypatch.setattr(Application, "answer_at_once", noted)
    return given


def test_a_read_is_answered_at_once_and_like_any_other(
    service: Any, at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are those that the ordinary way gives, but for the time and the request's own id."""
    secret = service.reader.secret
    tag = re.search(rb"etag: ([^\r]+)", told(service.address, head(secret)))
    assert tag is not None
    requests = {
        head(secret): 200,
        head(secret, PATH, BOUND): 200,
        head(secret, f"{PATH}?environment=default&label=main"): 200,
        head(secret, f"{CONFIGS_PATH}/%6Frders"): 200,
        head(secret, PATH, f"If-None-Match: {tag[1].decode()}"): 304,
        head(secret, PATH, "If-None-Match: *"): 304,
        head(secret, PATH, 'If-None-Match: "other"'): 200,
        head(secret, PATH, "X-Request-Id: mine"): 200,
    }
    at_once.clear()
    quick = {request: told(service.address, request) for request in requests}
    assert at_once == list(requests.values())
    monkeypatch.setattr(Connection, "_answers_at_once", lambda _self: False)
    for request, status in requests.items():
        assert quick[request].startswith(b"HTTP/1.1 %d " % status)
        assert told(service.address, request) == quick[request]
    assert len(at_once) == len(requests)


def test_everything_else_goes_the_ordinary_way(
    service: Any, at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals, bodies, other methods, older versions: a call answers them, and answers them the same."""
    secret = service.reader.secret
    requests = [
        head(secret, PATH, "Connection: close", method="HEAD"),
        head(secret, method="DELETE"),
        head(secret, version="1.0"),
        head(secret, PATH, "Connection: close"),
        head(secret, PATH, "Content-Length: 2") + b"{}",
        head(secret, PATH, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(secret, PATH, "X-Service-Token: cst_other"),
        head(secret, f"{PATH}?version=1"),
        head(secret, f"{PATH}?version=0"),
        head(secret, f"{PATH}?label=main&label=main"),
        head(secret, f"{PATH}/formatted"),
        head(secret, f"{PATH}/../orders"),
        head(secret, f"{CONFIGS_PATH}/or%2fders"),
        head(secret, f"{CONFIGS_PATH}/missing"),
        head(secret, CONFIGS_PATH),
        head(secret, f"http://service{PATH}"),
        head(secret, PATH, f"X-Config-Min-Revision: {Position('0' * 24, 1)}"),
        head(f"{secret}x"),
        f"GET {PATH} HTTP/1.1\r\nHost: service\r\n\r\n".encode(),
    ]
    answers = [told(service.address, request) for request in requests]
    assert at_once == []
    monkeypatch.setattr(Connection, "_answers_at_once", lambda _self: False)
    for request, answer in zip(requests, answers, strict=True):
        assert told(service.address, request) == answer


def test_answers_keep_the_order_of_pipelined_requests(service: Any, at_once: list[int]) -> None:
    """What is answered at once never overtakes a request before it that takes its time."""
    secret = service.reader.secret
    requests = [head(secret, f"{PATH}?version=1"), head(secret), head(secret, CONFIGS_PATH), head(secret)]
    answers = told(service.address, b"".join(requests), 4)
    assert re.findall(rb"x-config-version: (\d)", answers) == [b"1", b"2", b"2"]
    alone = told(service.address, head(secret) * 3, 3)
    assert alone.count(b"x-config-version: 2") == 3
    assert at_once[-3:] == [200, 200, 200]


def test_a_connection_is_kept_for_as_long_as_after_any_other_answer(service: Any) -> None:
    """One connection takes reads of both kinds, one after the other, and a change is seen by the next read."""
    secret = service.reader.secret
    with socket.create_connection(service.address, 30) as connection:
        for round_ in range(3):
            for target in (PATH, f"{PATH}?version=1", PATH):
                connection.sendall(head(secret, target))
                data = b""
                while b"\r\n\r\n" not in data or not _ends(data):
                    data += connection.recv(65536)
                version = 1 if "version" in target else 2 + round_
                assert b"x-config-version: %d\r\n" % version in data
            service.publish(b'{"n": %d}' % (3 + round_))


def test_a_token_is_counted_once_whichever_way_it_is_answered(begin: Callable[..., Any], at_once: list[int]) -> None:
    """A limit of requests is a limit: the read that is over it is refused with 429, and says so."""
    started = begin(rate_limit=0.01, rate_burst=3)
    started.publish(b'{"n": 1}')
    secret = started.reader.secret
    statuses = [told(started.address, head(secret))[9:12] for _ in range(4)]
    assert statuses == [b"200", b"200", b"200", b"429"]
    assert at_once == [200, 200, 200]


def test_a_revoked_token_is_refused_at_its_next_request(service: Any, at_once: list[int]) -> None:
    """Nothing of the token is remembered with the connection."""
    reader = service.reader
    assert told(service.address, head(reader.secret)).startswith(b"HTTP/1.1 200 ")
    service.call(service.app.operations.tokens.revoke(service.admin.token, reader.token.id))
    assert told(service.address, head(reader.secret)).startswith(b"HTTP/1.1 401 ")
    assert at_once == [200]
