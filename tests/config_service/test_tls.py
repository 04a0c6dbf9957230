"""TLS and mutual TLS on real sockets, with certificates made here, and with our own SDK."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from config_client import ConfigClient, Options
from config_client.errors import ConnectionError as UnreachableError
from config_service.cli.program import program
from config_service.domain.keys import ConfigKey
from config_service.process import ServiceProcess
from config_service.server import ListenError, run
from config_service.settings import Settings
from config_service.tls import Tls, TlsError, TlsFiles

WATCH = "/api/v1/service/configs/orders/watch"
CANARY = "canary-7c1e"


class Authority:
    """Signs certificates; each call of ``issue`` leaves a certificate and its key in files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._count = 0
        certificate = self._sign(name, self._key, authority=True)
        self.file = directory / f"{name}.crt"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        self._count += 1
        stem = self._directory / f"{self._name}-{name}-{self._count}"
        certificate = self._sign(name, key, authority=False)
        stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        stem.with_suffix(".key").write_bytes(pem)
        return stem.with_suffix(".crt"), stem.with_suffix(".key")

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, authority, authority, False, False), critical=True
            )
        )
        if not authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@dataclass
class World:
    """Who signs for the service, who signs for clients, and what they have signed."""

    servers: Authority
    clients: Authority
    strangers: Authority
    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": str(self.certificate), "tls_key": str(self.key)}

    def trusting(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts the service, and shows a certificate if it has one."""
        context = ssl.create_default_context(cafile=self.servers.file)
        if client is not None:
            context.load_cert_chain(*client)
        return context


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("certificates")
    servers, clients, strangers = (Authority(directory, name) for name in ("servers", "clients", "strangers"))
    return World(servers, clients, strangers, *servers.issue("service"))


@contextmanager
def connected(
    address: tuple[str, int], context: ssl.SSLContext, *, receive_buffer: int | None = None
) -> Iterator[ssl.SSLSocket]:
    with closing(socket.socket()) as plain:
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(20)
        plain.connect(address)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
            yield wrapped


def serial_of(address: tuple[str, int], context: ssl.SSLContext) -> str:
    with connected(address, context) as connection:
        return str(connection.getpeercert()["serialNumber"])  # type: ignore[index]


def subscribes(url: str, service: Any, http_client: httpx.Client | None = None) -> None:
    """Get a value by the SDK, see it change, and close."""
    access = {"service_token": service.reader.secret, "encryption_key": service.reader.key.hex()}
    options = Options(host=url, http_client=http_client, retry_count=0, **access)
    with ConfigClient(options) as client:
        assert client.get_raw("orders") == {"n": 1}
        subscription = client.subscribe("orders", dict, timeout=20)
        service.publish(b'{"n": 2}')
        assert subscription.snapshot.wait_for(version=2, timeout=20)
        assert subscription.snapshot.load() == {"n": 2}


@pytest.mark.e2e
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_sdk_reads_and_watches_over_tls(
    begin: Callable[..., Any], world: World, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """On its own connections, trusting whom SSL_CERT_FILE names; on both kinds of event loop."""
    if loop == "asyncio":
        monkeypatch.setattr(uvicorn.Config, "get_loop_factory", lambda _: asyncio.SelectorEventLoop)
    service = begin(**world.settings)
    service.publish(b'{"n": 1}')
    monkeypatch.setenv("SSL_CERT_FILE", str(world.servers.file))
    subscribes(service.url.replace("http://", "https://"), service)


@pytest.mark.e2e
def test_the_sdk_trusts_nobody_unknown(begin: Callable[..., Any], world: World) -> None:
    """A service whose certificate nobody known has signed gets no token."""
    service = begin(**world.settings)
    url = service.url.replace("http://", "https://")
    access = {"service_token": service.reader.secret, "encryption_key": service.reader.key.hex()}
    with (
        ConfigClient(Options(host=url, retry_count=0, **access)) as client,
        pytest.raises(UnreachableError, match="certificate"),
    ):
        client.get_raw("orders")


@pytest.mark.e2e
def test_mutual_tls_asks_for_a_certificate_and_for_a_token(begin: Callable[..., Any], world: World) -> None:
    """Without a certificate, or with a stranger's, nothing is answered; with one, the token counts as ever."""
    service = begin(**world.settings, tls_client_ca=str(world.clients.file))
    service.publish(b'{"n": 1}')
    url = service.url.replace("http://", "https://")
    for shown in (None, world.strangers.issue("mallory"), world.servers.issue("not-a-client")):
        with httpx.Client(verify=world.trusting(shown)) as client, pytest.raises(httpx.TransportError):
            client.get(f"{url}/healthz")
    with httpx.Client(verify=world.trusting(world.clients.issue("alice"))) as client:
        assert client.get(f"{url}/healthz").status_code == 200
        assert client.get(f"{url}/api/v1/service/configs").status_code == 401
        subscribes(url, service, client)


@pytest.mark.e2e
def test_commands_come_with_a_certificate_of_their_operator(begin: Callable[..., Any], world: World) -> None:
    """Named by the environment, for a service on this machine, too; without one, or with a broken one, it is told."""
    service = begin(**world.settings, tls_client_ca=str(world.clients.file))
    service.publish(b'{"n": 1}')
    certificate, key = world.clients.issue("operator")
    known = {
        "CONFIG_SERVER_URL": service.url.replace("http://", "https://"),
        "CONFIG_SERVER_TOKEN": service.admin.secret,
        "CONFIG_SERVER_CA": str(world.servers.file),
    }
    shown = known | {"CONFIG_SERVER_CLIENT_CERT": str(certificate), "CONFIG_SERVER_CLIENT_KEY": str(key)}
    without = dict.fromkeys(("SSL_CERT_FILE", "CONFIG_SERVER_CLIENT_CERT", "CONFIG_SERVER_CLIENT_KEY"))
    listed = CliRunner(env={**without, **shown}).invoke(program, ["list"])
    assert (listed.exit_code, "orders" in listed.stdout) == (0, True)
    assert CliRunner(env={**without, **known}).invoke(program, ["list"]).exit_code == 7
    broken = CliRunner(env={**without, **shown, "CONFIG_SERVER_CLIENT_KEY": str(certificate)}).invoke(program, ["list"])
    assert (broken.exit_code, "CONFIG_SERVER_CLIENT_KEY" in broken.stderr) == (2, True)


@pytest.mark.e2e
@pytest.mark.long
def test_a_stream_over_tls_is_cut_when_it_does_not_keep_up(begin: Callable[..., Any], world: World) -> None:
    """It has taken its connection over, encryption included; another stream hears everything in order."""
    service = begin(**world.settings, send_buffer=4096, queue_frames=8, heartbeat_interval=60.0)
    key = ConfigKey("orders", "e" * 128, "l" * 128)
    service.publish(b'{"n": 0}', key)
    lines = (f"GET {WATCH}?label={key.label} HTTP/1.1", "Host: x", f"X-Service-Token: {service.reader.secret}", "", "")
    context = world.trusting()
    with (
        connected(service.address, context, receive_buffer=4096) as slow,
        connected(service.address, context) as fast,
    ):
        heard = b""
        for one in (slow, fast):
            one.sendall("\r\n".join(lines).encode())
            assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
        number = 0
        while len(service.app._hub) == 2:
            number += 1
            assert number < 5000, "the slow reader was never cut"
            service.publish(b'{"n": %d}' % number, key)
            while b'"version":%d,' % (number + 1) not in heard:
                part = fast.recv(65536)
                assert part, "the fast reader was cut"
                heard = (heard + part)[-100_000:]
        # More than its queue was on the way, in the buffers of both ends; it ends in the middle of something.
        assert number > 8


@pytest.mark.e2e
def test_the_service_speaks_tls_alone_and_none_of_its_old_versions(begin: Callable[..., Any], world: World) -> None:
    """No plain HTTP on the same port; nothing below 1.2; HSTS; and a stop does not wait for anybody's goodbye."""
    service = begin(**world.settings)
    with closing(socket.create_connection(service.address, timeout=20)) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/" not in plain.recv(65536)
    old = world.trusting()
    # Whether the client's own OpenSSL would go as low is not the point: it offers nothing above.
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        serial_of(service.address, old)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = world.trusting()
        context.minimum_version = context.maximum_version = version
        with connected(service.address, context) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            head = connection.recv(65536)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"strict-transport-security: max-age=31536000\r\n" in head
    with connected(service.address, world.trusting()):
        service.stop()


@pytest.mark.e2e
def test_half_a_handshake_is_cut_after_its_time(begin: Callable[..., Any], world: World) -> None:
    """It takes a connection as half a head does."""
    service = begin(**world.settings, head_timeout=0.3)
    with closing(socket.create_connection(service.address, timeout=20)) as plain:
        plain.sendall(b"\x16\x03\x01")
        assert plain.recv(1) == b""


@pytest.mark.e2e
def test_a_new_certificate_is_used_without_a_restart(begin: Callable[..., Any], world: World, tmp_path: Path) -> None:
    """Streams go on; files that do not fit together change nothing; until then the old one is shown."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    first, second = world.servers.issue("first"), world.servers.issue("second")

    def install(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, (certificate, key), strict=True):
            beside = target.with_suffix(".new")
            beside.write_bytes(source.read_bytes())
            beside.replace(target)

    install(first)
    service = begin(tls_cert=str(certificate), tls_key=str(key), heartbeat_interval=0.05)
    service.publish(b'{"n": 0}')
    tls: Tls = service.server._tls
    before = serial_of(service.address, world.trusting())
    with connected(service.address, world.trusting()) as stream:
        stream.sendall(f"GET {WATCH} HTTP/1.1\r\nHost: x\r\nX-Service-Token: {service.reader.secret}\r\n\r\n".encode())
        stream.recv(65536)
        assert not tls.reload_if_changed()
        install((second[0], first[1]))
        assert not tls.reload_if_changed(), "a certificate and the key of another"
        assert serial_of(service.address, world.trusting()) == before
        install(second)
        assert tls.reload_if_changed()
        assert not tls.reload_if_changed()
        assert serial_of(service.address, world.trusting()) != before
        service.publish(b'{"n": 1}')
        heard = b""
        while b"config_changed" not in heard:
            part = stream.recv(65536)
            assert part
            heard += part


@pytest.mark.e2e
@pytest.mark.long
def test_sighup_makes_the_service_look_at_once(tmp_path: Path, world: World) -> None:
    """As `config-service serve` runs it: it tells its URL with https, and the signal does not end it."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(world.certificate.read_bytes())
    key.write_bytes(world.key.read_bytes())
    with ServiceProcess(tmp_path, {"TLS_CERT": str(certificate), "TLS_KEY": str(key)}) as process:
        assert process.url.startswith("https://127.0.0.1:")
        url = httpx.URL(process.url)
        address = (url.host, url.port or 0)
        before = serial_of(address, world.trusting())
        for source, target in zip(world.servers.issue("next"), (certificate, key), strict=True):
            target.write_bytes(source.read_bytes())
        child = process._child
        assert child is not None
        child.send_signal(signal.SIGHUP)
        for _ in range(2000):
            if serial_of(address, world.trusting()) != before:
                break
        assert serial_of(address, world.trusting()) != before
        assert child.poll() is None


def broken(directory: Path, world: World) -> dict[str, tuple[TlsFiles, str]]:
    """Return files that cannot be used, with the setting that the error has to name."""
    text = directory / "text.pem"
    text.write_text(CANARY)
    locked = directory / "locked.key"
    key = ec.generate_private_key(ec.SECP256R1())
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    other = world.servers.issue("other")
    return {
        "no certificate": (TlsFiles(directory / "none", world.key), "TLS_CERT"),
        "no key": (TlsFiles(world.certificate, directory / "none"), "TLS_KEY"),
        "no PEM": (TlsFiles(text, world.key), "TLS_CERT"),
        "key of another": (TlsFiles(world.certificate, other[1]), "TLS_KEY"),
        "key with a password": (TlsFiles(world.certificate, locked), "TLS_KEY"),
        "no CA": (TlsFiles(world.certificate, world.key, directory / "none"), "TLS_CLIENT_CA"),
        "CA that is no PEM": (TlsFiles(world.certificate, world.key, text), "TLS_CLIENT_CA"),
    }


def test_files_that_cannot_be_used_are_named_and_not_told(tmp_path: Path, world: World) -> None:
    """Before anything is served, without asking for a password, and without a word of what is in them."""
    for files, named in broken(tmp_path, world).values():
        with pytest.raises(TlsError, match=f"CONFIG_SERVER_{named}") as told:
            Tls(files)
        assert CANARY not in str(told.value)
        assert told.value.__context__ is None


def test_a_reload_that_fails_is_logged_and_changes_nothing(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each time that the files changed, not one for each look."""
    certificate = tmp_path / "tls.crt"
    certificate.write_bytes(world.certificate.read_bytes())
    tls = Tls(TlsFiles(certificate, world.key))
    certificate.unlink()
    with caplog.at_level(logging.ERROR):
        assert [tls.reload_if_changed() for _ in range(3)] == [False] * 3
    assert len(caplog.messages) == 1
    certificate.write_bytes(world.certificate.read_bytes())
    assert tls.reload_if_changed()
    assert tls.reload(), "asked for by the signal"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_addresses_than_loopback_are_not_served_in_plain_text(host: str, tmp_path: Path) -> None:
    """Unless told that something else protects the way; the sentence names both ways out."""
    if host == "::" and not socket.has_ipv6:
        host = "0.0.0.0"
    settings = Settings.load(master_key="5a" * 32, host=host, port=0, store_url=f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(ListenError, match=r"TLS_CERT.*ALLOW_PLAIN_HTTP"):
        run(settings)


def test_told_to_it_is(tmp_path: Path) -> None:
    """As in a container whose port stays on the machine."""

    class Reached(Exception):  # noqa: N818 - ends the start
        pass

    async def prepare(_operations: object) -> None:
        raise Reached

    settings = Settings.load(
        master_key="5a" * 32, host="0.0.0.0", port=0, store_url=f"sqlite:///{tmp_path / 'x.db'}", allow_plain_http=True
    )
    with pytest.raises(Reached):
        run(settings, prepare=prepare)
