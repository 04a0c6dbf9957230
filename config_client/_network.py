"""TCP and TLS under an ``httpx.HTTPTransport``, such that an ``Interrupt`` ends connecting, handshakes and reads.

Knows sockets and httpcore's stream interface; knows nothing of HTTP. The stock backend hides a socket until it is
connected and its handshake done; this one registers it first. TLS runs on memory BIOs above the plain socket, so that
the socket that blocks is always the one that is registered.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import httpcore
import httpx

from ._deadline import remaining
from ._forks import no_fork
from ._interrupt import Interrupt

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
R = TypeVar("R")

CONNECT_SLICE: Final = 0.05
"""Seconds between two looks at the interrupt while connecting; shutting down a socket that is not connected yet does
not wake its waiter on every platform."""
_PENDING: Final = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY})
_RECORD: Final = 1 << 16


class InterruptibleTransport(httpx.HTTPTransport):
    """httpx's own transport with a network backend that obeys an ``Interrupt``."""

    def __init__(self, interrupt: Interrupt, *, verify: ssl.SSLContext, proxy: str | None) -> None:
        # Streams hold a connection each, and a pool of 100 would block the 101st.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
        super().__init__(verify=verify, limits=limits, proxy=proxy)
        self._pool._network_backend = InterruptibleBackend(interrupt)

    def abandon(self) -> None:
        """Let the pool of a forked parent be used by whoever is still inside, without waiting for its lock."""
        self._pool._optional_thread_lock = type(self._pool._optional_thread_lock)()


class InterruptibleBackend(httpcore.NetworkBackend):
    """Opens TCP connections that an ``Interrupt`` can end at any moment. A name look-up under way is the exception."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Return a stream connected to the first address of ``host`` that accepts within ``timeout`` seconds.

        Each address gets an equal share of what is left, so that one that never answers does not hide the next.
        """
        timeout = remaining(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        options = (*(socket_options or ()), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1))
        failure: Exception = httpcore.ConnectError("the name has no addresses")
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from None
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            now = time.monotonic()
            until = None if deadline is None else now + (deadline - now) / (len(addresses) - tried)
            try:
                return _TCPStream(self._connect(family, kind, protocol, address, local_address, options, until))
            except OSError as error:
                failure = httpcore.ConnectError(str(error))
            except httpcore.ConnectTimeout as error:
                failure = error
        raise failure

    def _connect(
        self,
        family: int,
        kind: int,
        protocol: int,
        address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
        local_address: str | None,
        options: Iterable[SocketOption],
        deadline: float | None,
    ) -> socket.socket:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            for option in options:
                sock.setsockopt(*option)
            if local_address is not None:
                sock.bind((local_address, 0))
            self._interrupt.guard(sock)
            self._await_connected(sock, sock.connect_ex(address), deadline)
        except BaseException:
            sock.close()
            raise
        return sock

    def _await_connected(self, sock: socket.socket, error: int, deadline: float | None) -> None:
        while True:
            if self._interrupt.is_set():
                raise httpcore.ConnectError("the client was closed while connecting")
            if error not in _PENDING:
                break
            left = CONNECT_SLICE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise httpcore.ConnectTimeout("connecting took too long")
            if _is_ready(sock, min(left, CONNECT_SLICE), write=True):
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))


class _TCPStream(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = remaining(timeout)
        # A timeout of 0 would mean "do not wait" to the socket, and not "too late".
        if seconds is not None and seconds <= 0:
            raise httpcore.ReadTimeout("timed out")
        try:
            self._sock.settimeout(seconds)
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return  # what httpcore writes for a request without a body
        seconds = remaining(timeout)
        if seconds is not None and seconds <= 0:
            raise httpcore.WriteTimeout("timed out")
        try:
            self._sock.settimeout(seconds)
            self._sock.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from None

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TLSStream(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> object:
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        if info == "socket":
            return self._sock
        if info == "is_readable":
            # httpcore's sign that an idle connection was closed by its peer; so was one whose socket is gone.
            return self._sock.fileno() < 0 or _is_ready(self._sock, 0.0, write=False)
        return None


class _TLSStream(httpcore.NetworkStream):
    """TLS over any stream, another TLS stream (an HTTPS proxy) included."""

    def __init__(
        self,
        stream: httpcore.NetworkStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        timeout: float | None,
    ) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        timeout = remaining(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            with no_fork:
                self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
            self._perform(self._tls.do_handshake, lambda: None if deadline is None else deadline - time.monotonic())
        except (ssl.SSLError, httpcore.ReadError, httpcore.WriteError, ValueError) as error:
            stream.close()
            raise httpcore.ConnectError(f"TLS handshake failed: {_reason(error)}") from None
        except (httpcore.ReadTimeout, httpcore.WriteTimeout):
            stream.close()
            raise httpcore.ConnectTimeout("the TLS handshake took too long") from None
        except BaseException:
            stream.close()
            raise

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._perform(partial(self._tls.read, max_bytes), lambda: timeout)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # Without a close_notify the end may be an attacker's, but HTTP frames its messages itself.
            return b""
        except ssl.SSLError as error:
            raise httpcore.ReadError(_reason(error)) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        sent = 0
        try:
            while sent < len(buffer):
                rest = memoryview(buffer)[sent:]
                sent += self._perform(partial(self._tls.write, rest), lambda: timeout)
        except ssl.SSLError as error:
            raise httpcore.WriteError(_reason(error)) from None

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TLSStream(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> object:
        if info == "ssl_object":
            return self._tls
        return self._stream.get_extra_info(info)

    def _perform(self, operation: Callable[[], R], remaining: Callable[[], float | None]) -> R:
        """Run a TLS operation, moving bytes between the BIOs and the stream until it is done."""
        while True:
            try:
                # It works on memory, so it is soon over.
                with no_fork:
                    result = operation()
            except ssl.SSLWantReadError:
                self._flush(remaining())
                seconds = remaining()
                if seconds is not None and seconds <= 0:
                    raise httpcore.ReadTimeout("timed out") from None
                data = self._stream.read(_RECORD, seconds)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                self._flush(remaining())
                return result

    def _flush(self, timeout: float | None) -> None:
        data = self._outgoing.read()
        if data:
            if timeout is not None and timeout <= 0:
                raise httpcore.WriteTimeout("timed out")
            self._stream.write(data, timeout)


def _reason(error: Exception) -> str:
    """Return what went wrong without OpenSSL's file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return getattr(error, "reason", None) or str(error)


def _is_ready(sock: socket.socket, seconds: float, *, write: bool) -> bool:
    """Wait until ``sock`` is readable (or writable), ``seconds`` at most; errors count as ready."""
    if sys.platform == "win32":  # pragma: no cover - the other branch is what CI runs
        readable, writable, failed = select.select([sock], [sock] if write else [], [sock], seconds)
        return bool(writable or failed) if write else bool(readable)
    # Not select.select: it fails on descriptors above 1023.
    poller = select.poll()
    poller.register(sock, select.POLLOUT if write else select.POLLIN)
    return bool(poller.poll(seconds * 1000))
