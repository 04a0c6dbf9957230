"""The sockets of the in-memory service: one daemon thread that accepts, reads and writes for every connection.

Knows bytes, requests and time. Knows nothing of configs: what a request means is its owner's affair.

One lock guards everything. Whoever holds it may write to any connection at once, so that what is published has left
when the call returns; only this thread accepts, reads and closes, since a socket must not vanish under ``select``.
"""

from __future__ import annotations

import logging
import selectors
import socket
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ._faults import Refusal
from ._http import Request, RequestReader, error_answer
from ._streams import HEARTBEAT, Frame, Stream

MAX_CONNECTIONS: Final = 2000
"""Connections at a time; one more is closed at once."""
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Bytes that may wait for a reader of a stream; beyond them it is cut, never trimmed."""

_RECEIVE_BYTES: Final = 64 * 1024
_JOIN_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class Connection:
    """One connection: bytes to be read as requests, or, once it is a stream, frames to be written."""

    __slots__ = ("_events", "_loop", "_waiting", "_waiting_bytes", "ended", "gone", "reader", "sock", "stream")

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        self.sock = sock
        self.reader = RequestReader()
        self.stream: Stream | None = None
        self.ended = False
        """Whether nothing more is read as a request, and writing ends with what waits."""
        self.gone = False
        """Whether the socket is to be closed."""
        self._loop = loop
        self._waiting: deque[tuple[memoryview, Frame]] = deque()
        self._waiting_bytes = 0
        self._events = selectors.EVENT_READ

    @property
    def events(self) -> int:
        """What to wait for on this connection."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._waiting else 0)

    def send(self, *frames: Frame, bounded: bool = False) -> None:
        """Write ``frames``, now as far as the reader takes them; ``bounded``: cut one who is too far behind."""
        if self.gone or self.ended:
            return
        for frame in frames:
            self._waiting.append((memoryview(frame.data), frame))
            self._waiting_bytes += len(frame.data)
        self.flush()
        if bounded and self._waiting_bytes > MAX_WAITING_BYTES:
            self.cut()

    def end(self) -> None:
        """End in good order once everything waiting is written."""
        if not self.ended:
            self.ended = True
            self.stream = None
            self.flush()

    def cut(self) -> None:
        """Reset the connection: what waits is lost."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.vanish()

    def vanish(self) -> None:
        """Close the connection as soon as its thread comes to it."""
        self.gone = True
        self.stream = None
        self._waiting.clear()
        self._loop.attend(self)

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it."""
        try:
            while self._waiting:
                rest, frame = self._waiting[0]
                sent = self.sock.send(rest)
                self._waiting_bytes -= sent
                if sent < len(rest):
                    self._waiting[0] = (rest[sent:], frame)
                    break
                self._waiting.popleft()
                if frame.version is not None:
                    self._loop.sent(frame)
            if self.ended and not self._waiting:
                self.sock.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.vanish()
        if self.events != self._events:
            self._events = self.events
            self._loop.attend(self)


