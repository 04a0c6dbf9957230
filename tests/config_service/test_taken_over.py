"""Streams that take their connection over, on real sockets and both event loops: bytes, bounds, endings, leftovers."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from config_client.crypto import Keyring
from config_client.protocol import ConfigState, Held, Position, Standing, dump_watch_request, parse_config_state
from config_service.api.security_headers import SECURITY_HEADERS
from config_service.app import utc_now
from config_service.delivery.direct import DirectReader
from config_service.domain.keys import ConfigKey
from config_service.server import Connection

BROWSERS = [name + b": " + value for name, value in SECURITY_HEADERS if name != b"cache-control"]
pytestmark = pytest.mark.e2e
STATES = "/api/v1/service/watch"
WATCH = "/api/v1/service/configs/orders/watch"


def get(secret: str, path: str = WATCH, version: str = "1.1", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: service\r\nX-Service-Token: {secret}\r\n\r\n".encode()


def post(secret: str, *rows: Held, extra: str = "") -> bytes:
    body = dump_watch_request(rows)
    lines = f"POST {STATES} HTTP/1.1\r\nHost: service\r\nX-Service-Token: {secret}\r\n{extra}"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def states(body: bytes, event: str = "config_state") -> list[ConfigState]:
    """Return what the events named ``event`` tell, as a client reads them; an unfinished one does not count."""
    blocks = [[line for line in block.split("\n") if line != ":"] for block in body.decode().split("\n\n")[:-1]]
    return [parse_config_state(block[1].removeprefix("data: ")) for block in blocks if block[0] == f"event: {event}"]


def whole(stream: Any, mark: bytes) -> bytes:
    """Read until the event that holds ``mark`` is complete; return the body."""
    stream.until(mark)
    while b"\n\n" not in stream.body[stream.body.rindex(mark) :]:
        assert stream.read(), "the stream ended"
    body: bytes = stream.body
    return body


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Ask until it holds, for things that another thread does in its own time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the service on this event loop: their transports differ in how they write."""
    if request.param == "asyncio":
        monkeypatch.setattr(uvicorn.Config, "get_loop_factory", lambda _: asyncio.SelectorEventLoop)
    return str(request.param)


@pytest.fixture
def service(loop: str, begin: Callable[..., Any]) -> Any:
    started = begin(heartbeat_interval=0.05, watch_heartbeat_interval=0.1)
    started.publish(b'{"n": 0}')
    assert type(started.loop).__module__.startswith(loop)
    return started


def on_loop(service: Any, ask: Callable[[], Any]) -> Any:
    """Return what ``ask`` returns on the event loop of the service."""

    async def asked() -> Any:
        return ask()

    return service.call(asked())


def test_the_head_of_a_stream_to_the_byte(service: Any, open_raw: Callable[..., Any]) -> None:
    """Neither a length nor chunks: the body ends with the connection, so that a frame is the same for everybody."""
    base = open_raw(service.address, get(service.reader.secret).replace(b"Host:", b"X-Request-Id: r-1\r\nHost:"))
    assert re.sub(rb"date: [^\r]+", b"date: -", base.head).split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"date: -",
        b"content-type: text/event-stream",
        b"cache-control: no-store",
        b"x-accel-buffering: no",
        b"x-config-heartbeat: 0.05",
        b"x-config-epoch: " + base.headers["x-config-epoch"].encode(),
        b"x-config-revision: 3",
        b"x-request-id: r-1",
        b"connection: close",
        *BROWSERS,
    ]
    first = open_raw(service.address, post(service.reader.secret, Held("orders"), extra="X-Request-Id: r-2\r\n"))
    assert re.sub(rb"date: [^\r]+", b"date: -", first.head).split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"date: -",
        b"content-type: text/event-stream",
        b"cache-control: no-store",
        b"x-accel-buffering: no",
        b"x-config-heartbeat: 0.1",
        b"x-config-epoch: " + base.headers["x-config-epoch"].encode(),
        b"x-config-revision: 3",
        b"x-config-environment: default",
        b"x-request-id: r-2",
        b"connection: close",
        *BROWSERS,
    ]
    assert first.until(b"synced").startswith(b":\nevent: config_state\ndata: {")


