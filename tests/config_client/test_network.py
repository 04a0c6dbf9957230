"""The network below the transport on real sockets: scripted servers, TLS, timeouts, and closing from any state."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from stopwatch import stopwatch

from config_client import _network
from config_client._deadline import within
from config_client._interrupt import Interrupt
from config_client._network import InterruptibleBackend, InterruptibleTransport
from config_client._waker import Waker
from config_client.errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    InvalidResponseError,
)
from config_client.transport import Transport, socket_of

TOKEN = "t0k3n-canary-5e1f"
PATH = "/api/v1/service/configs"
ROUNDS = 20
"""Times that closing is measured from each state."""
LIMIT = 0.1
"""Seconds that closing may take."""

Script = Callable[[socket.socket], None]


class Server:
    """Accepts connections on loopback, over TLS if told, and runs a script for each."""

    def __init__(self, script: Script, context: ssl.SSLContext | None, family: int) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self._pool = ThreadPoolExecutor(128)
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.requests: list[bytes] = []
        self.reached = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __enter__(self) -> Server:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self._pool.shutdown()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.add(sock)
                self._pool.submit(self._run, sock)

    def _run(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if self._context is None:
                self._script(sock)
            else:
                with self._context.wrap_socket(sock, server_side=True) as secured:
                    self._open.add(secured)
                    self._script(secured)

    # Pieces of scripts.

    def request(self, sock: socket.socket) -> bool:
        """Read a request; tell whether there was one."""
        received = b""
        while b"\r\n\r\n" not in received:
            part = sock.recv(65536)
            if not part:
                return False
            received += part
        self.requests.append(received)
        return True

    def stall(self, sock: socket.socket) -> None:
        """Say that this point is reached, and wait until the client goes away."""
        self.reached.release()
        while sock.recv(65536):
            pass

    def serve(self, sock: socket.socket) -> None:
        """Answer every request on the connection."""
        while self.request(sock):
            sock.sendall(reply(b"{}"))


def reply(body: bytes, *headers: str, length: int | None = None, status: str = "200 OK") -> bytes:
    """Return a response with a content length, by default the true one."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def server(
    script: Callable[[Server, socket.socket], None],
    context: ssl.SSLContext | None = None,
    family: int = socket.AF_INET,
) -> Server:
    """Return a server whose script gets the server too."""
    made = Server(lambda sock: script(made, sock), context, family)
    return made


@dataclass(frozen=True)
class Certificate:
    """A certificate for ``localhost`` and the authority that signed it."""

    authority: Path
    chain: Path

    def context(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """Return the settings of a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain)
        context.maximum_version = version
        return context

    def trusting(self) -> ssl.SSLContext:
        """Return the settings of a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.authority))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate made for this run; its address is ::1, so that 127.0.0.1 does not match."""
    folder = tmp_path_factory.mktemp("tls")
    start = datetime.now(timezone.utc) - timedelta(hours=1)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer_name=name("test authority"),
            subject_name=name(subject),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start,
            not_valid_after=start + timedelta(days=2),
        )

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority = (
        builder("test authority", root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
        .sign(root, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("::1"))]
    shown = (
        builder("localhost", leaf)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
        .sign(root, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = Certificate(folder / "authority.pem", folder / "chain.pem")
    paths.authority.write_bytes(authority.public_bytes(pem))
    paths.chain.write_bytes(key + shown.public_bytes(pem))
    return paths


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no authority of the machine takes part."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """The certificate, trusted by clients that are made from here on."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority))
    return certificate


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that are joined at the end."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def client(port: int, *, scheme: str = "http", host: str = "localhost", **options: float) -> Transport:
    """Return a transport of its own that never pauses and never retries, unless told."""
    given: dict[str, float] = {"request_timeout": 20, "retry_count": 0, "retry_delay": 0, **options}
    return Transport(f"{scheme}://{host}:{port}", TOKEN, **given)  # type: ignore[arg-type]


def failure_of(call: Callable[[], object]) -> ConfigClientError:
    """Return the error that ``call`` raises: one of this package's, from which no request can be reached."""
    with pytest.raises(ConfigClientError) as caught:
        call()
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__context__ is None
    while error is not None:
        assert TOKEN not in str(error) + repr(error) + repr(vars(error))
        assert not any(isinstance(value, (httpx.Request, httpx.Response)) for value in vars(error).values())
        assert error.__context__ in {None, error.__cause__}
        error = error.__cause__
    return caught.value


