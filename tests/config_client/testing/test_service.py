"""The in-memory service from outside: what a test can ask of it, over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from config_client import (
    ConfigClient,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    DecryptionError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    Snapshot,
    UnauthorizedError,
)
from config_client.protocol import CONFIGS_PATH, TOKEN_HEADER, WATCH_PATH, Held, Position, dump_watch_request
from config_client.testing import Credentials, InMemoryService, MisuseError, _loop, _routes

pytestmark = pytest.mark.integration

PATIENCE = 60.0


@pytest.fixture
def service() -> Iterator[InMemoryService]:
    """Run a service with one config."""
    with InMemoryService() as service:
        service.publish("orders", {"n": 1})
        yield service


@pytest.fixture
def client(service: InMemoryService) -> Iterator[ConfigClient]:
    """Connect to it, without retries."""
    with ConfigClient(service.options(retry_count=0)) as client:
        yield client


def open_stream(service: InMemoryService, *held: Held, **headers: str) -> tuple[HTTPConnection, Any]:
    """Open a state-first stream by hand."""
    address = urlsplit(service.url)
    connection = HTTPConnection(str(address.hostname), address.port or 0, timeout=PATIENCE)
    told = {TOKEN_HEADER: service.credentials.token, **{name.replace("_", "-"): text for name, text in headers.items()}}
    connection.request("POST", WATCH_PATH, dump_watch_request(held or [Held("orders")]), told)
    return connection, connection.getresponse()


def read_event(response: Any) -> tuple[str, dict[str, Any]]:
    """Return name and data of the next event."""
    name, data = "", {}
    for line in iter(response.readline, b""):
        text = line.decode().strip()
        if text.startswith("event: "):
            name = text.removeprefix("event: ")
        elif text.startswith("data: "):
            data = json.loads(text.removeprefix("data: "))
        elif not text and name:
            return name, data
    raise EOFError


# --- running ---


def test_start_and_stop_keep_port_and_contents(service: InMemoryService, client: ConfigClient) -> None:
    """While it is down connections are refused, changes can be prepared, and its port is nobody else's."""
    url = service.url
    service.stop()
    service.stop()
    with pytest.raises(ConnectionError):
        client.get_raw("orders")
    service.publish("orders", {"n": 2})
    assert service.url == url
    service.start()
    service.start()
    assert service.url == url
    assert client.get_raw("orders") == {"n": 2}


def test_nothing_is_left_after_closing() -> None:
    """Neither thread nor descriptor, however many clients were connected; closing again does nothing."""
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/dev/fd"))
    for _ in range(3):
        service = InMemoryService()
        service.start()
        service.publish("orders", {"n": 1})
        streams = [open_stream(service) for _ in range(20)]
        service.wait_for_watchers(20)
        service.stop()
        service.close()
        service.close()
        for connection, response in streams:
            response.close()
            connection.close()
    assert set(threading.enumerate()) == threads
    assert len(os.listdir("/dev/fd")) == descriptors


def test_a_service_that_was_not_started_has_no_address() -> None:
    """The error says how to start it."""
    service = InMemoryService()
    assert repr(service) == "InMemoryService(not started)"
    with pytest.raises(MisuseError, match="was not started"):
        _ = service.url
    service.close()


def test_several_services_run_side_by_side() -> None:
    """Each has its own port, token and contents."""
    with InMemoryService() as one, InMemoryService() as other:
        one.publish("orders", {"n": 1})
        other.publish("orders", {"n": 2})
        with ConfigClient(one.options()) as client:
            assert client.get_raw("orders") == {"n": 1}
        with (
            ConfigClient(one.options(other.credentials)) as stranger,
            pytest.raises(UnauthorizedError),
        ):
            stranger.get_raw("orders")


