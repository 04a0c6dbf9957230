"""A closed loop of requests: each connection sends its next request when the answer to the one before is there.

Knows the little of HTTP/1.1 that answers with Content-Length, or without a body, need. The same for every server; one
thread and epoll, so that it takes less of a processor than any server that it measures.
"""

from __future__ import annotations

import re
import select
import socket
import time
from types import TracebackType
from typing import Final, NamedTuple

TIMEOUT: Final = 30.0
"""Seconds for an answer."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class LoadError(RuntimeError):
    """A server did not answer as it should have."""


class Taken(NamedTuple):
    """What one run took: seconds in all, and of every request, in the order of the answers."""

    seconds: float
    each: list[float]


class Load:
    """``connections`` connections to ``host`` and ``port``, kept open from run to run."""

    def __init__(self, host: str, port: int, connections: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(connections):
            connection = socket.create_connection((host, port), TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._poll.close()

    def run(self, request: bytes, count: int, status: int) -> Taken:
        """Send ``request`` ``count`` times over all connections; every answer has to have ``status``.

        Raises LoadError when one has another, or none comes.
        """
        return self.run_each([request] * count, status)

    def run_each(self, requests: list[bytes], status: int) -> Taken:
        """Send every one of ``requests`` once, as ``run`` does."""
        expected = b"HTTP/1.1 %d" % status
        waiting = iter(requests)
        sent: dict[int, float] = {}
        received: dict[int, bytes] = {}
        each: list[float] = []
        started = time.perf_counter()
        for number, connection in self._sockets.items():
            if (request := next(waiting, None)) is not None:
                sent[number] = time.perf_counter()
                connection.sendall(request)
        while sent:
            ready = self._poll.poll(TIMEOUT)
            if not ready:
                raise LoadError(f"no answer within {TIMEOUT:g} s")
            for number, _ in ready:
                connection = self._sockets[number]
                data = received.pop(number, b"") + connection.recv(262_144)
                if not _complete(data, expected):
                    received[number] = data
                    continue
                now = time.perf_counter()
                each.append(now - sent.pop(number))
                if (request := next(waiting, None)) is not None:
                    sent[number] = now
                    connection.sendall(request)
        return Taken(time.perf_counter() - started, each)


def _complete(data: bytes, expected: bytes) -> bool:
    if not data:
        raise LoadError("the server closed a connection")
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not data.startswith(expected):
        raise LoadError(f"expected {expected.decode()}, got {data[:40]!r}")
    length = _LENGTH.search(data, 0, end + 2)
    return len(data) >= end + 4 + (int(length[1]) if length else 0)