def test_both_streams_tell_a_change(service: Any, open_raw: Callable[..., Any]) -> None:
    """The base stream what changed, the state-first one what it is now, payload inside."""
    base = open_raw(service.address, get(service.reader.secret))
    first = open_raw(service.address, post(service.reader.secret, Held("orders")))
    first.until(b"event: synced")
    service.publish(b'{"n": 1}')
    assert b'"version":2' in base.until(b"\n\n")
    (state,) = states(whole(first, b"event: config_changed"), "config_changed")
    assert (state.standing, state.version) == (Standing.RUNNING, 2)
    assert Keyring([service.reader.key]).open_bound(state.payload)[1] == b'{"n": 1}'


def test_heartbeats_come_at_the_interval_of_each_kind(service: Any, open_raw: Callable[..., Any]) -> None:
    """As announced; single lines, also behind an event."""
    for request in (get(service.reader.secret), post(service.reader.secret, Held("orders"))):
        stream = open_raw(service.address, request)
        service.publish(b'{"n": "%d"}' % time.monotonic_ns())
        body = stream.until(b"\n\n:\n:\n:\n")
        assert b"\n\n\n" not in body


def test_http_1_0_gets_the_same_stream(service: Any, open_raw: Callable[..., Any]) -> None:
    """A body that ends with the connection is what HTTP/1.0 knows."""
    stream = open_raw(service.address, get(service.reader.secret, version="1.0"))
    service.publish(b'{"n": 1}')
    assert stream.status == 200
    assert b'"version":2' in stream.until(b"\n\n")


def test_head_tells_the_headers_and_keeps_the_connection(service: Any) -> None:
    """No stream is opened, and the next request on the connection is answered."""
    with httpx.Client(base_url=service.url, headers={"X-Service-Token": service.reader.secret}) as http:
        response = http.head(WATCH)
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-config-revision"] == "3"
        assert http.get("/healthz").status_code == 200
    assert len(service.app._hub) == 0


def test_a_stream_follows_earlier_answers_of_its_connection(service: Any, open_raw: Callable[..., Any]) -> None:
    """Pipelined in front of it: they come first, whole and in order."""
    health = b"GET /healthz HTTP/1.1\r\nHost: service\r\n\r\n"
    stream = open_raw(service.address, health * 3 + get(service.reader.secret))
    body = stream.head + stream.until(b"text/event-stream")
    assert body.count(b"HTTP/1.1 200 OK") == 4
    service.publish(b'{"n": 1}')
    assert b'"version":2' in stream.until(b'"version":2')


def test_what_comes_after_the_request_is_ignored(service: Any, open_raw: Callable[..., Any]) -> None:
    """In the same packet or later, well-formed or not; the stream goes on, and no other answer ever comes."""
    health = b"GET /healthz HTTP/1.1\r\nHost: service\r\n\r\n"
    for request in (get(service.reader.secret), post(service.reader.secret, Held("orders"))):
        stream = open_raw(service.address, request + health * 2)
        stream.until(b":\n")
        for more in (health, b"\x00\xff nonsense", b"x" * 1_000_000):
            stream.socket.sendall(more)
        service.publish(b'{"n": "%d"}' % time.monotonic_ns())
        stream.until(b"config_changed")
        assert b"HTTP/1.1" not in stream.body
        stream.close()
        assert eventually(lambda: len(service.app._hub) == 0)


def test_a_body_may_come_late_and_in_pieces(service: Any) -> None:
    """Announced with Expect, and in chunks."""
    body = dump_watch_request([Held("orders")])
    with closing(socket.create_connection(service.address, timeout=20)) as connection:
        connection.sendall(post(service.reader.secret, Held("orders"), extra="Expect: 100-continue\r\n")[: -len(body)])
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    head = post(service.reader.secret, extra="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 2\r\n", b"")
    with closing(socket.create_connection(service.address, timeout=20)) as connection:
        connection.sendall(head.removesuffix(b"[]"))
        for byte in body:
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"


