"""What a client may take of the service on a socket: bytes, seconds and connections; beyond that, typed errors."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
CONFIGS = b"/api/v1/service/configs"


@contextmanager
def connected(service: Any, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    with closing(socket.socket()) as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(service.address)
        yield connection


def everything(connection: socket.socket) -> bytes:
    """Return what comes up to the end."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def refused(connection: socket.socket, status: int, code: str) -> dict[str, str]:
    """Return the headers of the answer, which is this refusal and the last one on its connection."""
    head, _, body = everything(connection).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    assert int(lines[0].split(" ")[1]) == status, head
    assert json.loads(body)["error"]["code"] == code
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]
    return headers


def get(service: Any, *lines: bytes, path: bytes = CONFIGS, method: bytes = b"GET") -> bytes:
    token = b"X-Service-Token: " + service.admin.secret.encode()
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: x", token, *lines, b"", b""])


@pytest.mark.parametrize(
    ("lines", "path", "status", "code"),
    [
        ([], b"/" + b"a" * 1100, 414, "target_too_long"),
        ([], CONFIGS + b"?a=" + b"a" * 1100, 414, "target_too_long"),
        ([b"X: " + b"y" * 1100], CONFIGS, 431, "headers_too_large"),
        ([b"X-%d: y" % number for number in range(12)], CONFIGS, 431, "headers_too_large"),
    ],
)
def test_paths_and_headers_over_their_limits_are_refused(
    begin: Callable[..., Any], lines: list[bytes], path: bytes, status: int, code: str
) -> None:
    """By the settings, before anybody is asked who is asking."""
    service = begin(max_target_bytes=1024, max_header_bytes=1024, max_headers=10)
    with connected(service) as connection:
        connection.sendall(get(service, b"Connection: close", *lines, path=path))
        refused(connection, status, code)
    with connected(service) as connection:
        connection.sendall(get(service, b"Connection: close"))
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("part", [b"GET / HTTP/1.1\r\nX: ", b"GET /"])
def test_a_head_without_an_end_is_refused_before_it_is_kept(begin: Callable[..., Any], part: bytes) -> None:
    """After a bounded number of bytes; the parser would keep all of them."""
    service = begin(max_target_bytes=1024, max_header_bytes=1024)
    with connected(service) as connection:
        connection.sendall(part)
        sent = 0
        try:
            while sent < 5_000_000:
                connection.sendall(b"y" * 1000)
                sent += 1000
        except ConnectionError:
            pass
        assert sent < 5_000_000


