"""The asynchronous transport on real sockets: TLS, timeouts, closing from any state, and nothing left behind."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from stopwatch import stopwatch

from config_client._aio_network import AbandonableTransport
from config_client._aio_transport import AsyncTransport
from config_client.errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
)

pytestmark = pytest.mark.anyio

TOKEN = "t0k3n-canary-5e1f"
PATH = "/api/v1/service/configs"
WATCH = "/api/v1/service/watch"
ROUNDS = 20
"""Times that closing is measured from each state."""
LIMIT = 0.1
"""Seconds that closing may take."""
PATIENCE = 60.0
"""Seconds that nothing really takes."""

OK = b"HTTP/1.1 200 OK\r\n"
STREAM = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 59\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


async def failure_of(call: Awaitable[object]) -> ConfigClientError:
    """Return the error that ``call`` raises: one of this package's, from which no token can be reached."""
    with pytest.raises(ConfigClientError) as caught:
        await call
    error: BaseException | None = caught.value
    while error is not None:
        assert TOKEN not in str(error) + repr(error) + repr(vars(error))
        assert error.__context__ in {None, error.__cause__}
        error = error.__cause__
    return caught.value


async def get(transport: AsyncTransport) -> None:
    """Fetch something."""
    await transport.get(PATH)


async def read_stream(transport: AsyncTransport) -> None:
    """Read an event stream until it ends."""
    async with transport.stream(WATCH) as response:
        async for _ in transport.chunks(response, read_timeout=PATIENCE):
            pass


async def reached(server: Any) -> None:
    """Wait until the script of ``server`` says that it has come to its point."""
    assert await anyio.to_thread.run_sync(lambda: server.reached.acquire(timeout=PATIENCE))
    # What the server has sent is read by then: tasks run until each of them waits.
    await anyio.wait_all_tasks_blocked()


# -------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("secured", [False, True])
async def test_requests_share_a_connection(serve: Any, trusted: Any, secured: bool) -> None:
    """Keep-alive works over our own backend, with TLS and without."""
    service = serve(context=trusted.context() if secured else None)
    async with AsyncTransport(service.url, TOKEN) as transport:
        for _ in range(3):
            assert (await transport.get(PATH)).json() == {}
    assert service.connections == 1
    assert all(f"X-Service-Token: {TOKEN}".encode() in request for request in service.requests)


async def test_events_arrive_as_they_are_sent(serve: Any) -> None:
    """Each in its own chunk."""
    service = serve()
    async with (
        AsyncTransport(service.url, TOKEN) as transport,
        transport.stream(WATCH) as response,
        contextlib.aclosing(transport.chunks(response, read_timeout=PATIENCE)) as chunks,
    ):
        assert await chunks.__anext__() == b"data: 0\n\n"
        service.tell()
        assert await chunks.__anext__() == b"data: 1\n\n"


async def test_more_streams_than_a_stock_pool_holds_are_open_at_once(serve: Any) -> None:
    """A pool of 100 connections would block the 101st."""
    service = serve()
    async with AsyncTransport(service.url, TOKEN) as transport, contextlib.AsyncExitStack() as stack:
        for _ in range(105):
            await stack.enter_async_context(transport.stream(WATCH))
        assert service.connections == 105


async def test_an_untrusted_certificate_is_a_connection_error(serve: Any, certificate: Any) -> None:
    """And no request is sent."""
    service = serve(context=certificate.context())
    async with AsyncTransport(service.url, TOKEN, retry_count=0) as transport:
        error = await failure_of(transport.get(PATH))
    assert "certificate verify failed" in str(error)
    assert service.requests == []


