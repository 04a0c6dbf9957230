"""A proxy before a PostgreSQL server that cuts connections at their COMMIT. Knows sockets and one message.

PostgreSQL's protocol ("Message Formats"): a simple query is ``Q``, a length, the text and a zero byte.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Cut(Enum):
    """What happens to the next COMMIT."""

    NEVER = auto()
    BEFORE = auto()
    """It does not reach the server."""
    AFTER = auto()
    """It reaches the server, whose answer does not come back."""


class CuttingProxy:
    """Passes bytes on, until told otherwise."""

    def __init__(self, target: str) -> None:
        self.cut = Cut.NEVER
        self.refuse = False
        """Whether connections are refused once one was cut."""
        self.cuts = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._closed = False

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse and self.cuts:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open |= {client, server}
            threading.Thread(target=self._from_client, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client), daemon=True).start()

    def close(self) -> None:
        self._closed = True
        for one in (self._listener, *self._open):
            _end(one)

    def _from_client(self, client: socket.socket, server: socket.socket) -> None:
        while data := _receive(client):
            if self.cut is not Cut.NEVER and data.endswith(_COMMIT):
                how, self.cut = self.cut, Cut.NEVER
                self.cuts += 1
                _end(client)
                if how is Cut.AFTER:
                    # Its other end hears nothing more, and the server carries it out all the same.
                    server.sendall(data)
                break
            try:
                server.sendall(data)
            except OSError:
                break
        if not self.cuts:
            _end(client)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        while data := _receive(source):
            try:
                target.sendall(data)
            except OSError:
                break
        _end(target)
        _end(source)


def _receive(one: socket.socket) -> bytes:
    try:
        return one.recv(65536)
    except OSError:
        return b""


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def cutting_proxy(target: str) -> Iterator[CuttingProxy]:
    """Serve before the Unix socket ``target`` for a block."""
    proxy = CuttingProxy(target)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)