def test_nothing_of_the_request_is_left_in_memory(service: Any, open_raw: Callable[..., Any]) -> None:
    """Parser, request, task and events of uvicorn go at once, without the garbage collector; one object stays."""

    def alive(kind: type) -> int:
        return sum(type(one) is kind for one in gc.get_objects())

    service.call(asyncio.sleep(0))
    gc.collect()
    kept = alive(Connection), alive(RequestResponseCycle), len(on_loop(service, asyncio.all_tasks))
    gc.disable()
    try:
        streams = []
        for number in range(20):
            request = get(service.reader.secret) if number % 2 else post(service.reader.secret, Held("orders"))
            # Half of them with another request behind, which uvicorn has put aside for later.
            pipelined = request if number < 10 else b""
            streams.append(open_raw(service.address, request + pipelined))
            streams[-1].until(b":\n")
        assert eventually(lambda: not service.server.server_state.tasks)
        assert not service.server.server_state.connections
        now = alive(Connection), alive(RequestResponseCycle), len(on_loop(service, asyncio.all_tasks))
        assert now == kept
        assert alive(DirectReader) == 20
        for stream in streams:
            stream.close()
        assert eventually(lambda: alive(DirectReader) == 0)
        assert len(service.app._hub) == 0
        assert service.app._hub._listening == {}
    finally:
        gc.enable()


def test_ordinary_requests_leave_nothing_for_the_garbage_collector(service: Any) -> None:
    """That their connection could have been taken over does not tie request and connection together."""

    def alive() -> int:
        return sum(type(one) is RequestResponseCycle for one in gc.get_objects())

    with httpx.Client(base_url=service.url, headers={"X-Service-Token": service.reader.secret}) as http:
        http.get("/api/v1/service/configs/orders")
        gc.collect()
        before = alive()
        gc.disable()
        try:
            for _ in range(50):
                assert http.get("/api/v1/service/configs/orders").status_code == 200
            assert eventually(lambda: alive() <= before)
        finally:
            gc.enable()


@pytest.mark.parametrize("way", ["close", "half-close", "reset"])
def test_a_client_that_goes_away_frees_everything(service: Any, open_raw: Callable[..., Any], way: str) -> None:
    """However it goes: the subscription ends, and the connection is closed from this side too."""
    for request in (get(service.reader.secret), post(service.reader.secret, Held("orders"))):
        stream = open_raw(service.address, request)
        stream.until(b":\n")
        assert len(service.app._hub) == 1
        if way == "half-close":
            stream.socket.shutdown(socket.SHUT_WR)
            assert stream.ends()
        else:
            if way == "reset":
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            stream.close()
        assert eventually(lambda: len(service.app._hub) == 0)
        service.publish(b'{"n": "%d"}' % time.monotonic_ns())


