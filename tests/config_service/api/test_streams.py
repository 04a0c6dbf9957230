"""A subscription as an event stream, against servers that behave in every way a server can."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config_service.api import streams
from config_service.api.streams import TRANSPORT_EXTENSION, EventStream
from config_service.delivery.subscription import End, Subscription

pytestmark = pytest.mark.anyio


class Server:
    """A server of one connection: its reader may stop reading, and may go away."""

    def __init__(self, *, with_transport: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = asyncio.Event()
        self.blocked = asyncio.Event()
        self.aborted = False
        self.scope: dict[str, Any] = {"extensions": {TRANSPORT_EXTENSION: self}} if with_transport else {}
        self.asked = 0
        self.written = asyncio.Event()

    def abort(self) -> None:
        """As a transport's: the connection is lost at once."""
        self.aborted = True
        self.gone.set()
        self.reads.set()

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if not self.reads.is_set():
            self.blocked.set()
            await self.reads.wait()
        if not self.gone.is_set():
            self.sent.append(message)
            self.written.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return self.sent[-1].get("more_body", True) is False

    async def until(self, body: bytes) -> None:
        """Return once exactly ``body`` was written."""
        async with asyncio.timeout(5):
            while self.body != body:
                self.written.clear()
                await self.written.wait()


def start(server: Server, subscription: Subscription) -> asyncio.Task[None]:
    stream = EventStream(subscription, server.scope, server.receive, server.send)
    return asyncio.create_task(stream.run([(b"content-type", b"text/event-stream")]))


@pytest.fixture
async def subscription(service: Any) -> Subscription:
    await service.publish("orders")
    subscribed: Subscription = service.operations.subscribe(service.admin.token, "orders")
    return subscribed


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_GRACE", 0.02)


async def test_headers_and_a_first_byte_come_at_once(subscription: Subscription) -> None:
    """Before anything happens; then frames as they come."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    assert server.sent[0]["status"] == 200
    subscription.offer(b"<1>")
    await server.until(b":\n<1>")
    subscription.end(End.SHUTDOWN)
    await running


@pytest.mark.parametrize("why", [End.SHUTDOWN, End.REVOKED, End.EXPIRED])
async def test_an_end_that_is_meant_ends_the_body_in_good_order(subscription: Subscription, why: End) -> None:
    """The reader sees the end of the stream and not a broken connection."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    subscription.end(why)
    await running
    assert server.complete
    assert not server.aborted


async def test_a_reader_that_goes_away_ends_its_subscription(service: Any, subscription: Subscription) -> None:
    """Nothing is left in the hub."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    server.gone.set()
    await running
    assert subscription.ended is End.READER_GONE
    assert not server.complete
    assert len(service.app._hub) == 0


@pytest.mark.parametrize("with_transport", [True, False])
async def test_a_slow_reader_is_cut_while_the_writer_waits(subscription: Subscription, with_transport: bool) -> None:
    """Its connection is aborted; where the server gives no transport, the writer at least ends."""
    server = Server(with_transport=with_transport)
    running = start(server, subscription)
    await server.until(b":\n")
    server.reads.clear()
    subscription.offer(b"<1>")
    await server.blocked.wait()
    while subscription.ended is None:
        subscription.offer(b"<more>")
    assert subscription.ended is End.OVERFLOW
    await asyncio.wait_for(running, 5)
    assert server.aborted is with_transport
    assert b"<more>" not in server.body


@pytest.mark.parametrize("with_transport", [True, False])
async def test_a_stuck_reader_does_not_hold_up_an_end(subscription: Subscription, with_transport: bool) -> None:
    """After a short grace the connection is aborted."""
    server = Server(with_transport=with_transport)
    running = start(server, subscription)
    await server.until(b":\n")
    server.reads.clear()
    subscription.offer(b"<1>")
    await server.blocked.wait()
    subscription.end(End.SHUTDOWN)
    await asyncio.wait_for(running, 5)
    assert server.aborted is with_transport


async def test_a_cancelled_stream_is_cancelled(subscription: Subscription) -> None:
    """A cancellation from outside is not swallowed, and the subscription ends."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert subscription.ended is End.READER_GONE


async def test_a_server_that_says_so_when_the_reader_has_gone(subscription: Subscription) -> None:
    """An OSError of send is the end of the stream, and no failure."""
    server = Server()

    async def broken(_message: dict[str, Any]) -> None:
        raise OSError("client disconnected")

    await EventStream(subscription, server.scope, server.receive, broken).run([])
    assert subscription.ended is End.READER_GONE


async def test_a_subscription_that_has_ended_is_a_stream_that_ends(subscription: Subscription) -> None:
    """The token expired between subscribing and streaming."""
    subscription.end(End.EXPIRED)
    server = Server()
    await start(server, subscription)
    assert server.body == b":\n"
    assert server.complete
