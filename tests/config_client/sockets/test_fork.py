"""Forked children: the inherited transport works on connections of its own, and the parent's are never touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import threading
import time
import traceback
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from config_client._aio_transport import AsyncTransport
from config_client._network import _TLSStream
from config_client.errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
)
from config_client.transport import Transport

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

TOKEN = "t0k3n-canary-5e1f"
PATH = "/api/v1/service/configs"
WATCH = "/api/v1/service/watch"
PATIENCE = 60
"""Seconds after which a child that hangs is killed."""


class Child:
    """A forked child at work. Its exit status is 0 if the work came to its end."""

    def __init__(self, work: Callable[[], object]) -> None:
        # For what the child is to wait for: the end of this pipe.
        waiting, self._hold = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of forking with threads, which is what is tested here.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(PATIENCE)
                os.close(self._hold)
                self.held = waiting
                work()
                os.read(waiting, 1)
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(status)
        os.close(waiting)

    def ended(self) -> int:
        """Let the child end; return its exit status, negative when it was killed."""
        os.close(self._hold)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@contextmanager
def done() -> Iterator[Callable[[], None]]:
    """Yield what a child calls to say that it is done; on leaving, wait for that, or for its end."""
    reading, writing = os.pipe()

    def tell() -> None:
        os.write(writing, b"x")

    yield tell
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)


def work_in(transport: Transport) -> None:
    """Do in a child what a client does: start over, fetch, follow a stream, close."""
    transport.abandon()
    assert transport.get(PATH).json() == {}
    with transport.stream(WATCH) as response:
        assert next(transport.chunks(response, read_timeout=10)) == b"data: 0\n\n"
    transport.close()


def failure_of(call: Callable[[], object]) -> ConfigClientError:
    """Return the error of this package that ``call`` raises."""
    with pytest.raises(ConfigClientError) as caught:
        call()
    return caught.value


class Reading:
    """A thread that reads a stream, and what it has read."""

    def __init__(self, transport: Transport) -> None:
        self.chunks: list[bytes] = []
        self.failures: list[Exception] = []
        self.read = threading.Semaphore(0)
        self._transport = transport
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._transport.stream(WATCH) as response:
                for chunk in self._transport.chunks(response, read_timeout=PATIENCE):
                    self.chunks.append(chunk)
                    self.read.release()
        except ConfigClientError as error:
            self.failures.append(error)
            self.read.release()

    def joined(self) -> list[type[Exception]]:
        """Wait for the thread; return what it ended on."""
        self._thread.join(PATIENCE)
        return [type(failure) for failure in self.failures]


@pytest.fixture(params=["plain", "tls"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    """The settings of the server: none, or with TLS."""
    context: ssl.SSLContext | None = None
    if request.param == "tls":
        context = request.getfixturevalue("trusted").context()
    return context


def test_a_child_works_while_a_thread_of_the_parent_reads_on(serve: Any, context: ssl.SSLContext | None) -> None:
    """The parent's stream is not ended by what the child does, nor by the child's end."""
    service = serve(context=context)
    with Transport(service.url, TOKEN, 10, 0, 0) as transport:
        transport.get(PATH)
        reading = Reading(transport)
        assert reading.read.acquire(timeout=PATIENCE)
        child = Child(lambda: work_in(transport))
        assert child.ended() == 0
        service.tell()
        assert reading.read.acquire(timeout=PATIENCE)
        assert reading.failures == []
        assert transport.get(PATH).json() == {}
        transport.close()
        assert reading.joined() == [ClosedError]


def test_the_end_of_the_parents_connection_is_not_kept_from_the_service_by_a_child(
    serve: Any, context: ssl.SSLContext | None
) -> None:
    """A child that lives on must not hold its copies of the parent's connections open."""
    service = serve(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", context)
    with Transport(service.url, TOKEN, 10, 0, 0) as transport:
        with transport.stream(WATCH):
            assert service.reached.acquire(timeout=PATIENCE)
            with done() as tell:

                def let_go() -> None:
                    transport.abandon()
                    tell()

                child = Child(let_go)
        # Left, the stream is closed and not shut down, which would end the child's copy too.
        assert service.left.acquire(timeout=PATIENCE)
        assert child.ended() == 0


def test_locks_that_other_threads_held_at_the_fork_are_not_waited_for(serve: Any) -> None:
    """Of the pool, of the interrupt, of the making of clients: in the child nobody would release them."""
    service = serve()
    with Transport(service.url, TOKEN, 10, 0, 0) as transport:
        transport.get(PATH)
        assert transport._own is not None
        pool = transport._own.client(0)._transport._pool  # type: ignore[attr-defined]
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with pool._optional_thread_lock, transport.interrupt._changed, transport._own._making:  # type: ignore[union-attr]
                held.set()
                release.wait(PATIENCE)

        holding = threading.Thread(target=hold)
        holding.start()
        assert held.wait(PATIENCE)
        child = Child(lambda: work_in(transport))
        assert child.ended() == 0
        release.set()
        holding.join()
        assert transport.get(PATH).json() == {}


def test_a_child_that_was_forked_within_a_stream_leaves_it_in_good_order(
    serve: Any, context: ssl.SSLContext | None
) -> None:
    """A callback forks: in the child the stream is an error at once, and the next one is the child's own.

    Another thread holds the lock of the pool meanwhile, which leaving the stream would take.
    """
    service = serve(context=context)
    with Transport(service.url, TOKEN, 10, 0, 0) as transport:
        assert transport._own is not None
        pool = transport._own.client(0)._transport._pool  # type: ignore[attr-defined]
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with pool._optional_thread_lock:
                held.set()
                release.wait(PATIENCE)

        with contextlib.ExitStack() as inside:
            response = inside.enter_context(transport.stream(WATCH))
            chunks = transport.chunks(response, read_timeout=10)
            assert next(chunks) == b"data: 0\n\n"
            holding = threading.Thread(target=hold)
            holding.start()
            assert held.wait(PATIENCE)

            def go_on() -> None:
                transport.abandon()
                assert type(failure_of(lambda: next(chunks))) is ConnectionError
                inside.close()
                work_in(transport)

            child = Child(go_on)
            assert child.ended() == 0
            release.set()
            holding.join()
            service.tell()
            assert next(chunks) == b"data: 1\n\n"


@pytest.mark.parametrize("state", ["connecting", "handshake", "pause"])
def test_a_child_goes_its_way_while_a_thread_of_the_parent_waits(
    state: str, serve: Any, trusted: Any, full_backlog: str
) -> None:
    """Wherever: the sockets that wait are copies in the child, and nobody reads them there."""
    service = serve()
    stalled = serve(lambda server, sock: server.stall(sock))
    busy = serve(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 59\r\n\r\n")
    url, reached = {
        "connecting": (full_backlog, None),
        "handshake": (stalled.url.replace("http:", "https:"), stalled.reached),
        "pause": (busy.url, busy.reached),
    }[state]
    with Transport(url, TOKEN, 10, 3, 0) as transport, ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(transport.get, PATH)
        if reached is not None:
            assert reached.acquire(timeout=PATIENCE)
        while not transport.interrupt._sockets:
            time.sleep(0.001)

        def elsewhere() -> None:
            transport.abandon()
            transport.close()
            assert type(failure_of(lambda: transport.get(PATH))) is ClosedError
            with Transport(service.url, TOKEN) as other:
                assert other.get(PATH).json() == {}

        child = Child(elsewhere)
        assert child.ended() == 0
        assert not blocked.done()
        transport.close()
        assert type(failure_of(lambda: blocked.result(timeout=PATIENCE))) is ClosedError


def test_a_fork_waits_until_no_thread_is_inside_openssl() -> None:
    """Its locks would be copied as they are then, and the child would wait for ever to make a context of its own."""
    entered, leave = threading.Event(), threading.Event()
    inside = [False]

    class Handshake:
        def wrap_bio(self, *_: object, **__: object) -> Handshake:
            return self

        def do_handshake(self) -> None:
            inside[0] = True
            entered.set()
            leave.wait(PATIENCE)
            inside[0] = False

    with ThreadPoolExecutor(1) as pool:
        shaking = pool.submit(_TLSStream, None, Handshake(), "localhost", 10)  # type: ignore[arg-type]
        assert entered.wait(PATIENCE)
        later = threading.Timer(0.1, leave.set)
        later.start()
        child = Child(lambda: os._exit(int(inside[0])))
        assert child.ended() == 0
        shaking.result(PATIENCE)
        later.join()


def test_a_client_of_the_callers_is_refused_in_a_child(serve: Any) -> None:
    """It may hold connections and locks of the parent's; the parent goes on with it."""
    service = serve()
    with httpx.Client() as client, Transport(service.url, TOKEN, http_client=client) as transport:
        transport.get(PATH)
        reading = Reading(transport)
        assert reading.read.acquire(timeout=PATIENCE)

        def refused() -> None:
            transport.abandon()
            for call in (
                lambda: transport.get(PATH),
                lambda: transport.fetch(PATH, retry=False),
                lambda: transport.stream(WATCH).__enter__(),
            ):
                error = failure_of(call)
                assert type(error) is ConfigClientError
                assert "after the fork" in str(error) or "before the fork" in str(error)
            transport.close()

        assert Child(refused).ended() == 0
        service.tell()
        assert reading.read.acquire(timeout=PATIENCE)
        assert reading.failures == []
        assert transport.get(PATH).json() == {}
        transport.close()
        assert reading.joined() == [ClosedError]


def test_a_transport_that_was_closed_before_the_fork_stays_closed(serve: Any) -> None:
    """In the child as in the parent."""
    service = serve()
    transport = Transport(service.url, TOKEN)
    transport.close()

    def closed() -> None:
        transport.abandon()
        assert transport.closed
        assert type(failure_of(lambda: transport.get(PATH))) is ClosedError

    assert Child(closed).ended() == 0


def test_a_transport_may_start_over_in_its_own_process(serve: Any, context: ssl.SSLContext | None) -> None:
    """The same object goes on, with connections of its own: twice, since children fork too."""
    service = serve(context=context)
    with Transport(service.url, TOKEN) as transport:
        for connections in (1, 2, 3):
            assert transport.get(PATH).json() == {}
            assert transport.get(PATH).json() == {}
            assert service.connections == connections
            transport.abandon()


# ----------------------------------------------------------------------------------------------------------- tasks


async def events(transport: AsyncTransport) -> AsyncGenerator[bytes, None]:
    """Yield what a stream brings."""
    async with (
        transport.stream(WATCH) as response,
        contextlib.aclosing(transport.chunks(response, read_timeout=PATIENCE)) as chunks,
    ):
        async for chunk in chunks:
            yield chunk


async def work_with_tasks(transport: AsyncTransport) -> None:
    """Do in a child what an asynchronous client does."""
    transport.abandon()
    assert (await transport.get(PATH)).json() == {}
    async with contextlib.aclosing(events(transport)) as stream:
        assert await stream.__anext__() == b"data: 0\n\n"
    await transport.aclose()


def on_a_loop_of_its_own(transport: AsyncTransport) -> None:
    """Run that in a child, whose own thread is inside the parent's loop."""
    asyncio.events._set_running_loop(None)
    asyncio.run(work_with_tasks(transport))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_child_of_an_event_loop_has_connections_of_its_own(
    serve: Any, context: ssl.SSLContext | None, anyio_backend: str
) -> None:
    """Its selector is the parent's too, so that closing a connection the usual way would deafen the parent."""
    service = serve(context=context)
    async with AsyncTransport(service.url, TOKEN, 10, 0, 0) as transport:
        assert (await transport.get(PATH)).json() == {}
        async with contextlib.aclosing(events(transport)) as stream:
            assert await stream.__anext__() == b"data: 0\n\n"
            assert Child(lambda: on_a_loop_of_its_own(transport)).ended() == 0
            service.tell()
            assert await stream.__anext__() == b"data: 1\n\n"
            assert (await transport.get(PATH)).json() == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_child_of_an_event_loop_holds_no_connection_open(
    serve: Any, context: ssl.SSLContext | None, anyio_backend: str
) -> None:
    """The parent closes, and the service hears of it while the child lives."""
    service = serve(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", context)
    transport = AsyncTransport(service.url, TOKEN, 10, 0, 0)
    async with transport.stream(WATCH):
        assert service.reached.acquire(timeout=PATIENCE)
        with done() as tell:

            def let_go() -> None:
                transport.abandon()
                tell()

            child = Child(let_go)
    await transport.aclose()
    assert service.left.acquire(timeout=PATIENCE)
    assert child.ended() == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_an_asynchronous_client_of_the_callers_is_refused_in_a_child(serve: Any, anyio_backend: str) -> None:
    """As on threads."""
    service = serve()
    async with httpx.AsyncClient() as client:
        transport = AsyncTransport(service.url, TOKEN, http_client=client)
        await transport.get(PATH)

        async def refused() -> None:
            transport.abandon()
            with pytest.raises(ConfigClientError, match="before the fork"):
                await transport.get(PATH)

        def run() -> None:
            asyncio.events._set_running_loop(None)
            asyncio.run(refused())

        assert Child(run).ended() == 0
        assert (await transport.get(PATH)).json() == {}