def test_a_client_that_hangs_up_before_its_stream_is_open_leaves_nothing(
    service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While its request still waits for a revision: no stream is opened, and the server has nothing to say of it."""
    reached = threading.Event()

    async def wait(_wanted: Position) -> None:
        await asyncio.to_thread(reached.wait, 20)

    monkeypatch.setattr(service.app.operations._reaching, "reach", wait)
    with caplog.at_level(logging.INFO):
        with closing(socket.create_connection(service.address, timeout=20)) as connection:
            connection.sendall(post(service.reader.secret, Held("orders")))
            assert eventually(lambda: len(service.server.server_state.tasks) == 1)
        assert eventually(lambda: not service.server.server_state.connections)
        reached.set()
        assert eventually(lambda: not service.server.server_state.tasks)
    assert len(service.app._hub) == 0
    (line,) = caplog.messages
    assert line.startswith(f"POST {STATES} - ")


def test_revocation_and_expiry_end_streams_in_good_order(service: Any, open_raw: Callable[..., Any]) -> None:
    """The body ends; the next request is 401."""
    create, revoke = service.app.operations.tokens.create, service.app.operations.tokens.revoke
    brief = service.call(create(service.admin.token, "brief", expires_at=utc_now() + timedelta(seconds=0.3)))
    expiring = [open_raw(service.address, make) for make in (get(brief.secret), post(brief.secret, Held("orders")))]
    revoked = [
        open_raw(service.address, make)
        for make in (get(service.reader.secret), post(service.reader.secret, Held("orders")))
    ]
    service.call(revoke(service.admin.token, service.reader.token.id))
    assert all(stream.ends() for stream in (*revoked, *expiring))
    for secret in (brief.secret, service.reader.secret):
        assert open_raw(service.address, post(secret, Held("orders"))).status == 401


def test_a_reader_that_stops_reading_is_cut_and_others_are_not(
    loop: str, begin: Callable[..., Any], open_raw: Callable[..., Any]
) -> None:
    """At most its queue waits in memory. What it got is whole states, and when it comes back it gets the rest."""
    service = begin(send_buffer=4096, queue_frames=8, heartbeat_interval=60.0, watch_heartbeat_interval=60.0)
    service.publish(b'{"n": 0}')
    slow = open_raw(service.address, post(service.reader.secret, Held("orders")), 4096)
    fast = open_raw(service.address, post(service.reader.secret, Held("orders")))
    fast.until(b"event: synced")
    slow.until(b"event: synced")
    number = 0
    while len(service.app._hub) == 2:
        number += 1
        assert number < 5000, "the slow reader was never cut"
        service.publish(b'{"n": %d, "padding": "%s"}' % (number, b"." * 2000))
        whole(fast, b'"version":%d,' % (number + 1))
    slow.ends()
    seen = [state.version for state in states(slow.body, "config_changed")]
    assert seen == list(range(2, len(seen) + 2))
    position = states(slow.body, "config_changed")[-1].position
    again = open_raw(service.address, post(service.reader.secret, Held("orders", position=position)))
    assert [state.version for state in states(again.until(b"event: synced"))] == [number + 1]
    service.publish(b'{"n": "last"}')
    heard = states(whole(fast, b'"version":%d,' % (number + 2)), "config_changed")
    assert [state.version for state in heard] == list(range(2, number + 3))


def test_two_thousand_configs_on_one_stream(loop: str, begin: Callable[..., Any], open_raw: Callable[..., Any]) -> None:
    """Through small buffers: each is stated once, then synced; a change meanwhile comes behind and is not lost."""
    service = begin(send_buffer=8192, heartbeat_interval=60.0, watch_heartbeat_interval=60.0)
    names = [f"config-{number}" for number in range(2000)]

    async def publish_all() -> None:
        operations, admin = service.app.operations, service.admin.token
        content = b'{"padding": "%s"}' % (b"." * 300)
        await asyncio.gather(*(operations.publish(admin, ConfigKey(name), content) for name in names[:500]))

    service.call(publish_all())
    stream = open_raw(service.address, post(service.reader.secret, *map(Held, names)), 8192)
    service.publish(b'{"n": 2}', ConfigKey(names[0]))
    service.publish(b'{"n": 1}', ConfigKey(names[1999]))
    body = whole(stream, b'"config_name":"config-1999","environment":"default","label":"main","state":"running"')
    stated = {state.name: state.standing for state in states(body[: body.index(b"event: synced")])}
    assert list(stated) == names
    assert [name for name in names if stated[name] is Standing.RUNNING] == names[:500]
    assert body.index(b"event: synced") < body.index(b"event: config_changed")
    held = [Held(state.name, position=state.position) for state in states(body)]
    held[0] = Held(names[0], position=Position(stream.headers["x-config-epoch"], 1))
    again = open_raw(service.address, post(service.reader.secret, *held))
    missing = names[500:1999]
    assert [state.name for state in states(again.until(b"event: synced"))] == [names[0], *missing, names[1999]]


def test_a_stop_ends_two_hundred_streams_at_once(
    service: Any, open_raw: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Within two seconds, each in good order, and without a word from the server about any of them."""
    requests = (get(service.reader.secret), post(service.reader.secret, Held("orders")))
    streams = [open_raw(service.address, requests[number % 2]) for number in range(200)]
    assert eventually(lambda: len(service.app._hub) == 200)
    with caplog.at_level(logging.WARNING):
        begun = time.monotonic()
        service.stop()
        assert time.monotonic() - begun < 2
    assert all(stream.ends() for stream in streams)
    assert caplog.text == ""


def test_a_stop_does_not_wait_for_readers_that_are_stuck(
    loop: str, begin: Callable[..., Any], open_raw: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a backlog that it does not take, the connection is cut."""
    service = begin(send_buffer=4096, max_document_bytes=5_000_000, watch_heartbeat_interval=60.0)
    service.publish(b"{" + b" " * 4_000_000 + b"}")
    stuck = open_raw(service.address, post(service.reader.secret, Held("orders")), 4096)
    stuck.until(b"config_state")
    with caplog.at_level(logging.WARNING):
        begun = time.monotonic()
        service.stop()
        assert time.monotonic() - begun < 2
    stuck.ends()
    assert states(stuck.body) == []
    assert caplog.text == ""


def test_a_stream_is_one_line_in_the_log_when_it_is_opened(
    service: Any, open_raw: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path and status, as for every request; nothing from uvicorn, neither then nor when it ends."""
    with caplog.at_level(logging.INFO):
        for request in (get(service.reader.secret), post(service.reader.secret, Held("orders"))):
            stream = open_raw(service.address, request)
            stream.until(b":\n")
            assert eventually(lambda: len(caplog.messages) > 0)
            stream.close()
            assert eventually(lambda: len(service.app._hub) == 0)
    template = WATCH.replace("orders", "{name}")
    told = [" ".join(line.split(" ")[:3]) for line in caplog.messages]
    assert told == [f"GET {template} 200", f"POST {STATES} 200"]


def test_a_publish_to_many_streams_does_not_hold_up_reads(service: Any, open_raw: Callable[..., Any]) -> None:
    """A read that comes while hundreds of streams are being told is answered, and every stream is told."""
    streams = [open_raw(service.address, get(service.reader.secret)) for _ in range(600)]
    assert eventually(lambda: len(service.app._hub) == 600)
    with httpx.Client(base_url=service.url, headers={"X-Service-Token": service.reader.secret}) as http:
        for number in range(1, 6):
            service.publish(b'{"n": %d}' % number)
            assert http.get("/api/v1/service/configs/orders").headers["x-config-version"] == str(number + 1)
    for stream in streams:
        stream.until(b'"version":6')
        versions = [json.loads(line[6:])["version"] for line in stream.body.split(b"\n") if line.startswith(b"data: ")]
        assert versions == list(range(2, 7))


@pytest.fixture
def other_server(begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The service on a server that keeps its connections to itself."""
    monkeypatch.setattr("config_service.server.Connection", HttpToolsProtocol)
    started = begin(heartbeat_interval=0.05, watch_heartbeat_interval=0.1)
    started.publish(b'{"n": 0}')
    return started


def test_any_other_server_streams_as_well(other_server: Any, open_raw: Callable[..., Any]) -> None:
    """In chunks, from a task per stream; both kinds, and a stop ends them."""
    streams = []
    for request in (get(other_server.reader.secret), post(other_server.reader.secret, Held("orders"))):
        streams.append(open_raw(other_server.address, request))
        assert streams[-1].headers["transfer-encoding"] == "chunked"
    streams[1].until(b"event: synced")
    other_server.publish(b'{"n": 1}')
    for stream in streams:
        assert b'"version":2' in stream.until(b'"version":2')
    other_server.stop()
    assert all(stream.ends() for stream in streams)
    assert streams[0].body.endswith(b"0\r\n\r\n")
