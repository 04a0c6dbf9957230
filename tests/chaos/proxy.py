"""A TCP proxy on loopback that does to its connections what networks do.

Knows sockets and just enough HTTP to tell the request for a stream from others. Knows nothing of configs.

One event loop on a thread of its own carries any number of proxies. Their methods are called from other threads and
have taken effect when they return.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

R = TypeVar("R")

PATIENCE: Final = 60.0
"""Seconds after which a proxy that does not do what it was told is broken."""
_PIECE: Final = 1 << 16
_RECORDED: Final = 1 << 15
_REQUEST: Final = re.compile(rb"(GET|POST|HEAD) (\S+) HTTP/1\.1\r\n")
_NEW_STREAM: Final = re.compile(rb"POST \S*/api/v1/service/watch HTTP/1\.1\r\n")
_STREAM: Final = re.compile(rb"(?:POST|GET) \S*/watch(?:\?\S*)? HTTP/1\.1\r\n")
_ABSENT: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"
)
_BAD_GATEWAY: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Kind(Enum):
    """What can go wrong. What each does to open connections, and to those that are opened before it is healed."""

    NONE = "none"
    RESET = "reset"
    """The open ones are reset."""
    REFUSE = "refuse"
    """The open ones are reset, and nothing listens."""
    STALL = "stall"
    """Nothing passes; what was held back arrives late, when it is healed."""
    HALF_OPEN = "half-open"
    """What arrives is swallowed, for ever and without a word, even after it is healed."""
    DRIP = "drip"
    """A few bytes at a time."""
    TRUNCATE = "truncate"
    """After some more bytes of the answer the connection ends, wherever that is."""
    REPLAY = "replay"
    """The open ones are reset; a stream that is asked for is answered with the beginning of an earlier one."""
    TWICE = "twice"
    """The open ones are reset; every request is made twice, and one of the two answers is passed on."""
    LATENCY = "latency"
    """Everything arrives later."""
    UNAVAILABLE = "unavailable"
    """The open ones are reset; every request is answered with 503."""
    BLOCKED = "blocked"
    """The open ones are reset; a stream that is asked for is answered with 502, anything else passes."""


@dataclass(frozen=True)
class Fault:
    """``amount``: bytes for DRIP and TRUNCATE, seconds for LATENCY, which of the earlier ones for REPLAY."""

    kind: Kind = Kind.NONE
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind.value} {self.amount:g}" if self.amount else self.kind.value


WELL: Final = Fault()
_CONTINUOUS: Final = frozenset({Kind.STALL, Kind.HALF_OPEN, Kind.DRIP, Kind.TRUNCATE, Kind.LATENCY})
"""What is done to connections as long as they live; the others are resets, and another answer to those that follow."""


class LoopThread:
    """An event loop that runs on a thread of its own until it is closed."""

    def __init__(self, name: str) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self.thread: Final = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def __enter__(self) -> LoopThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, work: Coroutine[Any, Any, R], timeout: float = PATIENCE) -> R:
        """Run ``work`` on the loop and return its result. Raises TimeoutError."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What was aborted is closed in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


