"""The in-memory service at work: its port and its life, the way of a request, and what is written to its streams.

Composes memory, routes and sockets. Knows nothing of what a test may ask for: that is the affair of ``service.py``. One
lock guards everything; what is called under it says so.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakSet

from ._failures import Failure
from ._faults import MisuseError, Refusal
from ._http import Request, dump_stream_head, error_answer
from ._journal import Journal
from ._loop import Connection, Loop
from ._memory import Memory, Version
from ._routes import Opened, Routes
from ._streams import HEARTBEAT, BaseStream, Frame, StateStream, Stream, change_frame, state_frame

_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024


class Server:
    """One in-memory service, from ``start`` to ``close``, with stops in between."""

    def __init__(self, heartbeat_interval: float, watch_heartbeat_interval: float) -> None:
        self.lock = threading.Condition(threading.RLock())
        """Held by whoever looks at anything here or changes it; it is notified of everything that happens."""
        self.memory: Final = Memory()
        self.routes: Final = Routes(self.memory, heartbeat_interval, watch_heartbeat_interval)
        self.journal: Final = Journal()
        self.failure: Failure | None = None
        """How requests are refused now."""
        self._switch = threading.RLock()
        self._loop: Loop | None = None
        self._reserved: socket.socket | None = None
        self._port = 0
        self._abandoned = False
        _servers.add(self)

    # Its life

    @property
    def started(self) -> bool:
        """Whether it was ever started, so that it has a port."""
        return self._port != 0

    @property
    def url(self) -> str:
        """Where it listens, or will again after ``stop``. Raises MisuseError before the first start."""
        if not self.started:
            raise MisuseError("the service was not started: use it as a context manager, or call start()")
        return f"http://{_HOST}:{self._port}"

    def start(self) -> None:
        """Accept connections: at the first call on a free port, after ``stop`` on the same one. Idempotent."""
        with self._switch, self.changing():
            if self._loop is not None:
                return
            listener = self._reserved or _bind(0)
            self._reserved = None
            listener.listen(_BACKLOG)
            self._port = listener.getsockname()[1]
            beats: dict[type[Stream], float] = {
                BaseStream: self.routes.heartbeat_interval,
                StateStream: self.routes.watch_heartbeat_interval,
            }
            self._loop = Loop(listener, self.lock, answer=self._answer, sent=self._note, beats=beats)

    def stop(self) -> None:
        """End every connection and refuse new ones, with the port still reserved. Idempotent."""
        with self._switch:
            with self.lock:
                loop, self._loop = self._loop, None
            if loop is not None:
                loop.stop()
                # Bound and not listening: connections are refused, and nobody else is given the port meanwhile.
                self._reserved = _bind(self._port)

    def close(self) -> None:
        """Stop for good and release the port. Idempotent."""
        with self._switch:
            self.stop()
            if self._reserved is not None:
                self._reserved.close()
                self._reserved = None

    @contextmanager
    def changing(self) -> Iterator[Memory]:
        """Hold the lock for a change of the memory, which is given. Raises MisuseError in a child made by fork."""
        with self.lock:
            if self._abandoned:
                raise MisuseError(
                    "this process is a child of the one that runs the service: it may connect, but only the parent can "
                    "change what is served"
                )
            yield self.memory

    def abandon(self) -> None:
        """Let go, in a child made by fork: another thread of the parent may have held the lock."""
        self.lock = threading.Condition(threading.RLock())
        self._switch = threading.RLock()
        loop, self._loop, self._abandoned = self._loop, None, True
        reserved, self._reserved = self._reserved, None
        if loop is not None:
            loop.abandon()
        if reserved is not None:
            reserved.close()

    # Its streams; called under the lock

    @property
    def streams(self) -> list[tuple[Connection, Stream]]:
        """Every open stream."""
        return self._loop.streams if self._loop else []

    def tell(self, version: Version, changed: bool = True) -> int:
        """Write ``version`` to every stream that is to hear of it, unless nothing changed; return its number."""
        # One frame for all streams that are sealed under the same key, and one for all base streams.
        frames: dict[bytes | None, Frame] = {}
        for connection, stream in self.streams if changed else ():
            if not stream.covers(version.key):
                continue
            key = stream.key(self.memory) if isinstance(stream, StateStream) else None
            frame = frames.get(key)
            if frame is None:
                frame = change_frame(version) if key is None else state_frame(version, key, self.routes.sealed)
                frames[key] = frame
            connection.send(frame, bounded=True)
        self.lock.notify_all()
        return version.number

    def end(self, which: Callable[[Stream], bool]) -> None:
        """End the streams of which ``which`` says so, in good order."""
        for connection, stream in self.streams:
            if which(stream):
                connection.end()
        self.lock.notify_all()

    def cut(self) -> None:
        """Reset every connection, streams and others, and return when they are gone."""
        if self._loop is not None:
            self._loop.cut()

    # Its requests; under the lock, mostly on the loop's thread

    def _answer(self, connection: Connection, request: Request) -> None:
        """Answer ``request`` on ``connection``, or make a stream of it."""
        head = request.method == "HEAD"
        try:
            if self.failure is not None:
                self.failure.meet(request)
            outcome = self.routes.answer(request)
        except Refusal as refusal:
            self._record(request, refusal.status)
            frame = Frame(error_answer(refusal).dump(head=head, keep_alive=request.keep_alive))
        else:
            if isinstance(outcome, Opened):
                self._record(request, 200)
                # Some clients and proxies report a stream as open with its first byte of body.
                connection.send(Frame(dump_stream_head(outcome.headers) + HEARTBEAT), *outcome.frames)
                connection.stream = None if connection.gone else outcome.stream
                self.lock.notify_all()
                return
            self._record(request, outcome.answer.status)
            data = outcome.answer.dump(head=head, keep_alive=request.keep_alive)
            frame = Frame(data, None if head else outcome.version)
        connection.send(frame)
        if not request.keep_alive:
            connection.end()

    def _record(self, request: Request, status: int) -> None:
        self.journal.record(request, status)
        self.lock.notify_all()

    def _note(self, frame: Frame) -> None:
        version = frame.version
        if version is not None and version.position.epoch == self.memory.epoch:
            self.journal.note(version)
            self.lock.notify_all()


_servers: Final[WeakSet[Server]] = WeakSet()


def _abandon_all() -> None:
    for server in tuple(_servers):
        server.abandon()


# Otherwise the port would stay open in the child when the service stops.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _bind(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((_HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock
