"""The service on real sockets: streams, slow readers, tricks below HTTP, signals and start-up failures."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from config_client.crypto import decrypt
from config_service.app import utc_now
from config_service.domain.errors import WrongMasterKeyError
from config_service.domain.keys import ConfigKey
from config_service.operations import Operations
from config_service.server import ListenError, listen, run
from config_service.settings import Settings, SettingsError

pytestmark = pytest.mark.e2e
MASTER_KEY = "5a" * 32
WATCH = "/api/v1/service/configs/orders/watch"
ORDERS = ConfigKey("orders")


def events(body: bytes) -> list[dict[str, Any]]:
    lines = body.decode().split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Ask until it holds, for things that another thread does in its own time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


@pytest.fixture
def service(begin: Callable[..., Any]) -> Any:
    started = begin(heartbeat_interval=0.05)
    started.publish(b'{"n": 0}')
    return started


def test_publish_fetch_and_watch_over_a_socket(service: Any) -> None:
    """The main path: a stream opens, a publish is heard, and what is fetched then is what was published."""
    with closing(service.open_stream()) as stream, httpx.Client(base_url=service.url) as http:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-config-heartbeat"] == "0.05"
        assert "server" not in stream.headers
        assert stream.until(b":\n") == b":\n"
        admin = {"X-Service-Token": service.admin.secret}
        published = http.put("/api/v1/manage/configs/orders", content=b'{"n": 1}', headers=admin).json()
        (event,) = events(stream.until(b"\n\n"))
        assert event["version"] == published["version"] == 2
        sealed = http.get("/api/v1/service/configs/orders", headers={"X-Service-Token": service.reader.secret})
        assert decrypt(sealed.content, service.reader.key) == b'{"n": 1}'


def test_heartbeats_are_single_lines(service: Any) -> None:
    """Also after an event, where a blank line would be an empty event to some decoders."""
    with closing(service.open_stream()) as stream:
        service.publish(b'{"n": 1}')
        body = stream.until(b"\n\n:\n:\n:\n")
        assert body.count(b"\n\n") == 1
        assert body.startswith(b":\n")


def test_a_reader_that_comes_back_after_a_restart_misses_nothing(begin: Callable[..., Any]) -> None:
    """The history is primed from the store: exact, in order, once each; another history is a reset."""
    first = begin()
    first.publish(b'{"n": 0}')
    with closing(first.open_stream()) as stream:
        first.publish(b'{"n": 1}')
        stream.until(b"\n\n")
        last = stream.body.decode().split("id: ")[1].split("\n")[0]
    first.publish(b'{"n": 2}')
    first.stop()
    second = begin()
    second.publish(b'{"n": 3}')
    with closing(second.open_stream(**{"Last-Event-ID": last})) as stream:
        assert stream.headers["x-config-replay"] == "exact"
        stream.until(b'"version":4')
        second.publish(b'{"n": 4}')
        body = stream.until(b'"version":5')
        assert [event["version"] for event in events(body)] == [3, 4, 5]
    with closing(second.open_stream(**{"Last-Event-ID": f"{'f' * 24}-1"})) as stream:
        assert stream.headers["x-config-replay"] == "reset"
        assert b"event: reset\ndata: {}\n\n" in stream.until(b"\n\n")


def test_every_one_of_many_streams_hears_every_change(service: Any) -> None:
    """200 streams of one token, ten changes, none lost and none twice."""
    streams = [service.open_stream() for _ in range(200)]
    for number in range(1, 11):
        service.publish(b'{"n": %d}' % number)
    for stream in streams:
        heard = [event["version"] for event in events(stream.until(b'"version":11'))]
        assert heard == list(range(2, 12))
        stream.close()
    assert eventually(lambda: len(service.app._hub) == 0)


def test_a_slow_reader_is_cut_and_resumes_without_a_loss(begin: Callable[..., Any]) -> None:
    """Its connection is aborted while others go on; from its last whole event on it gets everything it missed."""
    service = begin(send_buffer=4096, queue_frames=8, heartbeat_interval=60.0)
    key = ConfigKey("orders", "e" * 128, "l" * 128)
    service.publish(b'{"n": 0}', key)
    path = f"{WATCH}?label={key.label}"
    with (
        closing(service.open_stream(path, buffer=4096)) as slow,
        closing(service.open_stream(path)) as fast,
    ):
        slow.until(b":\n")
        number = 0
        while len(service.app._hub) == 2:
            number += 1
            assert number < 5000, "the slow reader was never cut"
            service.publish(b'{"n": %d}' % number, key)
            fast.until(b'"version":%d,' % (number + 1))
        assert [event["version"] for event in events(fast.body)] == list(range(2, number + 2))
        # What its connection still held may come, but nothing after it: a whole event is told or none of it counts.
        slow.ends()
        whole = slow.body[: slow.body.rindex(b"\n\n") + 2]
        seen = [event["version"] for event in events(whole)]
        assert seen == list(range(2, len(seen) + 2))
        last = whole.decode().rpartition("id: ")[2].split("\n")[0]
        with closing(service.open_stream(path, **{"Last-Event-ID": last})) as resumed:
            assert resumed.headers["x-config-replay"] == "exact"
            again = [event["version"] for event in events(resumed.until(b'"version":%d,' % (number + 1)))]
        assert seen + again == list(range(2, number + 2))


def test_revoking_a_token_ends_its_streams_at_once(service: Any) -> None:
    """The stream ends in good order, and the token opens no other; other tokens' streams go on."""
    with closing(service.open_stream()) as stream, closing(service.open_stream(minted=service.admin)) as other:
        stream.until(b":\n")
        service.call(service.app.operations.tokens.revoke(service.admin.token, service.reader.token.id))
        assert stream.ends()
        with closing(service.open_stream()) as refused:
            assert refused.status == 401
        service.publish(b'{"n": 1}')
        assert b"config_changed" in other.until(b"\n\n")