class Proxy:
    """Stands in front of the service at ``target`` (a URL).

    ``base_only``: the service seems to know nothing of the state-first stream.
    """

    def __init__(self, carrier: LoopThread, target: str, *, base_only: bool = False) -> None:
        self.base_only = base_only
        self.fault = WELL
        self.bites: Final[Counter[Kind]] = Counter()
        """How often each fault has really met a connection."""
        self.healed = asyncio.Event()
        self.recordings: Final[defaultdict[bytes, deque[bytes]]] = defaultdict(lambda: deque(maxlen=6))
        """How the latest streams began, by the line that had asked for them."""
        self._carrier = carrier
        self._changed = threading.Condition()
        self._connections: dict[Connection, None] = {}
        self._accepted = 0
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        # Bound and never listening: it keeps the port while nothing listens there.
        self._holder = _bound(0)
        self._port = self._holder.getsockname()[1]
        self.url: Final = f"http://127.0.0.1:{self._port}"
        self._listener: socket.socket | None = None
        self._carrier.run(self._apply(WELL))

    @property
    def accepted(self) -> int:
        """How many connections there ever were."""
        return self._accepted

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def streams(self) -> tuple[int, ...]:
        """The numbers of the connections that carry a stream, in the order in which they came."""
        with self._changed:
            return tuple(connection.number for connection in self._connections if connection.is_stream)

    def wait_until_open(self, count: int, timeout: float) -> bool:
        """Wait until exactly ``count`` connections are open."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._connections) == count, timeout)

    def wait_for_streams(self, count: int, timeout: float = PATIENCE) -> bool:
        """Wait until exactly ``count`` connections carry a stream whose answer has begun."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(connection.is_stream for connection in self._connections) == count, timeout
            )

    def apply(self, fault: Fault) -> None:
        """Do ``fault`` to what is open and what will be, until ``heal``."""
        self._carrier.run(self._apply(fault))

    def heal(self) -> None:
        """Let everything pass again, except on half-open connections."""
        self._carrier.run(self._apply(WELL))

    def close(self) -> None:
        """End every connection, and stop listening for good."""
        self._carrier.run(self._close())

    async def _apply(self, fault: Fault) -> None:
        self.fault = fault
        if fault.kind is Kind.NONE:
            self.healed.set()
            self.healed = asyncio.Event()
        if fault.kind is Kind.REFUSE:
            self._deafen()
        elif self._listener is None:
            self._listen()
        for connection in tuple(self._connections):
            connection.suffer(fault)

    def _listen(self) -> None:
        self._listener = _bound(self._port)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._carrier.loop.add_reader(self._listener, self._accept, self._listener)

    def _deafen(self) -> None:
        if self._listener is not None:
            self._carrier.loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _close(self) -> None:
        self._deafen()
        self._holder.close()
        served = [connection.task for connection in self._connections if connection.task is not None]
        for connection in tuple(self._connections):
            connection.reset()
        await asyncio.gather(*served, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        # Not asyncio's server: closed at the wrong moment, it loses what it has just accepted.
        try:
            accepted, _ = listener.accept()
        except OSError:
            return
        accepted.setblocking(False)
        connection = Connection(self, self._accepted, accepted)
        self._accepted += 1
        with self._changed:
            self._connections[connection] = None
            self._changed.notify_all()
        if self.fault.kind in _CONTINUOUS:
            connection.suffer(self.fault)
        connection.task = self._carrier.loop.create_task(self._serve(connection))

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run(self._target)
        finally:
            with self._changed:
                del self._connections[connection]
                self._changed.notify_all()

    def note(self) -> None:
        """Wake who waits for a change of the connections."""
        with self._changed:
            self._changed.notify_all()


@dataclass(eq=False)
class Connection:
    """One connection of a client, and that to the service which goes with it."""

    proxy: Proxy
    number: int
    sock: socket.socket
    task: asyncio.Task[None] | None = None
    is_stream: bool = False
    fault: Fault = WELL
    _left: float = 0.0
    _is_over: bool = False
    _line: bytes = b""
    """The line that asks for a stream, once there was one."""
    _recorded: bytearray = field(default_factory=bytearray)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _upstreams: list[asyncio.StreamWriter] = field(default_factory=list)
    _pumps: list[asyncio.Future[None]] = field(default_factory=list)

    def suffer(self, fault: Fault) -> None:
        """Let ``fault`` begin, or end."""
        if self.fault.kind is Kind.HALF_OPEN:
            return
        self.fault, self._left = fault, fault.amount
        if fault.kind not in {Kind.NONE, *_CONTINUOUS}:
            self.proxy.bites[fault.kind] += fault.kind in {Kind.RESET, Kind.REFUSE}
            self.fault = WELL
            self.reset()

    def reset(self) -> None:
        """End the connection with a reset instead of an end in good order."""
        self._is_over = True
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._writer is not None:
            self._writer.transport.abort()

    async def run(self, target: tuple[str, int]) -> None:
        """Pass bytes in both directions until one of them ends."""
        self._reader, self._writer = await asyncio.open_connection(sock=self.sock)
        writers = [self._writer]
        try:
            reader, writer = await asyncio.open_connection(*target)
            writers.append(writer)
            self._upstreams = [writer]
            if self._is_over:
                return
            self._pumps = [asyncio.ensure_future(self._ask(target)), asyncio.ensure_future(self._answer(reader))]
            try:
                await asyncio.wait(self._pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in self._pumps:
                    pump.cancel()
                await asyncio.gather(*self._pumps, return_exceptions=True)
                if self.is_stream and len(self._recorded) > 256:
                    self.proxy.recordings[self._line].append(bytes(self._recorded))
                writers += self._upstreams[1:]
        except OSError:
            self.reset()
        finally:
            for ended in writers:
                await _end(ended)

    async def _ask(self, target: tuple[str, int]) -> None:
        assert self._reader is not None
        assert self._writer is not None
        with suppress(OSError):
            while data := await self._reader.read(_PIECE):
                if _REQUEST.match(data):
                    asked = _STREAM.match(data)
                    self._line = asked[0] if asked else b""
                    canned = self._canned(data)
                    if canned is not None:
                        self._writer.write(canned)
                        await self._writer.drain()
                        return
                if self.proxy.fault.kind is Kind.TWICE and len(self._upstreams) == 1:
                    self.proxy.bites[Kind.TWICE] += 1
                    twin, writer = await asyncio.open_connection(*target)
                    self._upstreams.append(writer)
                    # Read, so that the service does not take it for a slow reader; the answer goes nowhere.
                    self._pumps.append(asyncio.ensure_future(_drain(twin)))
                for twin_writer in self._upstreams[1:]:
                    twin_writer.write(data)
                await self._pass_on(data, self._upstreams[0])

    async def _answer(self, upstream: asyncio.StreamReader) -> None:
        assert self._writer is not None
        with suppress(OSError):
            while data := await upstream.read(_PIECE):
                if self._line and not self.is_stream and data.startswith(b"HTTP/1.1 200"):
                    self.is_stream = True
                    self.proxy.note()
                if self.is_stream and len(self._recorded) < _RECORDED:
                    self._recorded += data
                if not await self._pass_on(data, self._writer):
                    return
        if self.fault.kind is Kind.HALF_OPEN:
            # The end is swallowed too.
            await asyncio.Event().wait()

    def _canned(self, request: bytes) -> bytes | None:
        """Return the proxy's own answer to a request, if that is what goes wrong."""
        kind = self.proxy.fault.kind
        if kind is Kind.UNAVAILABLE:
            canned = _UNAVAILABLE
        elif kind is Kind.BLOCKED and _STREAM.match(request):
            canned = _BAD_GATEWAY
        elif kind is Kind.REPLAY and self.proxy.recordings.get(self._line):
            recorded = self.proxy.recordings[self._line]
            canned = recorded[int(self.proxy.fault.amount) % len(recorded)]
        elif self.proxy.base_only and _NEW_STREAM.match(request):
            return _ABSENT
        else:
            return None
        self.proxy.bites[kind] += 1
        return canned

    async def _pass_on(self, data: bytes, sink: asyncio.StreamWriter) -> bool:
        """Write ``data`` as the fault lets it through; tell whether the connection goes on."""
        downstream = sink is self._writer
        while data:
            fault, piece = self.fault, data
            if fault.kind is not Kind.NONE and (downstream or fault.kind is not Kind.TRUNCATE):
                self.proxy.bites[fault.kind] += 1
            if fault.kind is Kind.STALL:
                await self.proxy.healed.wait()
                continue
            if fault.kind is Kind.HALF_OPEN:
                return True
            if fault.kind is Kind.LATENCY:
                await asyncio.sleep(fault.amount)
            elif fault.kind is Kind.DRIP:
                piece = data[: max(1, int(fault.amount))]
                await asyncio.sleep(0.001)
            elif fault.kind is Kind.TRUNCATE and downstream:
                piece = data[: int(self._left)]
                self._left -= len(piece)
            sink.write(piece)
            await sink.drain()
            data = data[len(piece) :]
            if fault.kind is Kind.TRUNCATE and downstream and self._left < 1:
                return False
        return True


async def _drain(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(_PIECE):
            pass


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), 1.0)
    # What a peer that does not read would keep.
    writer.transport.abort()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
