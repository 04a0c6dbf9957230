"""The network of an asynchronous client: httpx's own, which cancellation ends, made harmless after a fork.

Knows sockets and httpcore's stream interface; knows nothing of HTTP.

A forked child shares more with its parent than the connections: the event loop's selector too. Whatever closes a
connection the usual way there would also take it off the parent's loop. So the child's descriptors are replaced, which
neither the parent nor any object of the child's notices.
"""

from __future__ import annotations

import os
import ssl
import weakref
from collections.abc import Iterable
from typing import Final, Protocol

import anyio
import httpcore
import httpx

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class _Socket(Protocol):
    def fileno(self) -> int: ...


class AbandonableTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, without a limit of connections, that a forked child can let go."""

    def __init__(self, verify: ssl.SSLContext, proxy: str | None) -> None:
        # Streams hold a connection each, and a pool of 100 would block the 101st.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
        super().__init__(verify=verify, limits=limits, proxy=proxy)
        self._backend = _Backend(self._pool._network_backend)
        self._pool._network_backend = self._backend

    def abandon(self) -> None:
        """Let go of every connection, in a forked child: the parent keeps them."""
        self._backend.abandon()


class _Backend(httpcore.AsyncNetworkBackend):
    """Remembers the streams that another backend opens."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend
        self._streams: Final[weakref.WeakSet[_Stream]] = weakref.WeakSet()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        opened = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(opened, self._streams)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)

    def abandon(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in list(self._streams):
            if (descriptor := stream.descriptor()) is not None:
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)


class _Stream(httpcore.AsyncNetworkStream):
    """A stream that is remembered as long as it is in use."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, streams: weakref.WeakSet[_Stream]) -> None:
        self._stream = stream
        self._streams = streams
        self._identity = _identity(_fileno(stream))
        streams.add(self)

    def descriptor(self) -> int | None:
        """Return the descriptor of the socket, if it is still open."""
        number = _fileno(self._stream)
        # Some event loops go on telling the number of a socket that is closed, and by now it may be another file's.
        return number if self._identity is not None and _identity(number) == self._identity else None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        self._streams.discard(self)
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface
    ) -> httpcore.AsyncNetworkStream:
        try:
            secured = _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._streams)
        except BaseException:
            # httpcore closes the connection when a handshake fails, and not when it is cancelled.
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise
        self._streams.discard(self)
        return secured

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _fileno(stream: httpcore.AsyncNetworkStream) -> int:
    sock: _Socket | None = stream.get_extra_info("socket")
    return -1 if sock is None else sock.fileno()


def _identity(number: int) -> tuple[int, int] | None:
    """Return what tells the open file of this number from any other; None when there is none, or no fork either."""
    if number < 0 or not hasattr(os, "fork"):
        return None
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