def test_a_child_made_by_fork_connects_and_never_holds_the_port() -> None:
    """The child reads as a client, cannot publish, and while it lives the parent can stop and start."""
    program = """
import os, select
from config_client import ConfigClient
from config_client.testing import InMemoryService, MisuseError
service = InMemoryService()
service.start()
service.publish("orders", {"n": 1})
ready, go = os.pipe()[::-1], os.pipe()
child = os.fork()
if child == 0:
    with ConfigClient(service.options()) as client:
        read = client.get_raw("orders") == {"n": 1}
    try:
        service.publish("orders", {"n": 2})
        refused = False
    except MisuseError as error:
        refused = "parent" in str(error)
    service.close()
    os.write(ready[0], b"+" if read and refused else b"-")
    os.read(go[0], 1)
    os._exit(0)
assert os.read(ready[1], 1) == b"+"
for _ in range(3):
    service.stop()
    service.start()
with ConfigClient(service.options()) as client:
    assert client.get_raw("orders") == {"n": 1}
os.write(go[1], b".")
assert os.waitpid(child, 0)[1] == 0
service.close()
"""
    done = subprocess.run(
        # A warning of Python 3.12 about threads and fork is what this is about.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_child_processes_find_it_by_environment(service: InMemoryService, tmp_path: Path) -> None:
    """``environ`` is what ``ConfigClient.from_env`` reads, in whatever process, and nothing is left on the disk."""
    program = """
from config_client import ConfigClient
with ConfigClient.from_env() as client:
    print(client.subscribe("orders", dict).load())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **service.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.strip() == "{'n': 1}"
    assert list(tmp_path.iterdir()) == []


# --- asking for what cannot be ---


def test_misuse_is_told_with_its_remedy(service: InMemoryService) -> None:
    """Each mistake raises MisuseError, which is a ValueError, and changes nothing."""
    revision = service.revision
    service.stop()
    mistakes: dict[str, Any] = {
        "version 7 to roll back to; there are": lambda: service.rollback("orders", 7),
        "nothing is running": lambda: service.delete("nothing"),
        "config name": lambda: service.publish("a/b", {}),
        "environment 'a b'": lambda: service.publish("orders", {}, environment="a b"),
        "label 'a//b'": lambda: service.publish("orders", {}, label="a//b"),
        "a mapping, bytes or text, not list": lambda: service.publish("orders", [1]),  # type: ignore[arg-type]
        "of what JSON can hold": lambda: service.publish("orders", {"n": object()}),
        "would refuse this document": lambda: service.publish("orders", "[1]"),
        "a failure is 400 to 599": lambda: service.fail(200),
        "times 0": lambda: service.fail(503, times=0),
        "for_ 'stream'": lambda: service.fail(503, for_="stream"),  # type: ignore[arg-type]
        "retry_after 1.5: whole seconds": lambda: service.fail(503, retry_after=1.5),
        "retry_after -1: whole seconds": lambda: service.fail(503, retry_after=-1),
        "configs@environments": lambda: service.mint(scopes=("read",)),
        "a sequence of texts": lambda: service.mint(scopes="orders@prod:read"),
        "environment: 1 to 128": lambda: service.mint(environment="a b"),
        "no valid token": lambda: service.rotate_key(Credentials("cst_unknown", "ab" * 32)),
        "heartbeat intervals": lambda: InMemoryService(heartbeat_interval=0),
        "environment: 1": lambda: InMemoryService(environment="a b"),
    }
    for fragment, ask in mistakes.items():
        with pytest.raises(MisuseError, match=fragment.replace("(", r"\(")):
            ask()
    assert service.revision == revision
    with pytest.raises(TypeError):
        service.options(colour="red")
    with pytest.raises(ConfigClientError):
        service.options(retry_count=-1)


def test_a_document_that_is_refused_is_not_repeated_in_the_error(service: InMemoryService) -> None:
    """Test output is kept and shared, and documents hold secrets even in tests."""
    with pytest.raises(MisuseError) as raised:
        service.publish("orders", b'{"password": "canary", "password": "canary"}')
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_what_the_real_service_would_refuse_can_be_served_all_the_same(
    service: InMemoryService, client: ConfigClient
) -> None:
    """``check=False`` shows an application what it makes of rubbish."""
    service.publish("orders", b"rubbish", check=False)
    assert client.get_bytes("orders") == b"rubbish"
    with pytest.raises(ConfigClientError):
        client.get_raw("orders")


# --- trouble ---


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (418, InvalidResponseError),
        (500, ConnectionError),
        (503, ConnectionError),
    ],
)
def test_failures_come_as_often_as_asked_for(
    service: InMemoryService, client: ConfigClient, status: int, error: type[Exception]
) -> None:
    """The next two requests fail with that status, the one after them does not."""
    service.fail(status, times=2)
    for _ in range(2):
        with pytest.raises(error):
            client.get_raw("orders")
    assert client.get_raw("orders") == {"n": 1}
    assert [request.status for request in service.requests] == [status, status, 200]


def test_failures_last_until_they_are_cleared_and_say_when_to_come_again(
    service: InMemoryService, client: ConfigClient
) -> None:
    """Without ``times`` every request fails; ``retry_after`` is a header; None ends it."""
    service.fail(503, retry_after=7)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            client.get_raw("orders")
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        assert (response.status, response.getheader("Retry-After")) == (503, "7")
    service.fail(None)
    assert client.get_raw("orders") == {"n": 1}


def test_failures_may_be_for_streams_or_for_everything_else(service: InMemoryService, client: ConfigClient) -> None:
    """One route fails while the other works."""
    service.fail(503, for_="watch")
    assert client.get_raw("orders") == {"n": 1}
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        assert response.status == 503
    service.fail(503, for_="get")
    with pytest.raises(ConnectionError):
        client.list()
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        assert response.status == 200


def test_cut_resets_every_connection_and_takes_new_ones(service: InMemoryService) -> None:
    """An open stream breaks off; when the call returns none is left."""
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        service.wait_for_watchers(1)
        service.cut()
        assert service.watchers == 0
        with pytest.raises((OSError, HTTPException)):
            response.read()
    service.wait_for_watchers(0)
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        assert read_event(response)[0] == "config_state"


def test_a_stream_ends_in_good_order_when_the_service_stops(service: InMemoryService) -> None:
    """Everything sent arrives, and then the end of the stream."""
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        service.wait_for_watchers(1)
        service.publish("orders", {"n": 2})
        service.stop()
        body = response.read().decode()
    assert [line for line in body.splitlines() if line.startswith("event: ")] == [
        "event: config_state",
        "event: synced",
        "event: config_changed",
    ]


def test_a_reader_that_falls_too_far_behind_is_cut(service: InMemoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded, and a stream is never trimmed."""
    monkeypatch.setattr(_loop, "MAX_WAITING_BYTES", 1_000_000)
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        service.wait_for_watchers(1)
        for number in range(100):
            service.publish("orders", {"n": number, "padding": "x" * 500_000})
            if not service.watchers:
                break
        assert service.watchers == 0
        with pytest.raises((OSError, HTTPException)):
            response.read()


def test_connections_are_bounded(service: InMemoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than there may be is closed at once; the others go on."""
    monkeypatch.setattr(_loop, "MAX_CONNECTIONS", 2)
    streams = [open_stream(service) for _ in range(2)]
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as refused:
        refused.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionResetError):
            assert refused.recv(1) == b""
    for connection, response in streams:
        assert read_event(response)[0] == "config_state"
        response.close()
        connection.close()


def test_a_defect_of_its_own_is_an_answer_and_a_line_in_the_log(
    service: InMemoryService, client: ConfigClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500, with type and place and without the text, which may repeat a document; the service goes on."""

    def fail(*_: object) -> None:
        raise RuntimeError("canary")

    with monkeypatch.context() as patch:
        patch.setattr(_routes.Routes, "answer", fail)
        with pytest.raises(ConnectionError):
            client.get_raw("orders")
    assert "RuntimeError at " in caplog.text
    assert "canary" not in caplog.text
    assert client.get_raw("orders") == {"n": 1}


def test_what_is_no_request_is_refused_and_the_connection_closed(service: InMemoryService) -> None:
    """400 in the shape of every error, and nothing after it is read."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as sock:
        sock.sendall(b"nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        received = b""
        while data := sock.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received.count(b"HTTP/1.1") == 2  # once in the status line, once in the message
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"


def test_a_long_body_may_wait_to_be_asked_for(service: InMemoryService) -> None:
    """``Expect: 100-continue`` is answered before the body is sent."""
    address = urlsplit(service.url)
    body = dump_watch_request([Held("orders")])
    head = f"POST {WATCH_PATH} HTTP/1.1\r\n{TOKEN_HEADER}: {service.credentials.token}\r\nExpect: 100-continue\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as sock:
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_heartbeats_are_announced_and_come() -> None:
    """A comment of one line, in the interval of the kind of stream."""
    with InMemoryService(heartbeat_interval=0.02, watch_heartbeat_interval=0.03) as service:
        service.publish("orders", {"n": 1})
        position = Position(service.epoch, service.revision)
        connection, response = open_stream(service, Held("orders", position=position))
        with closing(connection), closing(response):
            assert response.getheader("X-Config-Heartbeat") == "0.03"
            lines = [response.readline() for _ in range(8)]
        assert lines[:1] + lines[4:] == [b":\n"] * 5
        connection.request("GET", f"{CONFIGS_PATH}/orders/watch", headers={TOKEN_HEADER: service.credentials.token})
        response = connection.getresponse()
        with closing(connection), closing(response):
            assert response.getheader("X-Config-Heartbeat") == "0.02"
            assert [response.readline() for _ in range(4)] == [b":\n"] * 4


def test_a_restored_service_is_of_a_later_epoch_and_ends_its_streams(service: InMemoryService) -> None:
    """What came after the backup is gone, and a position of the old epoch counts as different."""
    backup, epoch = service.backup(), service.epoch
    service.publish("orders", {"n": 2})
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        service.wait_for_watchers(1)
        service.restore(backup)
        assert b"config_state" in response.read()
    assert service.epoch > epoch
    connection, response = open_stream(service, Held("orders", position=Position(epoch, service.revision)))
    with closing(connection), closing(response):
        name, state = read_event(response)
    assert (name, state["version"], state["epoch"]) == ("config_state", 1, service.epoch)


def test_the_base_protocol_alone_knows_neither_states_nor_format_2(service: InMemoryService) -> None:
    """The route is unknown, and what is asked for beyond the base protocol is ignored."""
    service.base_only = True
    assert service.base_only
    connection, response = open_stream(service)
    assert (response.status, json.loads(response.read())["error"]["code"]) == (404, "not_found")
    headers = {
        TOKEN_HEADER: service.credentials.token,
        "Accept": "application/vnd.config-service.sealed; format=2",
        "X-Config-Key-Ids": "nonsense",
        "X-Config-Min-Revision": f"{service.epoch}-999",
    }
    with closing(connection):
        connection.request("GET", f"{CONFIGS_PATH}/orders", headers=headers)
        response = connection.getresponse()
        response.read()
        assert (response.status, response.getheader("Content-Type")) == (200, "application/octet-stream")


# --- tokens ---


def test_a_rotated_key_overlaps_until_it_is_retired(service: InMemoryService, client: ConfigClient) -> None:
    """Who says nothing gets what the oldest key opens; without overlap only the newest key is left."""
    before = service.credentials
    after = service.rotate_key()
    assert (after.token, service.key) == (before.token, after.key)
    assert after.key != before.key
    with ConfigClient(service.options(before)) as old, ConfigClient(service.options()) as new:
        assert old.get_raw("orders") == new.get_raw("orders") == {"n": 1}
        service.retire_keys()
        assert new.get_raw("orders") == {"n": 1}
        with pytest.raises(DecryptionError):
            old.get_raw("orders")
        service.rotate_key(overlap=False)
        with pytest.raises(DecryptionError):
            new.get_raw("orders")


def test_an_open_stream_is_sealed_under_the_keys_of_the_moment(service: InMemoryService) -> None:
    """A client that holds only the old key is served with it during the overlap, and with the new one after."""
    from base64 import b64decode

    from config_client.crypto import Keyring, key_id, parse_header

    old = service.key
    connection, response = open_stream(service, X_Config_Key_Ids=key_id(bytes.fromhex(old)))
    with closing(connection), closing(response):
        assert [read_event(response)[0] for _ in range(2)] == ["config_state", "synced"]
        service.rotate_key()
        service.publish("orders", {"n": 2})
        _, state = read_event(response)
        assert Keyring((bytes.fromhex(old),)).open_bound(b64decode(state["payload"]))[1] == b'{"n": 2}'
        service.retire_keys()
        service.publish("orders", {"n": 3})
        _, state = read_event(response)
    assert parse_header(b64decode(state["payload"])).key_id == key_id(bytes.fromhex(service.key))


def test_a_revoked_token_is_refused_and_its_streams_end(service: InMemoryService, client: ConfigClient) -> None:
    """The other tokens' streams go on; revoking twice is a mistake of the test."""
    other = service.mint()
    mine, mine_response = open_stream(service)
    service.revoke(other)
    service.wait_for_watchers(1)
    service.revoke()
    with closing(mine), closing(mine_response):
        assert b"event: synced" in mine_response.read()
    with pytest.raises(UnauthorizedError):
        client.get_raw("orders")
    with pytest.raises(MisuseError, match="revoked already"):
        service.revoke()


# --- looking ---


def test_requests_are_recorded_without_the_token(service: InMemoryService, client: ConfigClient) -> None:
    """Method, path, query and status, and what a state-first watch holds; refused requests too."""
    client.get_raw("orders")
    with pytest.raises(NotFoundError):
        client.get_formatted("nothing", "env")  # type: ignore[arg-type]
    connection, response = open_stream(service, Held("orders", "prod"), Held("x", position=Position("0" * 24, 3)))
    connection.close()
    response.close()
    first, second, third = service.requests
    assert (first.method, first.path, first.status) == ("GET", f"{CONFIGS_PATH}/orders", 200)
    assert (second.query, second.status) == ({"format": "env"}, 404)
    assert (third.method, third.path) == ("POST", WATCH_PATH)
    assert third.watched == (Held("orders", "prod", "main"), Held("x", None, "main", Position("0" * 24, 3)))
    assert service.credentials.token not in repr(service.requests)


def test_versions_count_as_sent_when_they_have_left(service: InMemoryService, client: ConfigClient) -> None:
    """By an answer, an export or a stream; what a base stream announces counts when it is fetched."""
    with pytest.raises(TimeoutError, match=r"orders \(default, main\): version none is the newest"):
        service.wait_for_version("orders", 1, timeout=0.01)
    client.get_raw("orders")
    service.wait_for_version("orders", 1)
    service.publish("orders", {"n": 2})
    client.get_formatted("orders", "env")  # type: ignore[arg-type]
    service.wait_for_version("orders", 2)
    service.base_only = True
    address = urlsplit(service.url)
    base = HTTPConnection(str(address.hostname), address.port or 0, timeout=PATIENCE)
    base.request("GET", f"{CONFIGS_PATH}/orders/watch", headers={TOKEN_HEADER: service.credentials.token})
    with closing(base), closing(base.getresponse()) as response:
        service.publish("orders", {"n": 3})
        assert read_event(response)[1]["version"] == 3
        with pytest.raises(TimeoutError, match="version 2 is the newest that was sent, not 3"):
            service.wait_for_version("orders", 3, timeout=0.01)
        service.delete("orders")
        service.wait_for_version("orders", 4)
    service.base_only = False
    connection, response = open_stream(service)
    with closing(connection), closing(response):
        service.wait_for_watchers(1)
        service.publish("orders", {"n": 5})
        service.wait_for_version("orders", 5)
    with pytest.raises(TimeoutError):
        service.wait_for_version("orders", 1, timeout=0.01, environment="prod")


def test_waiting_in_vain_says_what_was_seen(service: InMemoryService) -> None:
    """The error is of use in the output of a test that failed."""
    with pytest.raises(TimeoutError, match=r"after 0\.01 s 0 streams are open, not 2; 0 requests came so far"):
        service.wait_for_watchers(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="what was waited for has not happened"):
        service.wait_until(lambda: False, timeout=0.01)


def test_what_was_published_has_left_when_the_call_returns(service: InMemoryService) -> None:
    """Twenty streams at once: no wait is needed between publishing and having sent."""
    streams = [open_stream(service) for _ in range(20)]
    service.wait_for_watchers(20)
    for number in range(2, 7):
        service.publish("orders", {"n": number})
        service.wait_for_version("orders", number, timeout=0)
    for connection, response in streams:
        events = [read_event(response) for _ in range(7)]
        assert [data.get("version") for _, data in events] == [1, None, 2, 3, 4, 5, 6]
        response.close()
        connection.close()


def test_writers_on_many_threads_make_one_history(service: InMemoryService) -> None:
    """Versions are dense and every stream sees them in order, whoever publishes."""
    connection, response = open_stream(service, Held("a"), Held("b"))
    with closing(connection), closing(response):
        service.wait_for_watchers(1)
        writers = [
            threading.Thread(
                target=lambda name=name, writer=writer: [
                    service.publish(name, {"writer": writer, "n": number}) for number in range(25)
                ]
            )
            for name in ("a", "b")
            for writer in range(4)
        ]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join(PATIENCE)
        events = [read_event(response)[1] for _ in range(203)][3:]
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(revisions)
    for name in ("a", "b"):
        assert [event["version"] for event in events if event["config_name"] == name] == list(range(1, 101))


def test_a_large_answer_reaches_a_reader_that_takes_its_time(service: InMemoryService, client: ConfigClient) -> None:
    """More than a socket's buffer is written as the reader takes it, while others are served."""
    service.publish("large", {"padding": "x" * 8_000_000})
    connection, response = open_stream(service, Held("large"))
    with closing(connection), closing(response):
        assert client.get_raw("orders") == {"n": 1}
        name, state = read_event(response)
    assert (name, len(state["payload"]) > 8_000_000) == ("config_state", True)


def test_a_snapshot_follows_as_an_application_would_test_it(service: InMemoryService) -> None:
    """The whole of it: fill, change, failure, cut, outage, and the thread that ends with its client."""
    snapshot: Snapshot[dict[str, object]] = Snapshot()
    with ConfigClient(service.options()) as client:
        thread = threading.Thread(target=client.watch_and_decode, args=("orders", dict, snapshot), daemon=True)
        thread.start()
        assert snapshot.wait_for(version=1, timeout=PATIENCE)
        service.fail(503, times=2)
        service.cut()
        service.publish("orders", {"n": 2})
        assert snapshot.wait_for(version=2, timeout=PATIENCE)
        service.stop()
        service.publish("orders", {"n": 3})
        service.start()
        assert snapshot.wait_for(version=3, timeout=PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()
