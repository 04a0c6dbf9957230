"""What the SDK's behaviour is tested against: the in-memory service, and the real one behind a relay that can be cut.

Both obey ``Backend``. Each test of this folder runs on both, and may therefore only use what ``Backend`` offers.
"""

from __future__ import annotations

import asyncio
import inspect
import shutil
import socket
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from config_client import AsyncConfigClient, Change, ConfigClient, ConfigClientError, GetOptions, Options, Snapshot
from config_client.testing import Credentials, InMemoryService
from config_service.process import Operator, ServiceProcess
from config_service.store.session import new_epoch

PATIENCE = 60.0
"""Seconds after which a test stops waiting for what must happen."""
BACKENDS = [
    pytest.param("in-memory", marks=pytest.mark.integration, id="in-memory"),
    pytest.param("real", marks=pytest.mark.e2e, id="real"),
]
STAY = {
    "test_a_published_config_is_read_back_byte_for_byte_and_in_every_target[real-thread]",
    "test_a_stopped_service_that_returns_serves_what_was_acknowledged[real-thread]",
    "test_publishing_identical_bytes_makes_no_version[real]",
}
"""Claims that the usual run holds against a real service as well."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would be the same once more: reading from a task does not mind which service answers.

    What starts a real service for itself is among the long tests, but for one of each kind.
    """
    here, kept, left_out = Path(__file__).parent, [], []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if parameters.get("backend") == "real" and item.name not in STAY:
            item.add_marker(pytest.mark.long)
        again = (parameters.get("backend"), parameters.get("kind")) == ("real", "task")
        (left_out if item.path == here / "test_reading.py" and again else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


class Backend(Protocol):
    """A config service as its operator, its clients and misfortune see it."""

    @property
    def credentials(self) -> Credentials:
        """A token that may read and export everything."""

    def options(self, credentials: Credentials | None = None, **overrides: object) -> Options:
        """Return the options of an impatient client."""

    def publish(self, name: str, document: dict[str, object] | bytes, *, environment: str = "", label: str = "") -> int:
        """Publish and return the version."""

    def delete(self, name: str, *, environment: str = "", label: str = "") -> int:
        """Delete and return the version of the tombstone."""

    def rollback(self, name: str, version: int, *, environment: str = "", label: str = "") -> int:
        """Publish an older version again."""

    def mint(self, *, environment: str = "default", scopes: tuple[str, ...] = ("*@*:read,export",)) -> Credentials:
        """Make another token."""

    def revoke(self, credentials: Credentials) -> None:
        """Refuse the token from now on."""

    def rotate_key(self, credentials: Credentials, *, overlap: bool = True) -> Credentials:
        """Give the token a fresh key."""

    @property
    def watchers(self) -> int:
        """How many streams are open."""

    def wait_for_watchers(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until that many streams are open; 0: until none is."""

    def cut(self) -> None:
        """Reset every connection."""

    def stop(self) -> None:
        """Take the service down."""

    def start(self) -> None:
        """Bring it back, at the same address and with everything that was acknowledged."""

    def backup(self) -> Any:
        """Return what is held now."""

    def restore(self, backup: Any) -> None:
        """Hold that again, as another epoch."""

    def set_base_only(self, value: bool) -> None:
        """Speak the base protocol only, or everything again."""

    def block_streams(self, value: bool) -> None:
        """Refuse streams with 503 as a proxy may, while everything else works; or let them through again."""


class InMemory(InMemoryService):
    """The in-memory service, as a backend."""

    def set_base_only(self, value: bool) -> None:
        self.base_only = value

    def block_streams(self, value: bool) -> None:
        self.fail(503 if value else None, for_="watch")


class Relay:
    """A TCP proxy on a loopback port: forwards bytes, knows which connections are streams, and can reset them all."""

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.base_only = False
        self.blocks_streams = False
        self._changed = threading.Condition()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._asked: set[socket.socket] = set()
        self._streams: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        with self._changed:
            return len(self._streams)

    def wait_for_watchers(self, count: int, timeout: float) -> None:
        """Wait until at least ``count`` streams are open; 0: until none is."""
        with self._changed:
            reached = self._changed.wait_for(
                lambda: len(self._streams) >= count if count else not self._streams, timeout
            )
        assert reached, f"{len(self._streams)} streams are open, not {count}"

    def cut(self) -> None:
        """Reset the clients' ends and close the service's."""
        with self._changed:
            pairs = dict(self._pairs)
            for client in pairs:
                self._streams.discard(client)
        for client, upstream in pairs.items():
            _reset(client)
            _shut(upstream)

    def close(self) -> None:
        """End every connection and thread."""
        _shut(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._forward, client)

    def _forward(self, client: socket.socket) -> None:
        with client:
            try:
                upstream = socket.create_connection(self.target or ("127.0.0.1", 0), timeout=PATIENCE)
            except OSError:
                _reset(client)
                return
            upstream.settimeout(None)
            with upstream:
                with self._changed:
                    self._pairs[client] = upstream
                back = threading.Thread(target=self._pump, args=(upstream, client, client), daemon=True)
                back.start()
                self._pump(client, upstream, client)
                back.join(PATIENCE)
                with self._changed:
                    del self._pairs[client]
                    self._streams.discard(client)
                    self._asked.discard(client)
                    self._changed.notify_all()

    def _refusal(self, line: bytes) -> bytes:
        if self.blocks_streams:
            return b"503 Service Unavailable"
        return b"404 Not Found" if self.base_only and line.startswith(b"POST ") else b""

    def _pump(self, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                line = data.partition(b"\r\n")[0]
                if source is client and b"/watch" in line and line.endswith(b"HTTP/1.1"):
                    refusal = self._refusal(line)
                    if refusal:
                        client.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % refusal)
                        break
                    self._asked.add(client)
                sink.sendall(data)
                if source is not client and client in self._asked and line.startswith(b"HTTP/1.1 200"):
                    with self._changed:
                        self._asked.discard(client)
                        self._streams.add(client)
                        self._changed.notify_all()
        with self._changed:
            self._streams.discard(client)
            self._changed.notify_all()
        for each in (source, sink):
            _shut(each)


class Real:
    """The real service in a child process, reached through a relay."""

    def __init__(self, process: ServiceProcess) -> None:
        self._process = process
        self._process.start()
        self._operator: Operator = process.operator()
        self._relay = Relay()
        self._point()
        self._ids: dict[str, int] = {}
        self.credentials = self.mint()

    def options(self, credentials: Credentials | None = None, **overrides: object) -> Options:
        own = credentials or self.credentials
        quick = {"request_timeout": 5.0, "retry_delay": 0.02, "max_retry_delay": 0.2, "poll_interval": 0.5}
        fields: dict[str, Any] = {
            "host": self._relay.url,
            "service_token": own.token,
            "encryption_key": own.key,
            "cache": False,
            **quick,
            **overrides,
        }
        return Options(**fields)

    def publish(self, name: str, document: dict[str, object] | bytes, *, environment: str = "", label: str = "") -> int:
        return self._operator.publish(name, document, environment=environment, label=label)

    def delete(self, name: str, *, environment: str = "", label: str = "") -> int:
        return self._operator.delete(name, environment=environment, label=label)

    def rollback(self, name: str, version: int, *, environment: str = "", label: str = "") -> int:
        return self._operator.roll_back(name, version, environment=environment, label=label)

    def mint(self, *, environment: str = "default", scopes: tuple[str, ...] = ("*@*:read,export",)) -> Credentials:
        made = self._operator.mint("app", environment=environment, scopes=scopes)
        self._ids[made.token] = made.token_id
        return Credentials(made.token, made.key)

    def revoke(self, credentials: Credentials) -> None:
        self._operator.revoke(self._ids[credentials.token])

    def rotate_key(self, credentials: Credentials, *, overlap: bool = True) -> Credentials:
        key = self._operator.rotate_key(self._ids[credentials.token], 3600 if overlap else 0)
        return Credentials(credentials.token, key)

    @property
    def watchers(self) -> int:
        return self._relay.watchers

    def wait_for_watchers(self, count: int, timeout: float = PATIENCE) -> None:
        self._relay.wait_for_watchers(count, timeout)

    def cut(self) -> None:
        self._relay.cut()

    def stop(self) -> None:
        self._process.stop()

    def start(self) -> None:
        self._process.start()
        self._point()

    def backup(self) -> Path:
        self._process.stop()
        copy = self._process.directory / "backup.db"
        shutil.copy(self._database, copy)
        self.start()
        return copy

    def restore(self, backup: Path) -> None:
        self._process.stop()
        for left in self._process.directory.glob("config.db-*"):
            left.unlink()
        shutil.copy(backup, self._database)
        with sqlite3.connect(self._database) as connection:
            connection.execute("UPDATE history SET epoch = ?", (new_epoch(),))
        connection.close()
        self.start()

    def set_base_only(self, value: bool) -> None:
        self._relay.base_only = value

    def block_streams(self, value: bool) -> None:
        self._relay.blocks_streams = value

    def close(self) -> None:
        self._relay.close()
        self._process.close()

    @property
    def _database(self) -> Path:
        return self._process.directory / "config.db"

    def _point(self) -> None:
        host, _, port = self._process.url.removeprefix("http://").rpartition(":")
        self._relay.target = (host, int(port))


class OnTask:
    """An AsyncConfigClient on an event loop of its own thread, to be used like a ConfigClient."""

    def __init__(self, options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client: AsyncConfigClient = self.run(self._make(options))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **terms: self.run(found(*arguments, **terms))

    def subscribe(self, *arguments: Any, **terms: Any) -> Any:
        return OnTaskSubscription(self, self.run(self._client.subscribe(*arguments, **terms)))

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        try:
            self.run(self._client.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()

    async def _make(self, options: Any) -> AsyncConfigClient:
        return AsyncConfigClient(options)

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)


class OnTaskSubscription:
    """A subscription of a client on a task: closed on its loop, read from anywhere."""

    def __init__(self, owner: OnTask, subscription: Any) -> None:
        self._owner = owner
        self._subscription = subscription

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    def close(self) -> None:
        async def close() -> None:
            self._subscription.close()

        self._owner.run(close())


@dataclass
class Watching:
    """A watch on a daemon thread, and all that it said."""

    snapshot: Snapshot[Any] = field(default_factory=Snapshot)
    versions: list[int | None] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    erred: threading.Condition = field(default_factory=threading.Condition)
    thread: threading.Thread = field(default_factory=threading.Thread)

    def report(self, error: Exception) -> None:
        """Take an error, as ``on_error``."""
        with self.erred:
            self.errors.append(error)
            self.erred.notify_all()

    def wait_for_error(self, kind: type[ConfigClientError]) -> bool:
        """Wait until an error of ``kind`` was reported."""
        with self.erred:
            return self.erred.wait_for(lambda: any(isinstance(error, kind) for error in self.errors), PATIENCE)


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> ServiceProcess:
    """Make a store once, for real services to begin with."""
    return ServiceProcess(tmp_path_factory.mktemp("new-store"))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Run a service of this test's own: once the in-memory one, once the real one."""
    if request.param == "in-memory":
        with InMemory() as service:
            yield service
    else:
        real = Real(ServiceProcess(tmp_path, copy_of=request.getfixturevalue("new_store")))
        try:
            yield real
        finally:
            real.close()


@pytest.fixture(params=["thread", "task"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client is tested: ConfigClient, or AsyncConfigClient on an event loop."""
    return str(request.param)


@pytest.fixture
def subscriber(kind: str, backend: Any) -> Iterator[Callable[..., Any]]:
    """Make clients whose work is done on a thread, or on a task of asyncio."""
    clients: list[Any] = []

    def make(credentials: Any = None, **overrides: object) -> Any:
        options = backend.options(credentials, **overrides)
        clients.append(ConfigClient(options) if kind == "thread" else OnTask(options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def connect(backend: Backend) -> Iterator[Callable[..., ConfigClient]]:
    """Make clients of the service, closed at the end."""
    clients: list[ConfigClient] = []

    def make(credentials: Credentials | None = None, **overrides: object) -> ConfigClient:
        clients.append(ConfigClient(backend.options(credentials, **overrides)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def watch(backend: Backend, connect: Callable[..., ConfigClient]) -> Iterator[Callable[..., Watching]]:
    """Start keeping a snapshot current; returns at once."""
    threads: list[threading.Thread] = []
    clients: list[ConfigClient] = []

    def start(name: str, target: type = dict, opts: GetOptions | None = None, **options: Any) -> Watching:
        watching = Watching()

        def note(change: Change[Any]) -> None:
            watching.versions.append(change.version)

        def run() -> None:
            try:
                client.watch_and_decode(name, target, watching.snapshot, opts)
            except Exception as error:
                watching.raised.append(error)

        watching.snapshot.on_change(note)
        client = connect(on_error=watching.report, **options)
        clients.append(client)
        watching.thread = threading.Thread(target=run, daemon=True)
        watching.thread.start()
        threads.append(watching.thread)
        return watching

    yield start
    for client in clients:
        client.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def _reset(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _shut(sock)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