class Loop:
    """The thread of one listening socket, from ``start`` to ``stop``.

    ``answer(connection, request)`` is called, under the lock, for every request; ``sent(frame)`` for every frame with a
    version that has been handed to the network. ``beats``: seconds between heartbeats by the type of stream.
    """

    def __init__(
        self,
        listener: socket.socket,
        lock: threading.Condition,
        *,
        answer: Callable[[Connection, Request], None],
        sent: Callable[[Frame], None],
        beats: dict[type[Stream], float],
    ) -> None:
        self._listener = listener
        self._lock = lock
        self._answer = answer
        self.sent: Final = sent
        self._beats = beats
        self._due = {kind: time.monotonic() + seconds for kind, seconds in beats.items()}
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._connections: dict[socket.socket, Connection] = {}
        self._attend: set[Connection] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="config-client-testing")
        for sock in (listener, self._waker, self._woken):
            sock.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    @property
    def streams(self) -> list[tuple[Connection, Stream]]:
        """Every open stream."""
        return [(one, one.stream) for one in self._connections.values() if one.stream is not None]

    def attend(self, connection: Connection) -> None:
        """Let the thread look at ``connection``: it is to be closed, or waits for something else."""
        self._attend.add(connection)
        self._wake()

    def cut(self) -> None:
        """Reset every connection, and return when they are closed. Called under the lock."""
        for connection in self._connections.values():
            connection.cut()
        self._lock.wait_for(lambda: not self._attend or self._stopping, _JOIN_SECONDS)

    def stop(self) -> None:
        """Close every socket and return when the thread has ended. Called without the lock."""
        with self._lock:
            self._stopping = True
            self._wake()
        self._thread.join(_JOIN_SECONDS)

    def abandon(self) -> None:
        """Close what a child process has inherited, without a word to the other ends, which are the parent's."""
        for sock in (self._listener, self._waker, self._woken, *self._connections):
            sock.close()
        self._selector.close()

    def _wake(self) -> None:
        # A full pipe wakes as well.
        with suppress(OSError):
            self._waker.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._stopping:
                ready = self._selector.select(max(0.0, min(self._due.values()) - time.monotonic()))
                with self._lock:
                    for key, events in ready:
                        self._serve(key.fileobj, events)
                    self._beat()
                    self._tidy()
                    self._lock.notify_all()
        finally:
            with self._lock:
                self._close()
                self._lock.notify_all()

    def _serve(self, fileobj: object, events: int) -> None:
        if fileobj is self._listener:
            self._accept()
        elif fileobj is self._woken:
            with suppress(OSError):
                self._woken.recv(_RECEIVE_BYTES)
        elif isinstance(fileobj, socket.socket):
            connection = self._connections[fileobj]
            if events & selectors.EVENT_WRITE and not connection.gone:
                connection.flush()
            if events & selectors.EVENT_READ and not connection.gone:
                self._read(connection)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[sock] = Connection(sock, self)
            self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            connection.vanish()
        elif connection.stream is None and not connection.ended:
            connection.reader.feed(data)
            self._converse(connection)
        # A stream has no further requests: what else its client says is dropped.

    def _converse(self, connection: Connection) -> None:
        """Answer every whole request that has come in."""
        try:
            while connection.stream is None and not connection.ended and not connection.gone:
                request = connection.reader.next()
                if request is None:
                    if connection.reader.wants_more():
                        connection.send(Frame(b"HTTP/1.1 100 Continue\r\n\r\n"))
                    return
                self._answer(connection, request)
        except Refusal as refusal:
            connection.send(Frame(error_answer(refusal).dump(keep_alive=False)))
            connection.end()
        except Exception as error:
            # A defect of this package. By type and place only: its text may hold a document.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error("in-memory service: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            failed = Refusal(500, "the in-memory service failed: a defect of this package; its log says where")
            connection.send(Frame(error_answer(failed).dump(keep_alive=False)))
            connection.end()

    def _beat(self) -> None:
        now = time.monotonic()
        for kind, due in self._due.items():
            if due <= now:
                self._due[kind] = now + self._beats[kind]
                for connection, stream in self.streams:
                    if isinstance(stream, kind):
                        connection.send(Frame(HEARTBEAT), bounded=True)

    def _tidy(self) -> None:
        """Close what is gone, and wait for what is wanted."""
        for connection in tuple(self._attend):
            if connection.sock not in self._connections:
                continue
            if connection.gone:
                self._selector.unregister(connection.sock)
                del self._connections[connection.sock]
                connection.sock.close()
            else:
                self._selector.modify(connection.sock, connection.events)
        self._attend.clear()

    def _close(self) -> None:
        self._selector.close()
        for sock, connection in self._connections.items():
            connection.gone, connection.stream = True, None
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for sock in (*self._connections, self._listener, self._waker, self._woken):
            sock.close()
        self._connections.clear()
        self._attend.clear()