@pytest.mark.parametrize("sent", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_half_a_head_is_408_after_its_time(begin: Callable[..., Any], sent: bytes) -> None:
    """It is not waited for without end."""
    service = begin(head_timeout=0.3)
    with connected(service) as connection:
        begun = time.monotonic()
        connection.sendall(sent)
        refused(connection, 408, "request_timeout")
        assert time.monotonic() - begun >= 0.25


@pytest.mark.parametrize("sent", [b"GET /", b"GET / HTTP/1.1\r\nX: "])
def test_a_head_that_drips_is_408_after_its_time(begin: Callable[..., Any], sent: bytes) -> None:
    """The time does not begin anew with every byte."""
    service = begin(head_timeout=0.3)
    with connected(service) as connection:
        connection.settimeout(0.05)
        connection.sendall(sent)
        received = b""
        for _ in range(400):
            try:
                received = connection.recv(65536)
                break
            except TimeoutError:
                connection.sendall(b"a")
        assert b" 408 " in received


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("sent", [b"", b"1"])
def test_half_a_body_is_408_after_its_time(begin: Callable[..., Any], framing: bytes, sent: bytes) -> None:
    """Nothing of it is used, and the service goes on."""
    service = begin(body_timeout=0.3)
    path = b"/api/v1/manage/configs/orders"
    with connected(service) as connection:
        connection.sendall(get(service, framing, path=path, method=b"PUT") + sent)
        refused(connection, 408, "request_timeout")
    assert service.publish(b'{"n": 1}') == 1


def test_a_body_that_nobody_waits_for_has_its_time_too(begin: Callable[..., Any]) -> None:
    """Refused at once by its announced length, the connection ends with the time for its body."""
    service = begin(body_timeout=0.3)
    path = b"/api/v1/manage/configs/orders"
    with connected(service) as connection:
        connection.sendall(get(service, b"Content-Length: 999999999", path=path, method=b"PUT") + b"{")
        received = everything(connection)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_connection_that_asks_nothing_is_closed_without_a_word(begin: Callable[..., Any], sent: bytes) -> None:
    """An answer could be taken for that of a request under way."""
    service = begin(head_timeout=0.3)
    with connected(service) as connection:
        connection.sendall(sent)
        assert everything(connection) == b""


def test_line_ends_between_requests_do_not_keep_a_connection(begin: Callable[..., Any]) -> None:
    """The parser skips them, and uvicorn takes them for a sign of life."""
    service = begin(head_timeout=0.3)
    with connected(service) as connection:
        connection.sendall(get(service))
        connection.recv(65536)
        begun = time.monotonic()
        connection.settimeout(0.05)
        ended = False
        while not ended and time.monotonic() - begun < 4:
            try:
                connection.sendall(b"\r\n")
                ended = connection.recv(65536) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                ended = True
        assert ended


def test_requests_in_time_share_a_connection_beyond_it(begin: Callable[..., Any]) -> None:
    """Each has its own time; one that came in pieces leaves nothing armed behind."""
    service = begin(head_timeout=0.4, body_timeout=0.4, heartbeat_interval=0.05)
    request = get(service, b"Content-Length: 7", path=b"/api/v1/manage/configs/orders", method=b"PUT") + b'{"n":1}'
    with connected(service) as connection:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.2:
            connection.sendall(request[:9])
            time.sleep(0.05)
            connection.sendall(request[9:-3])
            time.sleep(0.05)
            connection.sendall(request[-3:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 20")
    watch = get(service, path=CONFIGS + b"/orders/watch")
    with connected(service) as connection:
        connection.sendall(watch[:9])
        time.sleep(0.05)
        connection.sendall(watch[9:])
        received, begun = b"", time.monotonic()
        while time.monotonic() - begun < 1.2:
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b" 408 " not in received


def test_garbage_behind_a_request_does_not_answer_that_request(begin: Callable[..., Any]) -> None:
    """A refusal of what follows would be taken for its answer."""
    service = begin()
    with connected(service) as connection:
        connection.sendall(get(service) + b"\x00garbage\r\n\r\n")
        received = everything(connection)
    assert received == b"" or received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [CONFIGS + b"/orders", b"/api/v1/manage/backup"])
def test_a_reader_that_takes_nothing_of_its_answer_is_cut(begin: Callable[..., Any], path: bytes) -> None:
    """It would hold the answer in memory for as long as it likes; one that is merely slow gets all of it."""
    service = begin(body_timeout=0.3, send_buffer=4096, max_document_bytes=5_000_000)
    document = b'{"a": "' + b"x" * 2_000_000 + b'"}'
    service.publish(document)
    with connected(service, receive_buffer=4096) as stuck, connected(service, receive_buffer=4096) as slow:
        for connection in (stuck, slow):
            connection.sendall(get(service, b"Connection: close", path=path))
        received, begun = 0, time.monotonic()
        while part := slow.recv(20_000):
            received += len(part)
            if time.monotonic() - begun < 1.5:
                time.sleep(0.01)
        assert received > len(document)
        assert len(everything(stuck)) < len(document)


def test_a_connection_too_many_is_503_until_another_ends(begin: Callable[..., Any]) -> None:
    """Streams count as well; those far beyond the limit are dropped without a word."""
    service = begin(max_connections=3, heartbeat_interval=0.05)
    service.publish(b'{"n": 1}')
    watch = get(service, path=CONFIGS + b"/orders/watch")
    with ExitStack() as stack:
        held = [stack.enter_context(connected(service)) for _ in range(3)]
        for connection in held[:2]:
            connection.sendall(watch)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        held[2].sendall(get(service))
        assert held[2].recv(65536).startswith(b"HTTP/1.1 200 ")
        with connected(service) as surplus:
            surplus.sendall(get(service))
            assert int(refused(surplus, 503, "too_many_connections")["retry-after"]) >= 1
        crowd = [stack.enter_context(connected(service)) for _ in range(80)]
        ends = []
        for connection in crowd:
            try:
                connection.sendall(get(service))
                ends.append(everything(connection))
            except ConnectionError:
                ends.append(b"dropped")
        assert not [end for end in ends if b" 200 " in end]
        held[0].close()
        deadline = time.monotonic() + 10
        answered = b""
        while b" 200 " not in answered and time.monotonic() < deadline:
            with connected(service) as again:
                again.sendall(get(service, b"Connection: close"))
                answered = everything(again)
        assert answered.startswith(b"HTTP/1.1 200 ")