def test_a_stream_ends_when_its_token_expires(service: Any) -> None:
    """Without anything else happening."""
    expires = utc_now() + timedelta(seconds=0.3)
    minted = service.call(service.app.operations.tokens.create(service.admin.token, "brief", expires_at=expires))
    with closing(service.open_stream(minted=minted)) as stream:
        assert stream.ends()
        assert utc_now() >= expires


def test_a_watch_is_refused_as_any_request(service: Any, open_raw: Callable[..., Any]) -> None:
    """Status, JSON body, and no stream."""
    for path, headers, status in (
        (WATCH, {}, 401),
        (WATCH, {"X-Service-Token": "cst_wrong"}, 401),
        ("/api/v1/service/configs/unknown/watch", {"X-Service-Token": service.reader.secret}, 404),
        ("/api/v1/service/configs/a%2Fwatch", {"X-Service-Token": service.reader.secret}, 400),
    ):
        stream = open_raw(service.address, path, **headers)
        assert stream.status == status
        assert stream.headers["content-type"] == "application/json"


@contextmanager
def connected(service: Any) -> Iterator[socket.socket]:
    with closing(socket.create_connection(service.address, timeout=20)) as connection:
        yield connection


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return status and parsed body of one answer whose length is announced."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split(b" ")[1]), json.loads(body)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/service/configs/a%2Fformatted HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/service/configs/../configs HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_not_http_or_a_trick_is_400_in_the_shape_of_every_error(service: Any, request_bytes: bytes) -> None:
    """Also where the server's own parser refuses."""
    with connected(service) as connection:
        connection.sendall(request_bytes)
        status, body = answer(connection)
        assert status == 400
        assert body["error"]["code"] == "invalid_request"


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA=",
}


