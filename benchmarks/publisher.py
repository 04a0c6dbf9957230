"""A publisher that takes no time of its own: requests made beforehand, over one raw connection.

Knows the little of HTTP/1.1 that a keep-alive connection with Content-Length needs. The same for every server, so that
no side pays for a client library.
"""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType
from typing import Final

TIMEOUT: Final = 30.0
"""Seconds for an answer."""


class PublisherError(RuntimeError):
    """The server did not take what was published."""


class Publisher:
    """One connection to ``host`` and ``port``. Not for several threads."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._connection = self._connect()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, request: bytes) -> int:
        """Send ``request`` and return the moment before, in nanoseconds of the monotonic clock."""
        if select.select([self._connection], [], [], 0)[0]:
            # Servers close a connection that was idle for some seconds.
            self._connection.close()
            self._connection = self._connect()
        moment = time.monotonic_ns()
        self._connection.sendall(request)
        return moment

    def answer(self) -> bytes:
        """Return the body of the answer. Raises PublisherError unless it is a 2xx."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            body += self._more()
        if not head[9:10] == b"2":
            raise PublisherError(f"refused: {head[:40]!r}")
        return body

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _more(self) -> bytes:
        data = self._connection.recv(65536)
        if not data:
            raise PublisherError("the server closed the publisher's connection")
        return data


def request_bytes(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Return an HTTP/1.1 request, ready to be sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method in {"POST", "PUT"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body
