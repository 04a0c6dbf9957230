"""The proxy does to connections what it says: a suite whose faults did nothing would pass for ever."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from .proxy import Fault, Kind, LoopThread, Proxy

pytestmark = pytest.mark.integration

SECONDS = 10.0
BEYOND = 0.3
"""Seconds in which nothing comes."""
STREAM = b"POST /api/v1/service/watch HTTP/1.1\r\n\r\n"
GET = b"GET /api/v1/service/configs/orders HTTP/1.1\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Upstream:
    """Answers every connection with a head and its number, and then repeats what it is sent."""

    def __init__(self, carrier: LoopThread) -> None:
        self.heard: list[bytes] = []
        self._carrier = carrier
        self._tasks: set[asyncio.Task[object]] = set()
        self._server = carrier.run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """End everything."""
        self._carrier.run(self._end())

    async def _end(self) -> None:
        self._server.close()
        # What was accepted begins to be served in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while data := await reader.read(65536):
                if data.endswith(b"HTTP/1.1\r\n\r\n"):
                    self.heard.append(data)
                    writer.write(HEAD + b"%03d" % len(self.heard) + b"." * 300)
                else:
                    writer.write(data)
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


@pytest.fixture
def carrier() -> Iterator[LoopThread]:
    """Run a loop for proxy and upstream."""
    with LoopThread("proxy") as carrier:
        yield carrier


@pytest.fixture
def upstream(carrier: LoopThread) -> Iterator[Upstream]:
    """Run what the proxy stands before."""
    upstream = Upstream(carrier)
    yield upstream
    upstream.close()


@pytest.fixture
def proxy(carrier: LoopThread, upstream: Upstream) -> Iterator[Proxy]:
    """Run a proxy."""
    proxy = Proxy(carrier, upstream.url)
    yield proxy
    proxy.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    """Return a connection on which a stream has begun."""
    with connected(proxy) as sock:
        sock.sendall(STREAM)
        assert received(sock, 322) == HEAD + b"001" + b"." * 300
        assert proxy.wait_for_streams(1)
        yield sock


def connected(proxy: Proxy) -> socket.socket:
    """Return a connection to the proxy."""
    return socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])), timeout=SECONDS)


def received(sock: socket.socket, count: int) -> bytes:
    """Return the next ``count`` bytes, or fewer when the connection ends."""
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def is_silent(sock: socket.socket) -> bool:
    """Tell whether nothing comes, not even an end."""
    sock.settimeout(BEYOND)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(SECONDS)
    return False


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.REFUSE, Kind.REPLAY, Kind.TWICE, Kind.UNAVAILABLE, Kind.BLOCKED])
def test_open_connections_are_reset(proxy: Proxy, client: socket.socket, kind: Kind) -> None:
    """Not ended in good order, which a client could take for the end of the answer."""
    proxy.apply(Fault(kind))
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_nothing_listens_until_it_is_healed_and_then_at_the_same_port(proxy: Proxy) -> None:
    """REFUSE: the port stays this proxy's meanwhile."""
    proxy.apply(Fault(Kind.REFUSE))
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.heal()
    with connected(proxy) as sock:
        sock.sendall(GET)
        assert received(sock, 19) == HEAD


def test_what_is_stalled_arrives_late(proxy: Proxy, client: socket.socket) -> None:
    """STALL: nothing passes, and nothing is lost."""
    proxy.apply(Fault(Kind.STALL))
    client.sendall(b"ping")
    assert is_silent(client)
    proxy.heal()
    assert received(client, 4) == b"ping"


def test_a_half_open_connection_stays_so(proxy: Proxy, client: socket.socket, upstream: Upstream) -> None:
    """HALF_OPEN: what is sent is lost, even the end of the service, and healing helps new connections only."""
    proxy.apply(Fault(Kind.HALF_OPEN))
    client.sendall(b"ping")
    proxy.heal()
    assert is_silent(client)
    upstream.close()
    assert is_silent(client)


def test_an_answer_is_cut_after_so_many_bytes(proxy: Proxy, client: socket.socket) -> None:
    """TRUNCATE: in the middle of whatever it is."""
    proxy.apply(Fault(Kind.TRUNCATE, 6))
    client.sendall(b"0123456789")
    assert received(client, 10) == b"012345"


def test_a_drip_is_complete(proxy: Proxy, client: socket.socket) -> None:
    """DRIP: a byte at a time, all of them."""
    proxy.apply(Fault(Kind.DRIP, 1))
    client.sendall(b"0123456789")
    assert received(client, 10) == b"0123456789"
    # One for each byte, in each direction.
    assert proxy.bites[Kind.DRIP] == 20


def test_a_replay_is_what_an_earlier_stream_began_with(proxy: Proxy, client: socket.socket, upstream: Upstream) -> None:
    """REPLAY: byte for byte, and then it ends; the service does not hear of the request."""
    client.close()
    assert proxy.wait_until_open(0, SECONDS)
    proxy.apply(Fault(Kind.REPLAY))
    with connected(proxy) as again:
        again.sendall(STREAM)
        assert received(again, 1000) == HEAD + b"001" + b"." * 300
    assert len(upstream.heard) == 1


def test_a_request_is_made_twice(proxy: Proxy, upstream: Upstream) -> None:
    """TWICE: the service answers both, the client sees one answer."""
    proxy.apply(Fault(Kind.TWICE))
    with connected(proxy) as sock:
        sock.sendall(GET)
        assert received(sock, 19) == HEAD
        assert received(sock, 303)[:3] in {b"001", b"002"}
        assert is_silent(sock)
    assert upstream.heard == [GET, GET]


@pytest.mark.parametrize(
    ("kind", "stream", "get"), [(Kind.UNAVAILABLE, b"503", b"503"), (Kind.BLOCKED, b"502", b"200")]
)
def test_requests_are_refused(proxy: Proxy, kind: Kind, stream: bytes, get: bytes) -> None:
    """UNAVAILABLE: all of them; BLOCKED: those for streams."""
    proxy.apply(Fault(kind))
    for request, status in ((STREAM, stream), (GET, get)):
        with connected(proxy) as sock:
            sock.sendall(request)
            assert received(sock, 12) == b"HTTP/1.1 " + status


def test_a_base_service_knows_no_state_first_stream(proxy: Proxy) -> None:
    """``base_only``: that one route is missing."""
    proxy.base_only = True
    for request, status in ((STREAM, b"404"), (GET, b"200")):
        with connected(proxy) as sock:
            sock.sendall(request)
            assert received(sock, 12) == b"HTTP/1.1 " + status
