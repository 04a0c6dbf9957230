"""A foreign service for the SDK's tests: real sockets, the base protocol, and none of the headers that are ours.

It serves documents sealed in format 1 and streams of changes, and can be scripted to misbehave in every way that a
service, or a proxy before it, does. Imports nothing of the service package.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from config_client import ConfigClient, Options, Snapshot
from config_client.crypto import seal

TOKEN = "cst_canary-token-7f3a"
KEY = "c0ffee" * 10 + "abcd"
PREFIX = "/api/v1/service/configs"
PATIENCE = 60.0
"""Seconds after which a test stops waiting for what must happen."""

Handler = Callable[["Connection", "Request"], None]


@dataclass
class Request:
    """One request as the service read it. ``route``: list, config, formatted, watch; states is not served."""

    route: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Connection:
    """The service's end of one connection, for scripts that write bytes themselves."""

    sock: socket.socket
    released: threading.Event = field(default_factory=threading.Event)

    def send(self, data: bytes) -> None:
        """Write ``data``; a client that has gone is no fault of the test."""
        with suppress(OSError):
            self.sock.sendall(data)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Write a whole response. Underscores in the names of headers stand for hyphens."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        # 204 and 304 have no body and must not announce one.
        if status in {204, 304}:
            del lines[1]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def gone(self, seconds: float = 0.0) -> bool:
        """Wait, ``seconds`` at most, until the client has gone; tell whether it has."""
        try:
            readable, _, _ = select.select([self.sock], [], [], seconds)
            return bool(readable) and not self.sock.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def stall(self) -> None:
        """Say nothing until the client has gone or the service ends."""
        while not self.released.is_set() and not self.gone(0.02):
            pass

    def reset(self) -> None:
        """Cut the connection with a RST."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@dataclass
class Stream:
    """One open stream of changes."""

    name: str
    connection: Connection
    items: deque[bytes | str | None] = field(default_factory=deque)
    ready: threading.Event = field(default_factory=threading.Event)
    open: bool = True

    def put(self, item: bytes | str | None) -> None:
        """Queue bytes to send; None ends the stream in good order, "reset" without any."""
        self.items.append(item)
        self.ready.set()

    def serve(self) -> None:
        """Send what is queued until the stream ends or the client has gone."""
        connection = self.connection
        while not connection.released.is_set():
            if self.ready.wait(0.02):
                self.ready.clear()
            while self.items:
                item = self.items.popleft()
                if item is None:
                    return connection.send(b"0\r\n\r\n")
                if isinstance(item, str):
                    return connection.reset()
                connection.send(b"%x\r\n%s\r\n" % (len(item), item))
            if connection.gone():
                return None
        return None


class ForeignService:
    """A service on a loopback socket that speaks the base protocol only."""

    def __init__(self) -> None:
        self.etags = False
        self.stream_headers: dict[str, str] = {}
        self.requests: list[Request] = []
        self.streams: list[Stream] = []
        self._answered: list[str] = []
        self._documents: dict[str, bytes] = {}
        self._version = 0
        self._scripts: dict[str, deque[Handler]] = {}
        self._standing: dict[str, Handler] = {}
        self._changed = threading.Condition()
        self._connections: list[Connection] = []
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True, name="foreign-accept")]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://127.0.0.1:{self._port}"

    def publish(self, name: str, document: dict[str, object] | bytes, *, tell: bool = True, **told: object) -> int:
        """Serve ``document`` from now on and tell every stream of it; return the version told."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        with self._changed:
            self._documents[name] = raw
        return self.tell(name, **told) if tell else 0

    def delete(self, name: str, *, tell: bool = True) -> None:
        """Answer 404 from now on, and tell every stream that something changed."""
        with self._changed:
            self._documents.pop(name, None)
        if tell:
            self.tell(name)

    def tell(self, name: str, **told: object) -> int:
        """Send a change event to every open stream of ``name``."""
        self._version += 1
        event: dict[str, object] = {
            "config_name": name,
            "version": self._version,
            "changed_by": 7,
            "timestamp": "2026-11-20T10:00:00Z",
            **told,
        }
        self.send(f"event: config_changed\ndata: {json.dumps(event)}\n\n".encode(), name)
        return self._version

    def send(self, data: bytes, name: str = "orders") -> None:
        """Send raw bytes, as one chunk, on every open stream of ``name``."""
        for stream in self._open(name):
            stream.put(data)

    def end(self, name: str = "orders") -> None:
        """End every open stream of ``name`` in good order."""
        for stream in self._open(name):
            stream.put(None)

    def cut(self, name: str = "orders") -> None:
        """Reset the connection of every open stream of ``name``."""
        for stream in self._open(name):
            stream.put("reset")

    def script(self, route: str, *handlers: Handler) -> None:
        """Let the next requests of ``route`` be handled by ``handlers``, one each; after them as before."""
        with self._changed:
            self._scripts.setdefault(route, deque()).extend(handlers)

    def always(self, route: str, handler: Handler | None) -> None:
        """Let every request of ``route`` be handled by ``handler``; None: by the service itself again."""
        with self._changed:
            if handler is None:
                self._standing.pop(route, None)
            else:
                self._standing[route] = handler

    def answer(self, status: int, body: bytes = b"", **headers: str) -> Handler:
        """Return a handler that answers like this."""
        return lambda connection, request: connection.answer(status, body, **headers)

    def sealed(self, raw: bytes) -> bytes:
        """Return ``raw`` as this service sends documents."""
        return seal(raw, bytes.fromhex(KEY))

    def count(self, route: str) -> int:
        """Return how many requests of ``route`` came."""
        with self._changed:
            return sum(1 for request in self.requests if request.route == route)

    def wait(self, condition: Callable[[ForeignService], bool]) -> bool:
        """Wait until ``condition`` holds; it is looked at after every request and stream."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), PATIENCE)

    def wait_for(self, route: str, count: int) -> bool:
        """Wait until ``count`` requests of ``route`` have come in all."""
        return self.wait(lambda service: sum(1 for each in service.requests if each.route == route) >= count)

    def wait_for_answers(self, route: str, count: int) -> bool:
        """Wait until ``count`` requests of ``route`` were answered in all: what is published now is none of theirs."""
        return self.wait(lambda service: service._answered.count(route) >= count)

    def wait_for_streams(self, count: int) -> bool:
        """Wait until ``count`` streams were opened in all."""
        return self.wait(lambda service: len(service.streams) >= count)

    def wait_until_left(self) -> bool:
        """Wait until no stream is open any more."""
        return self.wait(lambda service: not any(stream.open for stream in service.streams))

    def close(self) -> None:
        """Stop listening and end every connection and thread."""
        with self._changed:
            self._closed = True
            connections = list(self._connections)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            connection.released.set()
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def _open(self, name: str) -> list[Stream]:
        with self._changed:
            return [stream for stream in self.streams if stream.open and stream.name == name]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True, name="foreign-connection")
            with self._changed:
                if self._closed:
                    sock.close()
                    return
                self._connections.append(connection)
                self._threads.append(thread)
            thread.start()

    def _converse(self, connection: Connection) -> None:
        # No file around the socket: it would put off the closing that a reset is.
        try:
            while (request := _read_request(connection.sock)) is not None:
                with self._changed:
                    self.requests.append(request)
                    scripts = self._scripts.get(request.route)
                    handler = scripts.popleft() if scripts else self._standing.get(request.route, self._serve)
                    self._changed.notify_all()
                handler(connection, request)
                with self._changed:
                    self._answered.append(request.route)
                    self._changed.notify_all()
        except (OSError, ValueError):
            pass
        finally:
            connection.sock.close()

    def _serve(self, connection: Connection, request: Request) -> None:
        if request.headers.get("x-service-token") != TOKEN:
            return connection.answer(401)
        if request.route == "list":
            row = {"is_valid": True, "valid_from": "2026-11-20T10:00:00Z", "updated_at": "2026-11-20T11:00:00.5+01:00"}
            rows = [{"name": name, **row} for name in self._documents]
            return connection.answer(200, json.dumps(rows).encode(), Content_Type="application/json")
        if request.route == "watch":
            return self._stream(connection, request)
        with self._changed:
            raw = None if request.route == "states" else self._documents.get(request.name)
        if raw is None:
            return connection.answer(404, b'{"error":{"code":"not_found","message":"no"}}')
        if request.route == "formatted":
            return connection.answer(200, raw)
        if not self.etags:
            return connection.answer(200, self.sealed(raw), Content_Type="application/octet-stream")
        etag = f'"{sha256(raw).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return connection.answer(304, ETag=etag)
        return connection.answer(200, self.sealed(raw), ETag=etag)

    def _stream(self, connection: Connection, request: Request) -> None:
        stream = Stream(request.name, connection)
        head = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
        head += [f"{name}: {value}" for name, value in self.stream_headers.items()]
        # Registered first: who has seen the headers must not miss an event.
        with self._changed:
            self.streams.append(stream)
        connection.send("\r\n".join([*head, "", ""]).encode())
        with self._changed:
            self._changed.notify_all()
        try:
            stream.serve()
        finally:
            with self._changed:
                stream.open = False
                self._changed.notify_all()


def _read_request(sock: socket.socket) -> Request | None:
    """Read a request; the SDK waits for each answer, so whatever comes belongs to this one."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = sock.recv(65536)
        if not received:
            return None
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target = first.split(" ")[:2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    while len(body) < int(headers.get("content-length", 0)):
        received = sock.recv(65536)
        if not received:
            return None
        body += received
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    if method == "POST":
        return Request("states", "", query, headers)
    parts = url.path.removeprefix(PREFIX).strip("/").split("/")
    route = "list" if not parts[0] else parts[1] if len(parts) > 1 else "config"
    return Request(route, parts[0], query, headers)


@pytest.fixture
def foreign() -> Iterator[ForeignService]:
    """Run a foreign service of this test's own."""
    service = ForeignService()
    yield service
    service.close()


@dataclass
class Told:
    """What a client told the application; to be waited for."""

    items: list[Any] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, item: Any) -> None:
        """Take an item, as a callback."""
        with self.changed:
            self.items.append(item)
            self.changed.notify_all()

    def wait(self, condition: Callable[[list[Any]], bool]) -> bool:
        """Wait until ``condition`` holds of all items."""
        with self.changed:
            return self.changed.wait_for(lambda: condition(self.items), PATIENCE)

    def wait_for(self, count: int) -> bool:
        """Wait until there are ``count`` items."""
        return self.wait(lambda items: len(items) >= count)


