"""Scripted servers on loopback, with and without TLS, and what they leave behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE = 60.0
"""Seconds that nothing really takes."""


class Server:
    """Runs a script for each connection, over TLS if told; scripts are made of the pieces below."""

    def __init__(self, script: Callable[[Server, socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"{'https' if context else 'http'}://localhost:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.requests: list[bytes] = []
        self.reached = threading.Semaphore(0)
        self.left = threading.Semaphore(0)
        self._told = threading.Condition()
        self._events = 0
        self._closed = False
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening and end every connection and thread."""
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        with self._told:
            self._closed = True
            self._told.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.add(sock)
                self._threads.append(threading.Thread(target=self._run, args=(sock,)))
                self._threads[-1].start()

    def _run(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if self._context is None:
                self._script(self, sock)
            else:
                with self._context.wrap_socket(sock, server_side=True) as secured:
                    self._open.add(secured)
                    self._script(self, secured)

    def request(self, sock: socket.socket) -> bytes:
        """Read the head of a request; nothing when there is none."""
        received = b""
        while b"\r\n\r\n" not in received:
            part = sock.recv(65536)
            if not part:
                return b""
            received += part
        self.requests.append(received)
        return received

    def stall(self, sock: socket.socket) -> None:
        """Say that this point is reached, wait until the client goes away, and say that too."""
        self.reached.release()
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass
        self.left.release()

    def tell(self) -> None:
        """Send an event on every open stream."""
        with self._told:
            self._events += 1
            self._told.notify_all()

    def stream(self, sock: socket.socket) -> None:
        """Open an event stream, send an event, and another for each that is told from then on."""
        told = self._events
        sock.sendall(STREAM_HEAD + b"9\r\ndata: 0\n\n\r\n")
        self.reached.release()
        while self._wait_for(told := told + 1):
            sock.sendall(b"9\r\ndata: 1\n\n\r\n")

    def _wait_for(self, told: int) -> bool:
        with self._told:
            self._told.wait_for(lambda: self._closed or self._events >= told)
            return not self._closed

    def serve(self, sock: socket.socket) -> None:
        """Answer every request on the connection; one for ``/watch`` opens a stream."""
        while request := self.request(sock):
            if b"/watch" in request.partition(b"\r\n")[0]:
                self.stream(sock)
                return
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def stall_after(sent: bytes) -> Callable[[Server, socket.socket], None]:
    """Return a script that answers a request with ``sent`` and no more."""

    def script(server: Server, sock: socket.socket) -> None:
        server.request(sock)
        sock.sendall(sent)
        server.stall(sock)

    return script


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A builder of servers that are stopped at the end: of a script, or of what they answer before they stall."""
    with contextlib.ExitStack() as stack:

        def start(
            script: Callable[[Server, socket.socket], None] | bytes = Server.serve,
            context: ssl.SSLContext | None = None,
        ) -> Server:
            server = Server(stall_after(script) if isinstance(script, bytes) else script, context)
            stack.callback(server.close)
            return server

        yield start


@dataclass(frozen=True)
class Certificate:
    """A certificate for ``localhost`` that signs itself."""

    chain: Path

    def context(self) -> ssl.SSLContext:
        """Return the settings of a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        return context


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate made for this run."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.now(timezone.utc) - timedelta(hours=1)
    made = (
        x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start,
            not_valid_after=start + timedelta(days=2),
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    chain = tmp_path_factory.mktemp("tls") / "chain.pem"
    chain.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + made.public_bytes(pem)
    )
    return Certificate(chain)


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """The certificate, trusted by clients that are made from here on."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.chain))
    return certificate


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no authority of the machine takes part."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """The URL of a port where connecting neither succeeds nor fails: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            assert waiting.connect_ex(listener.getsockname()) in {0, errno.EINPROGRESS}
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def sockets() -> Callable[[], int]:
    """Count the open sockets of this process."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to count sockets")

    def count() -> int:
        gc.collect()
        found = 0
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        return found

    return count
