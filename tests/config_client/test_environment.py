"""What the process's environment decides: proxies, their exceptions, and whom TLS trusts. With a real, tiny proxy."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config_client import _environment
from config_client._aio_transport import AsyncTransport
from config_client._hosts import base_url
from config_client.errors import ConfigClientError, ConnectionError  # noqa: A004 - this package's
from config_client.transport import Transport

TOKEN = "t0k3n-canary-5e1f"
PASSWORD = "p4ssw0rd-canary"
PATH = "/api/v1/service/configs"


class Handler(BaseHTTPRequestHandler):
    """A service and a proxy in one: answers GET itself, and connects CONNECT through."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        assert isinstance(self.server, Server)
        self.seen = self.server.seen

    def told(self, authorization: str) -> str:
        """Return what this request reveals."""
        told = {"token": self.headers["X-Service-Token"], "authorization": self.headers[authorization]}
        return " ".join([self.requestline, *(f"{name}={value}" for name, value in told.items() if value)])

    def do_GET(self) -> None:
        self.seen.append(self.told("Authorization"))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_CONNECT(self) -> None:
        self.seen.append(self.told("Proxy-Authorization"))
        if "refuse" in self.path:
            self.send_error(407, "Proxy Authentication Required")
            return
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as on,
        ):
            ends = {self.connection: on, on: self.connection}
            while True:
                for sock in select.select(list(ends), [], [])[0]:
                    data = sock.recv(65536)
                    if not data:
                        return
                    ends[sock].sendall(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that is overridden
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves on loopback, over TLS if told, and remembers what it saw."""

    daemon_threads = False

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str] = []
        self.scheme = "https" if context else "http"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away within a handshake is no news."""

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """A builder of servers that are stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(context: ssl.SSLContext | None = None) -> Server:
            server = Server(context)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for ``localhost`` with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.now(timezone.utc) - timedelta(hours=1)
    shown = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, start + timedelta(2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + shown.public_bytes(pem))
    return path


@pytest.fixture
def context(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The settings of a TLS server; clients made from here on trust it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return context


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no authority of the machine takes part."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


def fetch(host: str) -> object:
    """Fetch something from ``host`` on a transport of its own, at the first attempt."""
    with Transport(host, TOKEN, request_timeout=10, retry_count=0) as transport:
        return transport.get(PATH).json()


# --------------------------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_plain_http_goes_through_the_proxy(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The whole URL is asked of the proxy, which reaches names that this machine cannot resolve."""
    proxy = serve()
    monkeypatch.setenv(variable, proxy.url)
    assert fetch("http://config.invalid:81/prefix") == {}
    assert proxy.seen == [f"GET http://config.invalid:81/prefix{PATH} HTTP/1.1 token={TOKEN}"]


def test_a_proxy_may_be_named_without_a_scheme(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """As curl allows it: plain HTTP is meant."""
    proxy = serve()
    monkeypatch.setenv("HTTP_PROXY", f"localhost:{proxy.server_port}")
    assert fetch("http://config.invalid") == {}
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_https_goes_through_a_tunnel_of_the_proxy(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext, variable: str, secured: bool
) -> None:
    """The proxy sees host and port, and nothing of the token. A proxy that speaks TLS itself means TLS within TLS."""
    service, proxy = serve(context), serve(context if secured else None)
    monkeypatch.setenv(variable, proxy.url.replace("//", f"//user:{PASSWORD}@"))
    assert fetch(service.url) == {}
    [seen] = proxy.seen
    assert seen.startswith(f"CONNECT localhost:{service.server_port} HTTP/1.1 authorization=Basic ")
    assert service.seen == [f"GET {PATH} HTTP/1.1 token={TOKEN}"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("secured", [False, True])
async def test_the_asynchronous_transport_goes_the_same_ways(
    serve: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    context: ssl.SSLContext,
    secured: bool,
    anyio_backend: str,
) -> None:
    """Proxy, tunnel, trust, exceptions, and what is told of a proxy that cannot be used."""
    service, proxy = serve(context if secured else None), serve()
    monkeypatch.setenv("ALL_PROXY", proxy.url.replace("//", f"//user:{PASSWORD}@"))
    for exception, seen in (("", 1), ("localhost", 1)):
        monkeypatch.setenv("NO_PROXY", exception)
        async with AsyncTransport(service.url, TOKEN, request_timeout=10, retry_count=0) as transport:
            assert (await transport.get(PATH)).json() == {}
        assert len(proxy.seen) == seen
    assert f"GET {PATH} HTTP/1.1 token={TOKEN}" in service.seen
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("ALL_PROXY", f"ftp://user:{PASSWORD}@proxy.test")
    with pytest.raises(ConfigClientError, match="HTTP_PROXY, HTTPS_PROXY or ALL_PROXY") as caught:
        AsyncTransport(service.url, TOKEN)
    assert PASSWORD not in str(caught.value)


def test_a_proxy_for_the_other_scheme_is_not_used(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY has no say over plain HTTP."""
    service, proxy = serve(), serve()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert fetch(service.url) == {}
    assert (len(service.seen), proxy.seen) == (1, [])


@pytest.mark.parametrize("exception", ["localhost", "*", "other.test, localhost", "LOCALHOST", "localhost:{port}"])
def test_no_proxy_is_honoured(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, exception: str) -> None:
    """Names, a star, several of them, with and without the port."""
    service, proxy = serve(), serve()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", exception.format(port=service.server_port))
    assert fetch(service.url) == {}
    assert (len(service.seen), proxy.seen) == (1, [])


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("http://config.example.com", "example.com", True),
        ("http://config.example.com", ".example.com", True),
        ("http://config.example.com:81", "config.example.com:81", True),
        ("http://config.example.com:81", "config.example.com:82", False),
        ("http://badexample.com", "example.com", False),
        ("http://10.1.2.3", "10.1.2.3", True),
        ("http://10.1.2.3", "10.1.2.4", False),
        ("http://[::1]:81", "::1", True),
        ("http://[::1]:81", "[::1]", True),
        ("http://[::2]:81", "::1", False),
        ("http://config.example.com", "", False),
    ],
)
def test_the_exceptions_are_matched_by_whole_labels(
    monkeypatch: pytest.MonkeyPatch, host: str, exceptions: str, direct: bool
) -> None:
    """Suffixes of names at a dot, addresses as they are, a port where one is given."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert _environment._proxy(base_url(host)) == (None if direct else "http://proxy.test:3128")


def test_a_proxy_that_refuses_is_told_without_its_password(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status of the proxy is the reason; neither its URL nor the token is repeated."""
    proxy = serve()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//user:{PASSWORD}@"))
    with pytest.raises(ConnectionError) as caught:
        fetch("https://refuse.test")
    assert type(caught.value.__cause__) is httpx.ProxyError
    assert str(caught.value) == "https://refuse.test: ProxyError: 407 Proxy Authentication Required"


@pytest.mark.parametrize("proxy", ["ftp://user:{}@proxy.test", "socks4://u:{}@p.test", "http://x:{}:y"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """When the client is made, not in the middle of the night; and without the URL, which may hold a password."""
    monkeypatch.setenv("HTTP_PROXY", proxy.format(PASSWORD))
    with pytest.raises(ConfigClientError, match="HTTP_PROXY, HTTPS_PROXY or ALL_PROXY") as caught:
        Transport("http://config.test", TOKEN)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_socks_proxy_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx raises an ImportError there."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:{PASSWORD}@proxy.test")
    with pytest.raises(ConfigClientError, match=r"httpx\[socks\]") as caught:
        Transport("https://config.test", TOKEN)
    assert caught.value.__cause__ is caught.value.__context__ is None


# ----------------------------------------------------------------------------------------------------------- trust


def test_an_authority_that_the_environment_names_is_trusted(
    serve: Callable[..., Server], context: ssl.SSLContext
) -> None:
    """SSL_CERT_FILE, as httpx and OpenSSL know it."""
    assert fetch(serve(context).url) == {}


def test_nobody_else_is_trusted(
    serve: Callable[..., Server], context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the same server is refused."""
    monkeypatch.delenv("SSL_CERT_FILE")
    service = serve(context)
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        fetch(service.url)
    assert service.seen == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_loaded_are_named_by_their_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """A file that is missing or holds something else; plain HTTP does not need it."""
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(ConfigClientError, match="SSL_CERT_FILE or SSL_CERT_DIR") as caught:
        Transport("https://config.test", TOKEN)
    assert caught.value.__cause__ is caught.value.__context__ is None
    Transport("http://config.test", TOKEN).close()


def test_passwords_of_the_machine_are_not_sent(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A .netrc that knows the host is none of this package's business."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine localhost login user password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    service = serve()
    assert fetch(service.url) == {}
    assert service.seen == [f"GET {PATH} HTTP/1.1 token={TOKEN}"]