async def test_the_next_host_is_reached_when_one_refuses(serve: Any) -> None:
    """Nobody listens at the first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}"
    service = serve()
    async with AsyncTransport([nowhere, service.url], TOKEN, retry_count=0) as transport:
        assert (await transport.get(PATH)).json() == {}
        error = await failure_of(transport.fetch(PATH, host=0))
    assert str(error).startswith(f"{nowhere}: ConnectError")


# -------------------------------------------------------------------------------------------------------- timeouts


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", OK + b"Content-Length: 9\r\n\r\n{"])
async def test_reading_ends_by_its_timeout(serve: Any, sent: bytes) -> None:
    """Before the answer, within its head, within its body."""
    service = serve(sent)
    async with AsyncTransport(service.url, TOKEN, 0.2, 0) as transport:
        error = await failure_of(transport.get(PATH))
    assert type(error) is ConnectionError
    assert type(error.__cause__) is httpx.ReadTimeout


async def test_connecting_ends_by_its_timeout(full_backlog: str) -> None:
    """A host that does not answer."""
    async with AsyncTransport(full_backlog, TOKEN, 0.2, 0) as transport:
        assert type((await failure_of(transport.get(PATH))).__cause__) in {httpx.ConnectTimeout, httpx.ReadTimeout}


async def test_a_head_that_only_drips_is_given_up_after_the_request_timeout(serve: Any) -> None:
    """Each byte arrives in time, the whole does not. Streams are opened within it too."""

    def drip(server: Any, sock: socket.socket) -> None:
        server.request(sock)
        sock.sendall(OK)
        while True:
            sock.sendall(b"X-Pad: x\r\n")
            time.sleep(0.02)

    service = serve(drip)
    async with AsyncTransport(service.url, TOKEN, 0.2, 0) as transport:
        for call in (get, read_stream):
            with anyio.fail_after(PATIENCE):
                assert type((await failure_of(call(transport))).__cause__) is httpx.ReadTimeout


async def test_a_silent_stream_ends_by_its_own_timeout(serve: Any) -> None:
    """It may be silent for longer than a request may take, and not for longer than its heartbeat."""
    service = serve()
    async with AsyncTransport(service.url, TOKEN, 0.2) as transport, transport.stream(WATCH) as response:
        chunks = transport.chunks(response, read_timeout=0.5)
        assert await chunks.__anext__() == b"data: 0\n\n"
        started = time.monotonic()
        assert type((await failure_of(chunks.__anext__())).__cause__) is httpx.ReadTimeout
        assert time.monotonic() - started > 0.4


# --------------------------------------------------------------------------------------------------------- closing

Blocked = Callable[[AsyncTransport], Awaitable[None]]
STATES: dict[str, tuple[str, bytes | None, Blocked]] = {
    "handshake": ("https-stalled", None, get),
    "first byte": ("http", b"", get),
    "first byte over TLS": ("https", b"", get),
    "head": ("http", OK + b"Content-", get),
    "body": ("http", OK + b"Content-Length: 9\r\n\r\n{", get),
    "body over TLS": ("https", OK + b"Content-Length: 9\r\n\r\n{", get),
    "body without length": ("http", OK + b"Connection: close\r\n\r\n{", get),
    "pause": ("http", BUSY, get),
    "idle stream": ("http", STREAM + b"9\r\ndata: 1\n\n\r\n", read_stream),
    "idle stream over TLS": ("https", STREAM + b"9\r\ndata: 1\n\n\r\n", read_stream),
    "within an event": ("http", STREAM + b"9\r\ndata:", read_stream),
    "stream without head": ("http", b"", read_stream),
}


async def closing(transport: AsyncTransport, block: Blocked, ready: Callable[[], Awaitable[None]]) -> float:
    """Close while a task is blocked; return the seconds until it is closed with nobody left inside."""
    told: list[ConfigClientError] = []

    async def run() -> None:
        told.append(await failure_of(block(transport)))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await ready()
            with stopwatch() as took:
                await transport.aclose()
                inside = bool(transport._inside)
            seconds = LIMIT if inside else took.seconds
    assert [type(error) for error in told] == [ClosedError]
    return seconds


def within_the_limit(seconds: list[float]) -> None:
    """Assert that closing was prompt: all but one of the rounds, which the machine may have been busy in."""
    assert sorted(seconds)[-2] < LIMIT
    assert sorted(seconds)[len(seconds) // 2] < LIMIT / 2


# On a caller's client, httpcore leaves the socket of a cancelled handshake to the garbage collector.
@pytest.mark.parametrize(
    ("state", "callers"),
    [(state, callers) for state in STATES for callers in (False, True) if (state, callers) != ("handshake", True)],
)
async def test_close_is_prompt_and_leaves_nothing(
    state: str, callers: bool, serve: Any, trusted: Any, sockets: Callable[[], int]
) -> None:
    """Within 100 ms from any state, on a caller's client too; the blocked task gets ClosedError."""
    scheme, sent, block = STATES[state]
    service = serve(
        sent if sent is not None else lambda server, sock: server.stall(sock),
        trusted.context() if scheme == "https" else None,
    )
    url = service.url.replace("http:", "https:") if scheme == "https-stalled" else service.url
    before, seconds = sockets(), []
    for _ in range(ROUNDS):
        client = httpx.AsyncClient(timeout=PATIENCE) if callers else None
        transport = AsyncTransport(url, TOKEN, PATIENCE, 3, 0, client)
        seconds.append(await closing(transport, block, lambda: reached(service)))
        if client is not None:
            assert not client.is_closed
            await client.aclose()
        assert await anyio.to_thread.run_sync(lambda: service.left.acquire(timeout=PATIENCE))
    within_the_limit(seconds)
    # A stream that is closed by one task may be let go by the other a moment later.
    await anyio.wait_all_tasks_blocked()
    assert sockets() == before