@pytest.mark.parametrize("offer", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("cut", [0, 5, 60, -9, -3])
def test_an_upgrade_that_is_offered_is_passed_over(
    service: Any, caplog: pytest.LogCaptureFixture, offer: bytes, framing: str, cut: int
) -> None:
    """RFC 9110, 7.8: Java's client and curl offer HTTP/2 with every request, and mean the body that follows."""
    body = b'{"n": %d}' % (cut + 100)
    wire = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if framing == "chunked" else body
    length = b"Transfer-Encoding: chunked" if framing == "chunked" else b"Content-Length: %d" % len(body)
    lines = (
        b"PUT /api/v1/manage/configs/upgraded HTTP/1.1",
        b"Host: x",
        b"X-Service-Token: " + service.admin.secret.encode(),
        offer,
        length,
    )
    request = b"\r\n".join(lines) + b"\r\n\r\n" + wire
    with connected(service) as connection:
        connection.sendall(request[:cut])
        connection.sendall(request[cut:])
        status, answered = answer(connection)
    assert (status // 100, answered["name"]) == (2, "upgraded")
    assert "upgrade" not in caplog.text.lower()


def test_a_head_that_never_ends_is_refused(service: Any) -> None:
    """Reading stops after a bounded number of bytes, and the connection is closed."""
    with connected(service) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Endless: ")
        sent = 0
        try:
            while sent < 10_000_000:
                connection.sendall(b"y" * 10_000)
                sent += 10_000
        except ConnectionError:
            pass
        assert sent < 10_000_000


def test_a_body_over_the_limit_is_refused_while_it_is_still_coming(service: Any) -> None:
    """By its announced length at once, and otherwise as soon as it is too long."""
    head = (
        b"PUT /api/v1/manage/configs/orders HTTP/1.1\r\nHost: x\r\nX-Service-Token: "
        + service.admin.secret.encode()
        + b"\r\n"
    )
    with connected(service) as connection:
        connection.sendall(head + b"Content-Length: 1000000000\r\n\r\n{")
        assert answer(connection)[0] == 413
    with connected(service) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(33):
            connection.sendall(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
        assert answer(connection)[0] == 413


def test_a_body_shorter_than_announced_is_not_published(service: Any) -> None:
    """A valid document by itself, but not what the client meant to send."""
    with connected(service) as connection:
        connection.sendall(
            b"PUT /api/v1/manage/configs/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nX-Service-Token: "
            + service.admin.secret.encode()
            + b'\r\n\r\n{"half": true}'
        )
    with httpx.Client(base_url=service.url, headers={"X-Service-Token": service.admin.secret}) as http:
        assert http.put("/api/v1/manage/configs/orders", content=b'{"n": 1}').json()["version"] == 2


def test_ending_streams_does_not_wait_for_stuck_readers(begin: Callable[..., Any]) -> None:
    """A reader that takes nothing any more has its connection aborted; the stop takes well under 5 s."""
    service = begin(send_buffer=4096, heartbeat_interval=60.0, max_document_bytes=50_000_000)
    service.publish(b'{"n": 0}')
    service.publish(b"{" + b" " * 20_000_000 + b"}", ConfigKey("large"))
    stuck = service.open_stream(buffer=4096)
    large = service.open_stream("/api/v1/service/configs/large", buffer=4096)
    with closing(stuck), closing(large):
        for number in range(1, 600):
            service.publish(b'{"n": %d}' % number)
        begun = time.monotonic()
        service.stop()
        assert time.monotonic() - begun < 4


def test_a_request_during_the_stop_is_told_to_come_back(service: Any) -> None:
    """Streams that reconnect before the listener is closed get 503 with Retry-After."""
    service.loop.call_soon_threadsafe(service.app.end_streams)
    assert eventually(lambda: not service.app.ready)
    with closing(service.open_stream()) as stream:
        assert stream.status == 503
        assert stream.headers["retry-after"]


CHILD = """
import sys
from config_service.server import run
from config_service.settings import Settings

async def prepare(operations):
    minted = await operations.tokens.bootstrap("admin")
    print(minted.secret, flush=True)

run(Settings.load(), prepare=prepare, announce=lambda url: print(url, flush=True))
print("returned", flush=True)
"""


@contextmanager
def child(store_url: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Run a service in a process of its own; yield it with its admin secret and URL."""
    settings = {"CONFIG_SERVER_MASTER_KEY": MASTER_KEY, "CONFIG_SERVER_STORE_URL": store_url, "CONFIG_SERVER_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        secret, url = process.stdout.readline().strip(), process.stdout.readline().strip()
        yield process, secret, url
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_streams_at_once_and_the_process_cleanly(
    store_url: str, sent: signal.Signals, open_raw: Callable[..., Any]
) -> None:
    """The stream's body ends in good order within a second, the process exits with 0 within five."""
    with child(store_url) as (process, secret, url):
        with httpx.Client(base_url=url, headers={"X-Service-Token": secret}) as http:
            http.put("/api/v1/manage/configs/orders", content=b"{}")
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            stream = open_raw(address, WATCH, **{"X-Service-Token": secret})
            stream.until(b":\n")
            begun = time.monotonic()
            process.send_signal(sent)
            assert stream.ends()
            assert time.monotonic() - begun < 1
        output, errors = process.communicate(timeout=5)
        assert process.returncode == 0
        assert output == "returned\n"
        assert "Traceback" not in errors
        assert secret not in errors
        assert "config_service.access: PUT /api/v1/manage/configs/{name} 201" in errors


def test_what_was_acknowledged_before_a_signal_is_there_afterwards(store_url: str) -> None:
    """Publishes under way are finished or refused, never lost after their answer."""
    with child(store_url) as (process, secret, url):
        acknowledged = []
        with httpx.Client(base_url=url, headers={"X-Service-Token": secret}) as http:
            for number in range(1000):
                if number == 20:
                    process.send_signal(signal.SIGTERM)
                try:
                    response = http.put("/api/v1/manage/configs/orders", content=b'{"n": %d}' % number)
                except httpx.TransportError:
                    break
                if response.status_code == 201:
                    acknowledged.append(response.json()["version"])
        process.communicate(timeout=5)
        assert process.returncode == 0
    with child(store_url) as (_, again, url), httpx.Client(base_url=url, headers={"X-Service-Token": again}) as http:
        versions = http.get("/api/v1/manage/configs/orders/history").json()["versions"]
        assert set(acknowledged) <= {version["version"] for version in versions}
        assert len(acknowledged) >= 20


def test_streams_end_when_the_signal_arrives_and_not_when_the_server_notices(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler itself ends them, although the server's own loop has not looked yet."""

    async def looks_away(_counter: int) -> bool:
        return False

    with monkeypatch.context() as patch, closing(service.open_stream()) as stream:
        patch.setattr(service.server, "on_tick", looks_away)
        stream.until(b":\n")
        service.server.handle_exit(signal.SIGTERM, None)
        assert stream.ends()


def test_a_second_signal_waits_for_nobody(service: Any) -> None:
    """The first asks for a graceful stop, the second for an immediate one."""
    service.server.handle_exit(signal.SIGTERM, None)
    assert service.server.should_exit
    assert not service.server.force_exit
    service.server.handle_exit(signal.SIGTERM, None)
    assert service.server.force_exit


def test_a_wrong_master_key_stops_the_start_with_its_error(begin: Callable[..., Any], store_url: str) -> None:
    """Typed, before anything listens."""
    first = begin()
    first.publish(b"{}")
    first.stop()
    announced: list[str] = []
    with pytest.raises(WrongMasterKeyError):
        run(Settings.load(master_key="00" * 32, store_url=store_url, port=0), announce=announced.append)
    assert announced == []


def test_an_address_in_use_is_told(store_url: str) -> None:
    """With the address, the reason and the settings to change."""
    with closing(listen("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1 port {port}.*CONFIG_SERVER_PORT"):
            run(Settings.load(master_key=MASTER_KEY, store_url=store_url, port=port))
    with pytest.raises(ListenError, match="not-a-host"):
        listen("not-a-host.invalid", 0)


def test_a_preparation_that_fails_stops_the_start(store_url: str) -> None:
    """Its error passes, and the store is closed: it can be opened again."""

    async def failing(_operations: Operations) -> None:
        raise WrongMasterKeyError("not today")

    settings = Settings.load(master_key=MASTER_KEY, store_url=store_url, port=0)
    for _ in range(2):
        with pytest.raises(WrongMasterKeyError, match="not today"):
            run(settings, prepare=failing)


def test_an_address_of_version_6_is_announced_in_brackets(store_url: str) -> None:
    """As URLs have it."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    announced: list[str] = []

    async def stop_soon(_operations: Operations) -> None:
        asyncio.get_running_loop().call_later(0.2, signal.raise_signal, signal.SIGTERM)

    try:
        run(
            Settings.load(master_key=MASTER_KEY, store_url=store_url, port=0, host="::1"),
            prepare=stop_soon,
            announce=announced.append,
        )
    except ListenError:
        pytest.skip("this machine has no IPv6 loopback")
    assert announced[0].startswith("http://[::1]:")


def test_several_workers_need_a_store_for_several() -> None:
    """With the sentence that says what to use instead, before anything is opened."""
    settings = Settings.load(master_key=MASTER_KEY, port=0, workers=2, store_url="sqlite:///never.db")
    with pytest.raises(SettingsError, match=r"CONFIG_SERVER_WORKERS is 2.* use PostgreSQL .*postgresql://"):
        run(settings)
    assert not os.path.exists("never.db")