@pytest.fixture
def told() -> Callable[[], Told]:
    """Make a callback that collects what it is called with."""
    return Told


@dataclass
class Watching:
    """A blocking call of a client on a thread, and what came of it."""

    thread: threading.Thread
    client: ConfigClient
    snapshot: Snapshot[Any]
    raised: list[BaseException] = field(default_factory=list)

    def ended(self) -> bool:
        """Wait until the call has returned or raised."""
        self.thread.join(PATIENCE)
        return not self.thread.is_alive()


@pytest.fixture
def connect(foreign: ForeignService) -> Iterator[Callable[..., ConfigClient]]:
    """Make clients of the foreign service with short delays; any option may be overridden. Closes them at the end."""
    clients: list[ConfigClient] = []

    def make(**options: Any) -> ConfigClient:
        settings = {
            "host": foreign.url,
            "service_token": TOKEN,
            "encryption_key": KEY,
            "retry_delay": 0.01,
            "max_retry_delay": 0.05,
            **options,
        }
        clients.append(ConfigClient(Options(**settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def background(connect: Callable[..., ConfigClient]) -> Iterator[Callable[..., Watching]]:
    """Run a watch on a thread: of values into a snapshot, or of events when a callback is given."""
    running: list[Watching] = []

    def start(
        name: str = "orders",
        target: type = dict,
        *,
        callback: Callable[[Any], object] | None = None,
        opts: Any = None,
        client: ConfigClient | None = None,
        **options: Any,
    ) -> Watching:
        snapshot: Snapshot[Any] = Snapshot()
        used = client or connect(**options)

        def run() -> None:
            try:
                if callback is not None:
                    used.watch(name, callback, opts)
                else:
                    used.watch_and_decode(name, target, snapshot, opts)
            except BaseException as error:
                watching.raised.append(error)

        watching = Watching(threading.Thread(target=run, daemon=True, name="test-watch"), used, snapshot)
        running.append(watching)
        watching.thread.start()
        return watching

    yield start
    for watching in running:
        watching.client.close()
        assert watching.ended()


def open_sockets() -> int:
    """Return how many sockets this process holds open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


@pytest.fixture
def sockets() -> Callable[[], int]:
    """Count the open sockets of this process."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to count sockets")
    return open_sockets


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Wait for what no event announces, such as the kernel's closing of a socket."""

    def wait(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    return wait


def reachable(error: BaseException) -> Iterator[object]:
    """Yield everything that hangs on an error: causes, contexts, arguments and attributes, deeply."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, BaseException):
            waiting += [item.__cause__, item.__context__, *item.args, *getattr(item, "__notes__", ())]
        if isinstance(item, (list, tuple, set, frozenset)):
            waiting += item
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif not isinstance(item, (str, bytes, int, float, type(None), type)):
            waiting += vars(item).values() if hasattr(item, "__dict__") else ()


@pytest.fixture
def leaks() -> Callable[..., list[str]]:
    """Look for secrets in everything that hangs on an error, and in further texts."""

    def find(error: BaseException | None, *texts: str, secrets: tuple[str, ...] = (TOKEN, KEY)) -> list[str]:
        items = [*texts]
        for item in reachable(error) if error is not None else ():
            items += [repr(item), str(item)]
            # A request or response of httpx shows its headers only when asked.
            assert not type(item).__module__.startswith(("httpx", "httpcore")) or isinstance(item, Exception), item
        return [secret for secret in secrets for text in items if secret in text]

    return find
