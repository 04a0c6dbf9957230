"""close() from every state that a client can be in: prompt, and nothing is left behind.

The peers are scripted: each brings a client into one state, and keeps it there until it closes.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import math
import os
import socket
import ssl
import threading
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from stopwatch import stopwatch

from config_client import AsyncConfigClient, ConfigClient, Options, Snapshot, State, Subscription
from config_client._session import Session
from config_client.transport import Transport
from config_service.process import Credentials, Operator, ServiceProcess

from ..chaos.proxy import LoopThread

CLOSES: Final = 100
AT_A_TIME: Final = 10
LIMIT: Final = 0.1
"""Seconds, as law 6 has it: 99 of 100 closes take no longer."""
TAKES: Final = 3
"""A machine that is busy with something else may spoil a measurement; what is slow by itself spoils all of them."""
PATIENCE: Final = 60.0
"""Seconds after which a test stops waiting for what must happen."""
GROWTH: Final = 500_000
"""Bytes that fifty clients may leave: what their service writes into its log, which is read in this process, is a part
of it. A client that is not let go takes far more than a fiftieth."""
SILENCE: Final = 300.0
"""Seconds of every timeout of these clients: none may help to end a wait."""

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Config-Heartbeat: 300\r\n\r\n: hello\n\nevent: synced\n"
    b"data: {}\n\n"
)
_HALF: Final = b'event: config_changed\ndata: {"config_name": "orders", "ver'


class Peer(ABC):
    """What clients connect to."""

    url = ""

    @abstractmethod
    def wait_for(self, clients: list[Anyone]) -> None:
        """Wait until all of ``clients``, and nobody else, are in the state that this peer brings about."""

    @abstractmethod
    def wait_until_left(self) -> None:
        """Wait until no client is connected."""

    @abstractmethod
    def close(self) -> None:
        """Let go of every socket."""


class Scripted(Peer):
    """Accepts, sends what it was told to send once it was asked, and nothing more."""

    def __init__(self, carrier: LoopThread, script: bytes, *, tls: ssl.SSLContext | None, scheme: str) -> None:
        self._carrier = carrier
        self._script = script
        self._changed = threading.Condition()
        self._asked = 0
        self._tasks: set[asyncio.Task[object]] = set()
        self._server = carrier.run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls))
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def wait_for(self, clients: list[Anyone]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked == len(clients), PATIENCE)
        if self._script:
            for client in clients:
                client.wait_until_live()

    def wait_until_left(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._asked == 0, PATIENCE), f"{self._asked} connections are open"

    def close(self) -> None:
        self._carrier.run(self._end())

    async def _end(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await reader.read(65536)
            self._count(1)
            writer.write(self._script)
            try:
                while await reader.read(65536):
                    pass
            finally:
                self._count(-1)
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def _count(self, change: int) -> None:
        with self._changed:
            self._asked += change
            self._changed.notify_all()


class Absent(Peer):
    """Nothing listens: after the first failure a client backs off."""

    def __init__(self) -> None:
        self._holder = socket.socket()
        self._holder.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._holder.getsockname()[1]}"

    def wait_for(self, clients: list[Anyone]) -> None:
        for client in clients:
            client.wait_until(client.erred.is_set)

    def wait_until_left(self) -> None:
        """Nobody ever was."""

    def close(self) -> None:
        self._holder.close()


class Full(Peer):
    """Listens and never accepts, its backlog full: whoever connects waits for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = self._listener.getsockname()
        self._port = address[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        self._waiting = 0
        deadline = time.monotonic() + PATIENCE
        # One or two come through; as soon as others wait nobody does any more.
        while not (waiting := self._count()):
            assert time.monotonic() < deadline
        self._others = waiting

    def wait_for(self, clients: list[Anyone]) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._count() < self._others + len(clients):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def wait_until_left(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._count() > self._others:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self) -> None:
        for sock in (*self._fillers, self._listener):
            sock.close()

    def _count(self) -> int:
        """Return how many connections to here are waiting for an answer: SYN_SENT, in Linux's own table."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[2].endswith(f":{self._port:04X}") and row[3] == "02" for row in rows)


class Anyone(ABC):
    """A client with one subscription, of either kind."""

    def __init__(self, url: str, credentials: Credentials | None) -> None:
        self.erred = threading.Event()
        self.options = Options(
            url,
            "token" if credentials is None else credentials.token,
            "00" * 32 if credentials is None else credentials.key,
            request_timeout=SILENCE,
            retry_delay=SILENCE,
            max_retry_delay=SILENCE,
            cache=False,
            on_error=lambda error: self.erred.set(),
        )
        self.subscription: Subscription[dict[str, object]]

    @property
    @abstractmethod
    def state(self) -> State:
        """How the connection stands."""

    @abstractmethod
    def open(self, timeout: float = 0.0) -> None:
        """Subscribe; wait ``timeout`` seconds for the value."""

    @abstractmethod
    def close(self) -> float:
        """Close; return the seconds that it took."""

    def wait_until_live(self) -> None:
        """Wait until the stream has told of everything."""
        self.wait_until(lambda: self.state is State.LIVE)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look again and again, since no event tells of this."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.state
            time.sleep(0.001)


class OnThreads(Anyone):
    """``ConfigClient``."""

    def open(self, timeout: float = 0.0) -> None:
        self._client = ConfigClient(self.options)
        self.subscription = self._client.subscribe("orders", dict, timeout=timeout, required=bool(timeout))

    @property
    def state(self) -> State:
        return self._client.status.state

    def close(self) -> float:
        with stopwatch() as took:
            self._client.close()
        return took.seconds


class OnTasks(Anyone):
    """``AsyncConfigClient``."""

    carrier: LoopThread

    def open(self, timeout: float = 0.0) -> None:
        self.carrier.run(self._open(timeout))

    async def _open(self, timeout: float) -> None:
        self._client = AsyncConfigClient(self.options)
        self.subscription = await self._client.subscribe("orders", dict, timeout=timeout, required=bool(timeout))

    @property
    def state(self) -> State:
        return self._client.status.state

    def close(self) -> float:
        return self.carrier.run(self._close())

    async def _close(self) -> float:
        with stopwatch() as took:
            await self._client.close()
        return took.seconds


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for loopback that nobody but a test trusts, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + encoded)
    return path


STATES: Final = (
    "idle-read",
    "backoff",
    "connecting",
    "before-the-answer",
    "mid-event",
    "tls-handshake",
    "tls-idle-read",
)


@pytest.fixture(params=STATES)
def peer(request: pytest.FixtureRequest, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """Bring clients into a state and keep them there."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with LoopThread("peer") as carrier:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        made: Peer
        match request.param:
            case "idle-read":
                made = Scripted(carrier, _HEAD, tls=None, scheme="http")
            case "mid-event":
                made = Scripted(carrier, _HEAD + _HALF, tls=None, scheme="http")
            case "before-the-answer":
                made = Scripted(carrier, b"", tls=None, scheme="http")
            case "tls-handshake":
                made = Scripted(carrier, b"", tls=None, scheme="https")
            case "tls-idle-read":
                made = Scripted(carrier, _HEAD, tls=tls, scheme="https")
            case "backoff":
                made = Absent()
            case _:
                made = Full()
        yield made
        made.close()


@pytest.fixture(params=[OnThreads, OnTasks], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> Iterator[type[Anyone]]:
    """Return a kind of client."""
    with LoopThread("application") as carrier:
        OnTasks.carrier = carrier
        yield request.param


def nearest_rank(samples: list[float], fraction: float) -> float:
    """Return the smallest of ``samples`` that ``fraction`` of them do not exceed."""
    return sorted(samples)[math.ceil(fraction * len(samples)) - 1]


def threads() -> list[str]:
    """Return the names of this package's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("config-client")]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_close_is_prompt_in_every_state(peer: Peer, kind: type[Anyone]) -> None:
    """99 of 100 closes take at most 100 ms; afterwards there is neither a thread nor a connection."""
    taken: list[float] = []
    for _ in range(TAKES):
        taken.append(nearest_rank(_closes(peer, kind), 0.99))
        if taken[-1] <= LIMIT:
            return
    raise AssertionError(f"p99 of close() was {', '.join(f'{seconds:.3f}' for seconds in taken)} s")


def _closes(peer: Peer, kind: type[Anyone]) -> list[float]:
    seconds: list[float] = []
    while len(seconds) < CLOSES:
        clients = [kind(peer.url, None) for _ in range(AT_A_TIME)]
        try:
            for client in clients:
                client.open()
            peer.wait_for(clients)
        finally:
            seconds += [client.close() for client in clients]
        peer.wait_until_left()
        clients[0].wait_until(lambda: not threads())
        assert all(client.state is State.STOPPED for client in clients)
    return seconds


@pytest.mark.timeout(400)
def test_fifty_clients_leave_nothing_behind(
    kind: type[Anyone], service: ServiceProcess, operator: Operator, access: Credentials
) -> None:
    """Opened, filled and closed, fifty clients leave threads, sockets, objects and memory where they were before."""
    operator.publish("orders", {"n": 1})

    def open_and_close(count: int) -> None:
        with ExitStack() as stack:
            for _ in range(count):
                client = kind(service.url, access)
                client.open(timeout=PATIENCE)
                stack.callback(client.close)
                assert client.subscription.load() == {"n": 1}

    # What is made once and kept, such as what modules hold, is made here.
    open_and_close(10)
    before = _belongings()
    tracemalloc.start()
    try:
        open_and_close(10)
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
        open_and_close(50)
        after = _belongings()
        growth = tracemalloc.get_traced_memory()[0] - allocated
    finally:
        tracemalloc.stop()
    assert after == before
    assert growth < GROWTH, f"{growth} bytes more after fifty clients"


def _belongings() -> dict[str, Any]:
    """Return what a client may leave behind: threads, open files, and objects of this package."""
    gc.collect()
    kinds = (ConfigClient, AsyncConfigClient, Session, Transport, Subscription, Snapshot)
    found = [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]
    return {
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "objects": {name: found.count(name) for name in sorted(set(found))},
    }