def until(condition: Callable[[], bool]) -> None:
    """Return as soon as ``condition`` holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def open_sockets() -> int:
    """Return how many sockets this process holds."""
    gc.collect()
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return count


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """Yield a port where connecting neither succeeds nor fails: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            assert waiting.connect_ex(listener.getsockname()) in {0, errno.EINPROGRESS}
        yield listener.getsockname()[1]


# ----------------------------------------------------------------------------------------------------- connections


def test_requests_share_a_connection() -> None:
    """Keep-alive works over our own network backend, and the token reaches the service."""
    with server(Server.serve) as service, client(service.port) as transport:
        assert transport.get(PATH).json() == {}
        assert transport.fetch(PATH, retry=False).json() == {}
        assert service.connections == 1
        assert all(f"X-Service-Token: {TOKEN}".encode() in request for request in service.requests)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_an_idle_connection_that_the_service_ended_is_not_used_again(how: int) -> None:
    """Half-closed or closed: the next request goes out on a new one, without needing a retry."""

    def answer_and_end(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(reply(b"{}"))
        sock.shutdown(how)
        service.stall(sock)

    with server(answer_and_end) as service, client(service.port) as transport:
        for connections in (1, 2, 3):
            transport.get(PATH)
            assert service.reached.acquire(timeout=60)
            assert service.connections == connections


def test_a_connection_that_fails_between_two_requests_is_retried() -> None:
    """The service may end it in the very moment the request is sent."""

    def answer_once(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        if len(service.requests) != 2:
            sock.sendall(reply(b"{}"))
            service.request(sock)

    with server(answer_once) as service, client(service.port, retry_count=1) as transport:
        transport.get(PATH)
        transport.get(PATH)
        assert (service.connections, len(service.requests)) == (2, 3)


@pytest.mark.parametrize(
    "cut",
    [
        reply(b'{"a":', length=100),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 7\r\n\r\n",
        f"GARBAGE {TOKEN}\r\n\r\n".encode(),
        b"",
    ],
)
def test_an_answer_cut_short_or_garbled_is_retried(cut: bytes) -> None:
    """Headers, body or chunk: what is not whole is never returned, and never quoted."""

    def answer_whole_the_third_time(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(cut if len(service.requests) < 3 else reply(b'"whole"', "Connection: close"))

    with server(answer_whole_the_third_time) as service, client(service.port, retry_count=2) as transport:
        assert transport.get(PATH).json() == "whole"
        assert service.connections == 3
        service.requests.clear()
        error = failure_of(lambda: transport.fetch(PATH, retry=False))
    assert type(error) is ConnectionError
    assert type(error.__cause__) is httpx.RemoteProtocolError


def test_a_header_that_cannot_be_sent_is_not_quoted() -> None:
    """h11's own error repeats it; ours does not, and nothing is sent."""
    with server(Server.serve) as service, client(service.port) as transport:
        error = failure_of(lambda: transport.fetch(PATH, headers={"If-None-Match": f"{TOKEN}\r\n"}))
        assert not service.requests
    assert type(error.__cause__) is httpx.LocalProtocolError
    assert str(error) == f"http://localhost:{service.port}: LocalProtocolError"


def test_a_token_never_reaches_another_origin() -> None:
    """The other origin does not even see a connection."""
    with server(Server.serve) as other:

        def redirect(service: Server, sock: socket.socket) -> None:
            service.request(sock)
            sock.sendall(reply(b"", f"Location: http://localhost:{other.port}/", status="302 Found"))

        with server(redirect) as service, client(service.port, retry_count=3) as transport:
            assert type(failure_of(lambda: transport.get(PATH))) is InvalidResponseError
            assert (service.connections, other.connections) == (1, 0)


def test_a_refused_connection_is_told_with_its_reason() -> None:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client(port, host="127.0.0.1") as transport:
        error = failure_of(lambda: transport.get(PATH))
    assert str(error) == f"http://127.0.0.1:{port}: ConnectError: [Errno {errno.ECONNREFUSED}] Connection refused"
    assert type(error.__cause__) is httpx.ConnectError


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_a_name_that_does_not_resolve_is_told(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """Whichever way the look-up fails."""

    def look_up(*_: object, **__: object) -> object:
        raise failure

    with client(80, host="config.invalid") as transport:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        error = failure_of(lambda: transport.get(PATH))
    assert type(error.__cause__) is httpx.ConnectError


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that accepts is used; a name without any is an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()
    found: list[tuple[str, int]] = []
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in found]
    )
    with server(Server.serve) as service, client(service.port, host="config.test") as transport:
        assert "the name has no addresses" in str(failure_of(lambda: transport.get(PATH)))
        found += [closed, closed]
        assert "refused" in str(failure_of(lambda: transport.get(PATH)))
        found.append(("127.0.0.1", service.port))
        assert transport.get(PATH).json() == {}


def test_an_address_that_never_answers_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a name whose IPv6 address leads nowhere: each address gets its share of the time."""
    with full_backlog() as dead, server(Server.serve) as service:
        found = [("127.0.0.1", dead), ("127.0.0.1", service.port)]
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in found],
        )
        with client(service.port, host="config.test", request_timeout=10) as transport:
            assert transport.get(PATH).json() == {}


def test_an_address_of_the_sixth_version_is_reached() -> None:
    """In brackets, as URLs want it."""
    try:
        service = server(Server.serve, family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with service, client(service.port, host="[::1]") as transport:
        assert transport.get(PATH).json() == {}
        assert f"Host: [::1]:{service.port}".encode() in service.requests[0]


def test_a_stock_client_may_use_the_network_alone(certificate: Certificate) -> None:
    """``InterruptibleTransport`` is an httpx transport like any other."""
    network = InterruptibleTransport(Interrupt(), verify=certificate.trusting(), proxy=None)
    with server(Server.serve) as service, httpx.Client(transport=network) as stock:
        assert stock.post(f"http://localhost:{service.port}/x", content=b"x" * 100_000).status_code == 200


# -------------------------------------------------------------------------------------------------------- timeouts


def timed_out(call: Callable[[], object], cause: type[Exception]) -> None:
    """Assert that ``call`` fails by a timeout of 0.2 s, and not much later."""
    started = time.monotonic()
    error = failure_of(call)
    assert type(error) is ConnectionError
    assert type(error.__cause__) is cause
    assert 0.19 <= time.monotonic() - started < 5


def test_connecting_ends_by_its_timeout() -> None:
    """A host that does not answer."""
    with full_backlog() as port, client(port, host="127.0.0.1", request_timeout=0.2) as transport:
        timed_out(lambda: transport.get(PATH), httpx.ConnectTimeout)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", reply(b"{", length=10)])
def test_reading_ends_by_its_timeout(sent: bytes) -> None:
    """Before the answer, within its head, within its body."""

    def stall(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(sent)
        service.stall(sock)

    with server(stall) as service, client(service.port, request_timeout=0.2) as transport:
        timed_out(lambda: transport.get(PATH), httpx.ReadTimeout)


def drip(sock: socket.socket, parts: Iterator[bytes]) -> None:
    """Send ``parts``, one every 20 ms, until the client goes away."""
    for part in parts:
        sock.sendall(part)
        time.sleep(0.02)


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_an_answer_that_only_drips_is_given_up_after_the_timeout(
    trusted: Certificate, head: bytes, secured: bool
) -> None:
    """Each byte arrives in time, the whole does not: head and body, requests and the opening of streams."""
    part = b"1\r\nx\r\n" if b"chunked" in head else b"X-Pad: x\r\n"

    def trickle(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(head)
        drip(sock, itertools.repeat(part))

    with (
        server(trickle, context=trusted.context() if secured else None) as service,
        client(service.port, scheme="https" if secured else "http", request_timeout=0.3) as transport,
    ):
        timed_out(lambda: transport.get(PATH), httpx.ReadTimeout)
        if b"chunked" not in head:
            timed_out(lambda: transport.stream(PATH).__enter__(), httpx.ReadTimeout)


def test_what_is_left_of_the_time_bounds_writing_and_connecting_too() -> None:
    """A timeout of httpx's own that is longer, or none at all, does not extend it."""

    def read_nothing(service: Server, sock: socket.socket) -> None:
        service.go_on.wait(60)

    with server(read_nothing) as service, full_backlog() as dead:
        backend = InterruptibleBackend(Interrupt())
        stream = backend.connect_tcp("127.0.0.1", service.port, timeout=5)
        with within(0.1):
            with pytest.raises(httpcore.WriteTimeout):
                stream.write(bytes(50_000_000), timeout=None)
            with pytest.raises(httpcore.WriteTimeout):
                stream.write(b"x", timeout=5)
            with pytest.raises(httpcore.ReadTimeout):
                stream.read(1, timeout=5)
        with within(0.1), pytest.raises(httpcore.ConnectTimeout):
            backend.connect_tcp("127.0.0.1", dead, timeout=None)
        stream.close()


def test_a_handshake_ends_by_its_timeout(trusted: Certificate) -> None:
    """A server that accepts and says nothing, or only half of it."""
    with server(Server.stall) as service, client(service.port, scheme="https", request_timeout=0.2) as transport:
        timed_out(lambda: transport.get(PATH), httpx.ConnectTimeout)


def test_a_handshake_that_trickles_ends_by_its_timeout(trusted: Certificate) -> None:
    """The timeout is for the whole handshake, not for each of its bytes."""

    def trickle(service: Server, sock: socket.socket) -> None:
        sock.recv(65536)
        for byte in b"\x16\x03\x03\x00\x7a" + bytes(1000):
            sock.sendall(bytes([byte]))
            if service.go_on.wait(0.05):
                break

    with server(trickle) as service, client(service.port, scheme="https", request_timeout=0.2) as transport:
        timed_out(lambda: transport.get(PATH), httpx.ConnectTimeout)


@pytest.mark.parametrize("late", ["before it begins", "while it is written"])
def test_a_handshake_whose_time_is_over_is_not_waited_for(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """Time may run out between two steps as well; then no step gets a timeout that sockets refuse."""
    now = [100.0]
    closed: list[bool] = []

    class Slow(httpcore.NetworkStream):
        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            now[0] += 10

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(_network, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with pytest.raises(httpcore.ConnectTimeout, match="handshake took too long"):
        _network._TLSStream(Slow(), certificate.trusting(), "localhost", 0.0 if late.startswith("before") else 5.0)
    assert closed == [True]
    assert now == [100.0 if late.startswith("before") else 110.0]


def events(service: Server, sock: socket.socket) -> None:
    """Open an event stream, send one event, and another when told."""
    service.request(sock)
    sock.sendall(STREAM_HEAD + b"9\r\ndata: 1\n\n\r\n")
    service.reached.release()
    service.go_on.wait(60)
    sock.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")


def test_a_stream_may_be_silent_for_longer_than_a_request() -> None:
    """Its read timeout is the heartbeat's; that of requests governs until it is open."""
    with (
        server(events) as service,
        client(service.port, request_timeout=0.1) as transport,
        transport.stream(PATH) as response,
    ):
        chunks = transport.chunks(response, read_timeout=20)
        assert next(chunks) == b"data: 1\n\n"
        threading.Timer(0.4, service.go_on.set).start()
        started = time.monotonic()
        assert list(chunks) == [b"data: 2\n\n"]
        assert time.monotonic() - started > 0.3


def test_a_silent_stream_ends_by_its_own_timeout() -> None:
    """Though requests may take far longer."""
    with server(events) as service, client(service.port) as transport, transport.stream(PATH) as response:
        chunks = transport.chunks(response, read_timeout=0.2)
        assert next(chunks) == b"data: 1\n\n"
        timed_out(lambda: next(chunks), httpx.ReadTimeout)


# ------------------------------------------------------------------------------------------------------------- TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_over_tls_share_a_connection(trusted: Certificate, version: ssl.TLSVersion) -> None:
    """The name is checked, and session tickets do not make an idle connection look ended."""
    with server(Server.serve, context=trusted.context(version)) as service:
        with client(service.port, scheme="https") as transport:
            for _ in range(3):
                assert transport.get(PATH).json() == {}
        assert service.connections == 1


def test_large_bodies_pass_through_tls_both_ways(certificate: Certificate) -> None:
    """Many records each way, whole."""
    body = os.urandom(3_000_000)

    def echo(service: Server, sock: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < len(body):
            received += sock.recv(1 << 20)
        sock.sendall(reply(received.partition(b"\r\n\r\n")[2]))

    network = InterruptibleTransport(Interrupt(), verify=certificate.trusting(), proxy=None)
    with server(echo, context=certificate.context()) as service, httpx.Client(transport=network) as stock:
        response = stock.post(f"https://localhost:{service.port}/", content=body, timeout=20)
    assert response.content == body


def test_an_untrusted_certificate_is_told_in_plain_words(certificate: Certificate) -> None:
    """Without OpenSSL's file and line, and without a request having been sent."""
    with server(Server.serve, context=certificate.context()) as service:
        with client(service.port, scheme="https") as transport:
            error = failure_of(lambda: transport.get(PATH))
        assert not service.requests
    assert type(error.__cause__) is httpx.ConnectError
    expected = "ConnectError: TLS handshake failed: certificate verify failed: unable to get local issuer certificate"
    assert str(error) == f"https://localhost:{service.port}: {expected}"


def test_a_certificate_for_another_host_is_told_in_plain_words(trusted: Certificate) -> None:
    """It is trusted, but not for this address."""
    with server(Server.serve, context=trusted.context()) as service:
        with client(service.port, scheme="https", host="127.0.0.1") as transport:
            error = failure_of(lambda: transport.get(PATH))
        assert not service.requests
    assert "certificate verify failed: IP address mismatch" in str(error)
    assert "_ssl.c" not in str(error)


@pytest.mark.parametrize("sent", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_a_server_that_speaks_no_tls_is_told(trusted: Certificate, sent: bytes) -> None:
    """Plain HTTP on the port, a connection that ends, an alert."""

    def answer(service: Server, sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(sent)

    with server(answer) as service, client(service.port, scheme="https") as transport:
        error = failure_of(lambda: transport.get(PATH))
    assert type(error.__cause__) is httpx.ConnectError
    assert "TLS handshake failed: " in str(error)
    assert "_ssl.c" not in str(error)


@pytest.mark.parametrize("politely", [True, False])
def test_a_tls_connection_that_ends_within_a_body_is_no_whole_answer(trusted: Certificate, politely: bool) -> None:
    """With or without TLS's own goodbye; a body that lasts until the end of the connection is whole only with one
    of HTTP's own lengths, or when the connection is the length."""

    def answer(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(reply(b"{", length=10))
        if politely:
            assert isinstance(sock, ssl.SSLSocket)
            sock.unwrap()

    with server(answer, context=trusted.context()) as service, client(service.port, scheme="https") as transport:
        error = failure_of(lambda: transport.get(PATH))
    assert type(error.__cause__) is httpx.RemoteProtocolError


def test_a_body_that_lasts_until_the_connection_ends_is_read_whole(trusted: Certificate) -> None:
    """HTTP/1.0 style, over TLS with its goodbye."""

    def answer(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 100_000)
        assert isinstance(sock, ssl.SSLSocket)
        sock.unwrap()

    with server(answer, context=trusted.context()) as service, client(service.port, scheme="https") as transport:
        assert len(transport.get(PATH).content) == 100_000


def test_garbage_within_a_tls_connection_is_a_connection_error(trusted: Certificate) -> None:
    """A record that does not authenticate."""

    def answer(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        service.stall(sock)

    with server(answer, context=trusted.context()) as service, client(service.port, scheme="https") as transport:
        error = failure_of(lambda: transport.get(PATH))
    assert type(error.__cause__) is httpx.ReadError
    assert "_ssl.c" not in str(error)


# ------------------------------------------------------------------------------------------------ who may be woken


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("own", [True, False])
def test_a_waker_ends_the_reading_of_one_stream(trusted: Certificate, own: bool, secured: bool) -> None:
    """By the socket of its response; the transport goes on, and so does a caller's client."""
    scheme = "https" if secured else "http"

    def script(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        if b"/watch" in service.requests[-1].partition(b"\r\n")[0]:
            sock.sendall(STREAM_HEAD + b"9\r\ndata: 1\n\n\r\n")
            service.stall(sock)
        else:
            sock.sendall(reply(b"{}"))

    with server(script, context=trusted.context() if secured else None) as service, contextlib.ExitStack() as stack:
        callers = None if own else stack.enter_context(httpx.Client())
        transport = stack.enter_context(
            Transport(f"{scheme}://localhost:{service.port}", TOKEN, 20, 0, 0, http_client=callers)
        )
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waker = Waker(transport.interrupt)
        with transport.stream("/watch") as response:
            sock = socket_of(response)
            assert isinstance(sock, socket.socket)
            assert sock.getpeername()[1] == service.port
            waker.guard(sock)
            chunks = transport.chunks(response, read_timeout=20)
            assert next(chunks) == b"data: 1\n\n"
            reading = pool.submit(next, chunks)
            assert service.reached.acquire(timeout=60)
            waker.wake()
            assert type(failure_of(lambda: reading.result(timeout=60))) is ConnectionError
            assert waker.woken()
            waker.release()
        assert transport.get(PATH).json() == {}


def test_a_socket_that_others_share_is_nobodys_to_shut_down() -> None:
    """HTTP/2 carries the caller's other requests on it too; mocks have none."""
    assert socket_of(httpx.Response(200)) is None
    one, other = socket.socketpair()
    with one, other:
        stream = SimpleNamespace(get_extra_info=lambda info: one if info == "socket" else None)
        for version, expected in ((b"HTTP/1.1", one), (b"HTTP/2", None)):
            extensions = {"network_stream": stream, "http_version": version}
            assert socket_of(httpx.Response(200, extensions=extensions)) is expected


# --------------------------------------------------------------------------------------- the backend's own surface


def test_a_stream_tells_its_addresses_socket_and_state() -> None:
    """What httpcore asks for; anything else is None."""
    with server(Server.stall) as service:
        stream = InterruptibleBackend(Interrupt()).connect_tcp(
            "127.0.0.1",
            service.port,
            timeout=5,
            local_address="127.0.0.1",
            socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
        )
        sock = stream.get_extra_info("socket")
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", service.port)
        assert stream.get_extra_info("client_addr") == sock.getsockname()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("is_readable") is False
        stream.close()
        assert stream.get_extra_info("is_readable") is True


def test_a_local_address_that_is_not_ours_is_a_connect_error() -> None:
    """And the socket is closed."""
    before = open_sockets()
    with pytest.raises(httpcore.ConnectError):
        InterruptibleBackend(Interrupt()).connect_tcp("127.0.0.1", 9, local_address="192.0.2.1")
    assert open_sockets() == before


def test_an_option_that_the_system_refuses_is_a_connect_error() -> None:
    """Not an OSError that httpx does not know; and the socket is closed."""
    before = open_sockets()
    with server(Server.stall) as service, pytest.raises(httpcore.ConnectError):
        InterruptibleBackend(Interrupt()).connect_tcp("127.0.0.1", service.port, socket_options=[(-1, -1, 1)])
    assert open_sockets() == before


def test_connecting_without_a_timeout_waits_for_the_interrupt(pool: ThreadPoolExecutor) -> None:
    """None means no limit, here as in httpcore."""
    interrupt = Interrupt()
    with full_backlog() as port:
        connecting = pool.submit(InterruptibleBackend(interrupt).connect_tcp, "127.0.0.1", port)
        until(lambda: len(interrupt._sockets) == 1)
        interrupt.set()
        with pytest.raises(httpcore.ConnectError, match="closed while connecting"):
            connecting.result(timeout=60)


@pytest.mark.parametrize("secured", [False, True])
def test_writing_ends_by_its_timeout_and_by_the_end_of_the_connection(certificate: Certificate, secured: bool) -> None:
    """A peer that does not read, and a socket that is gone."""

    def read_nothing(service: Server, sock: socket.socket) -> None:
        service.go_on.wait(60)

    context = certificate.context() if secured else None
    with server(read_nothing, context=context) as service:
        stream = InterruptibleBackend(Interrupt()).connect_tcp("localhost", service.port, timeout=5)
        if secured:
            stream = stream.start_tls(certificate.trusting(), "localhost", timeout=5)
        with pytest.raises(httpcore.WriteTimeout):
            stream.write(bytes(50_000_000), timeout=0.1)
        stream.close()
        with pytest.raises(httpcore.WriteError):
            stream.write(b"x", timeout=0.1)
        with pytest.raises(httpcore.ReadError):
            stream.read(1, timeout=0.1)


def test_nothing_can_be_written_after_tls_has_ended(certificate: Certificate) -> None:
    """The peer's goodbye, or a broken record, ends both directions."""

    def break_off(service: Server, sock: socket.socket) -> None:
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        service.stall(sock)

    with server(break_off, context=certificate.context()) as service:
        stream = InterruptibleBackend(Interrupt()).connect_tcp("localhost", service.port, timeout=5)
        stream = stream.start_tls(certificate.trusting(), "localhost", timeout=5)
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        with pytest.raises(httpcore.ReadError):
            stream.read(1, timeout=5)
        with pytest.raises(httpcore.WriteError):
            stream.write(b"x", timeout=5)
        stream.close()


def test_tls_runs_within_tls(certificate: Certificate) -> None:
    """As it must to reach a service through a proxy that itself speaks TLS."""
    inner, outer = certificate.context(), certificate.context()

    def unwrap_both(service: Server, sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = inner.wrap_bio(incoming, outgoing, server_side=True)

        def run(operation: Callable[[], object]) -> object:
            while True:
                try:
                    result = operation()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
                else:
                    sock.sendall(outgoing.read())
                    return result

        run(tls.do_handshake)
        assert run(lambda: tls.read(4)) == b"ping"
        run(lambda: tls.write(b"pong"))
        service.stall(sock)

    with server(unwrap_both, context=outer) as service:
        stream = InterruptibleBackend(Interrupt()).connect_tcp("localhost", service.port, timeout=5)
        for _ in range(2):
            stream = stream.start_tls(certificate.trusting(), "localhost", timeout=5)
        stream.write(b"ping", timeout=5)
        assert stream.read(4, timeout=5) == b"pong"
        assert stream.get_extra_info("socket").fileno() > 0
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1, timeout=0.05)
        stream.close()


def test_an_interrupted_handshake_leaves_no_socket(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    """A KeyboardInterrupt, say: it passes through, and the connection is closed."""
    before = open_sockets()

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    with server(Server.stall) as service:
        stream = InterruptibleBackend(Interrupt()).connect_tcp("localhost", service.port, timeout=5)
        monkeypatch.setattr(_network._TLSStream, "_perform", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.start_tls(certificate.trusting(), "localhost", timeout=5)
    assert open_sockets() == before


# --------------------------------------------------------------------------------------------------------- closing


def stall_after(sent: bytes) -> Callable[[Server, socket.socket], None]:
    """Return a script that answers a request with ``sent`` and no more."""

    def script(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        sock.sendall(sent)
        service.stall(sock)

    return script


def get(transport: Transport) -> None:
    """Fetch something."""
    transport.get(PATH)


def read_stream(transport: Transport) -> None:
    """Read an event stream until it ends."""
    with transport.stream(PATH) as response:
        for _ in transport.chunks(response, read_timeout=20):
            pass


STATES: dict[str, tuple[str, Callable[[Server, socket.socket], None], Callable[[Transport], None]]] = {
    "handshake": ("https-stalled", Server.stall, get),
    "first byte": ("http", stall_after(b""), get),
    "first byte over TLS": ("https", stall_after(b""), get),
    "head": ("http", stall_after(b"HTTP/1.1 200 OK\r\nContent-"), get),
    "body": ("http", stall_after(reply(b"{", length=9)), get),
    "body over TLS": ("https", stall_after(reply(b"{", length=9)), get),
    "body without length": ("http", stall_after(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"), get),
    "pause": ("http", stall_after(reply(b"", "Retry-After: 59", status="503 Busy")), get),
    "idle stream": ("http", stall_after(STREAM_HEAD + b"9\r\ndata: 1\n\n\r\n"), read_stream),
    "idle stream over TLS": ("https", stall_after(STREAM_HEAD + b"9\r\ndata: 1\n\n\r\n"), read_stream),
    "within an event": ("http", stall_after(STREAM_HEAD + b"9\r\ndata:"), read_stream),
    "stream without head": ("http", stall_after(b""), read_stream),
}


def closing(transport: Transport, blocked: Future[None]) -> float:
    """Close ``transport``, return the seconds until it is closed with nobody left inside; the caller is told."""
    with stopwatch() as took:
        transport.close()
        settled = transport.interrupt.settle(0)
    seconds = took.seconds if settled else LIMIT
    assert type(failure_of(lambda: blocked.result(timeout=60))) is ClosedError
    return seconds


def within_the_limit(seconds: list[float]) -> None:
    """Assert that closing was prompt: all but one of the rounds, which the machine may have been busy in."""
    assert len(seconds) == ROUNDS
    assert sorted(seconds)[-2] < LIMIT
    assert sorted(seconds)[ROUNDS // 2] < LIMIT / 2


@pytest.mark.parametrize("state", STATES)
def test_close_is_prompt_and_leaves_nothing(state: str, trusted: Certificate, pool: ThreadPoolExecutor) -> None:
    """Within 100 ms from any state; the blocked caller gets ClosedError, and no socket and no thread is left."""
    scheme, script, block = STATES[state]
    seconds = []
    before, threads = open_sockets(), threading.active_count()
    with server(script, context=trusted.context() if scheme == "https" else None) as service:
        for _ in range(ROUNDS):
            transport = client(service.port, scheme=scheme.partition("-")[0], retry_count=3)
            blocked = pool.submit(block, transport)
            assert service.reached.acquire(timeout=60)
            seconds.append(closing(transport, blocked))
    within_the_limit(seconds)
    del transport, blocked
    assert open_sockets() == before
    assert threading.active_count() <= threads + 4  # the pool's own


def test_close_is_prompt_while_connecting(pool: ThreadPoolExecutor) -> None:
    """A host that does not answer."""
    seconds = []
    with full_backlog() as port:
        before = open_sockets()
        for _ in range(ROUNDS):
            transport = client(port, host="127.0.0.1", retry_count=3)
            blocked = pool.submit(get, transport)
            until(lambda transport=transport: len(transport.interrupt._sockets) == 1)  # type: ignore[misc]
            seconds.append(closing(transport, blocked))
        del transport, blocked
        assert open_sockets() == before
    within_the_limit(seconds)


def test_close_does_not_wait_for_a_name_look_up(monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor) -> None:
    """The one thing that cannot be interrupted: close returns all the same, and nothing is connected afterwards."""
    looking, found, look_up = threading.Event(), threading.Event(), socket.getaddrinfo

    def slow(*arguments: object, **options: object) -> object:
        looking.set()
        found.wait(60)
        return look_up(*arguments, **options)  # type: ignore[arg-type]

    with server(Server.serve) as service:
        transport = client(service.port)
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        blocked = pool.submit(get, transport)
        assert looking.wait(60)
        with stopwatch() as took:
            transport.close()
        assert took.seconds < 2 * LIMIT
        found.set()
        assert type(failure_of(lambda: blocked.result(timeout=60))) is ClosedError
        assert not service.requests


def test_close_may_come_from_a_signal_handler_that_interrupts_the_pool() -> None:
    """The thread that closes is then the one that holds the pool's lock; the pool is closed when that call is left."""
    with server(Server.serve) as service:
        transport = client(service.port)
        transport.get(PATH)
        assert transport._own is not None
        own, before = transport._own.client(0), open_sockets()
        network = own._transport
        assert isinstance(network, InterruptibleTransport)
        with transport.activity():
            with network._pool._optional_thread_lock:
                transport.close()
            assert transport.closed
        assert own.is_closed
        assert open_sockets() < before


def test_several_callers_are_all_told(pool: ThreadPoolExecutor) -> None:
    """Each on a connection of its own, a stream among them."""
    with server(stall_after(STREAM_HEAD + b"9\r\ndata: 1\n\n\r\n")) as service:
        transport = client(service.port)
        blocked = [pool.submit(call, transport) for call in (get, read_stream, get, read_stream)]
        for _ in blocked:
            assert service.reached.acquire(timeout=60)
        transport.close()
        for each in blocked:
            assert type(failure_of(lambda each=each: each.result(timeout=60))) is ClosedError  # type: ignore[misc]
        assert service.connections == 4


def test_an_unused_and_an_idle_transport_close_at_once() -> None:
    """With a connection in the pool or without."""
    before = open_sockets()
    with server(Server.serve) as service:
        for use in (False, True):
            transport = client(service.port)
            if use:
                transport.get(PATH)
            with stopwatch() as took:
                transport.close()
            assert took.seconds < LIMIT
    assert open_sockets() == before


def test_more_streams_than_a_stock_pool_holds_are_open_at_once() -> None:
    """A pool of 100 connections would block the 101st."""
    count = 105
    with server(events) as service, contextlib.ExitStack() as stack:
        transport = stack.enter_context(client(service.port))
        for _ in range(count):
            stack.enter_context(transport.stream(PATH))
        assert service.connections == count


# ------------------------------------------------------------------------------------------------ a caller's client


@pytest.mark.parametrize("state", ["body", "body over TLS", "idle stream", "idle stream over TLS", "within an event"])
def test_close_wakes_a_read_on_a_callers_client(state: str, trusted: Certificate, pool: ThreadPoolExecutor) -> None:
    """Once the head of the answer is there; the client stays open and goes on."""
    scheme, script, block = STATES[state]
    seconds = []

    def first_stall(service: Server, sock: socket.socket) -> None:
        if service.connections > ROUNDS:
            service.serve(sock)
        else:
            script(service, sock)

    with server(first_stall, context=trusted.context() if scheme == "https" else None) as service:
        host = f"{scheme}://localhost:{service.port}"
        with httpx.Client(timeout=20) as own:
            for _ in range(ROUNDS):
                transport = Transport(host, TOKEN, 20, 3, 0, own)
                blocked = pool.submit(block, transport)
                assert service.reached.acquire(timeout=60)
                # The head has been sent; that it was read shows in the socket being guarded.
                until(lambda transport=transport: len(transport.interrupt._sockets) == 1)  # type: ignore[misc]
                seconds.append(closing(transport, blocked))
            assert not own.is_closed
            assert own.get(host).json() == {}
    within_the_limit(seconds)


def test_close_leaves_the_connections_of_a_callers_client_alone() -> None:
    """What our requests used before may be serving the caller's by now."""
    with server(Server.serve) as service, httpx.Client() as own:
        transport = Transport(f"http://localhost:{service.port}", TOKEN, http_client=own)
        transport.get(PATH)
        with own.stream("GET", f"http://localhost:{service.port}/callers") as response:
            transport.close()
            assert response.read() == b"{}"
        assert own.get(f"http://localhost:{service.port}/callers").status_code == 200
        assert service.connections == 1


def test_close_does_not_wait_long_for_what_it_cannot_wake(pool: ThreadPoolExecutor) -> None:
    """Before the first byte of the answer on a caller's client; the call ends with its client."""

    def hold(service: Server, sock: socket.socket) -> None:
        service.request(sock)
        service.reached.release()
        service.go_on.wait(60)

    with server(hold) as service, httpx.Client() as own:
        transport = Transport(f"http://localhost:{service.port}", TOKEN, 20, 3, 0, own)
        blocked = pool.submit(get, transport)
        assert service.reached.acquire(timeout=60)
        with stopwatch() as took:
            transport.close()
        assert took.seconds < 2 * LIMIT
        service.go_on.set()
        assert type(failure_of(lambda: blocked.result(timeout=60))) is ClosedError