async def test_close_is_prompt_while_connecting(full_backlog: str, sockets: Callable[[], int]) -> None:
    """A host that does not answer."""
    before, seconds = sockets(), []
    for _ in range(ROUNDS):
        transport = AsyncTransport(full_backlog, TOKEN, PATIENCE, 3, 0)
        seconds.append(await closing(transport, get, anyio.wait_all_tasks_blocked))
    within_the_limit(seconds)
    assert sockets() == before


async def test_a_stream_that_nobody_reads_is_closed_too(serve: Any) -> None:
    """Its task is busy elsewhere; the next read tells it."""
    service = serve(STREAM)
    transport = AsyncTransport(service.url, TOKEN)
    async with transport.stream(WATCH) as response:
        await reached(service)
        await transport.aclose()
        assert await anyio.to_thread.run_sync(lambda: service.left.acquire(timeout=PATIENCE))
        chunks = transport.chunks(response, read_timeout=PATIENCE)
        assert type(await failure_of(chunks.__anext__())) is ClosedError


# ------------------------------------------------------------------------------------- the backend's own surface


async def test_a_stock_client_may_use_the_network_alone(serve: Any, trusted: Any) -> None:
    """``AbandonableTransport`` is an httpx transport like any other; connections that are gone are not remembered."""
    context = httpx.create_ssl_context()
    service = serve(context=trusted.context())
    async with httpx.AsyncClient(transport=AbandonableTransport(context, None)) as stock:
        network = stock._transport
        assert isinstance(network, AbandonableTransport)
        assert (await stock.get(f"{service.url}/x")).json() == {}
        [stream] = network._backend._streams
        assert stream.descriptor() is not None
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"  # type: ignore[attr-defined]
    assert stream.descriptor() is None
    assert len(network._backend._streams) == 0
    await network._backend.sleep(0)


async def test_a_number_that_was_given_to_another_file_is_let_be(serve: Any) -> None:
    """Some event loops go on telling the descriptor of a socket that is closed."""
    service = serve()
    async with httpx.AsyncClient(transport=AbandonableTransport(httpx.create_ssl_context(), None)) as stock:
        await stock.get(f"{service.url}/x")
        network = stock._transport
        assert isinstance(network, AbandonableTransport)
        [stream] = network._backend._streams
        opened, (one, other) = stream._stream, socket.socketpair()
        with one, other:
            stream._stream = Renumbered(one)  # type: ignore[assignment]
            assert stream.descriptor() is None
            network.abandon()
            other.sendall(b"x")
            assert one.recv(1) == b"x"
        stream._stream = opened


class Renumbered:
    """A stream whose socket tells the number of another file."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def get_extra_info(self, info: str) -> object:
        return self._socket if info == "socket" else None
