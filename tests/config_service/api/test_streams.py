"""A subscription as an event stream, against servers that behave in every way a server can."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config_service.api import streams
from config_service.api.exchange import EXCHANGE, Exchange
from config_service.api.streams import TAKE_OVER_EXTENSION, EventStream, reader_of, stream
from config_service.delivery.direct import DirectReader
from config_service.delivery.subscription import End, QueuedReader

pytestmark = pytest.mark.anyio


class Server:
    """A server of one connection: its reader may stop reading, and may go away."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = asyncio.Event()
        self.blocked = asyncio.Event()
        self.asked = 0
        self.written = asyncio.Event()

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


def start(server: Server, subscription: QueuedReader) -> asyncio.Task[None]:
    opened = EventStream(subscription, server.receive, server.send)
    return asyncio.create_task(opened.run([(b"content-type", b"text/event-stream")]))


@pytest.fixture
async def subscription(service: Any) -> QueuedReader:
    await service.publish("orders")
    subscribed: QueuedReader = service.operations.streams.subscribe(service.admin.token, "orders")
    return subscribed


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_GRACE", 0.02)


async def test_headers_and_a_first_byte_come_at_once(subscription: QueuedReader) -> None:
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
async def test_an_end_that_is_meant_ends_the_body_in_good_order(subscription: QueuedReader, why: End) -> None:
    """The reader sees the end of the stream and not a broken connection."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    subscription.end(why)
    await running
    assert server.complete


async def test_a_reader_that_goes_away_ends_its_subscription(service: Any, subscription: QueuedReader) -> None:
    """Nothing is left in the hub."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    server.gone.set()
    await running
    assert subscription.ended is End.READER_GONE
    assert not server.complete
    assert len(service.app._hub) == 0


async def test_a_slow_reader_is_cut_while_the_writer_waits(subscription: QueuedReader) -> None:
    """The writer ends, and the answer is not completed, so that nobody takes it for whole."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    server.reads.clear()
    subscription.offer(b"<1>")
    await server.blocked.wait()
    while subscription.ended is None:
        subscription.offer(b"<more>")
    assert subscription.ended is End.OVERFLOW
    await asyncio.wait_for(running, 5)
    assert b"<more>" not in server.body
    assert not server.complete


async def test_a_stuck_reader_does_not_hold_up_an_end(subscription: QueuedReader) -> None:
    """After a short grace the writer is cancelled."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    server.reads.clear()
    subscription.offer(b"<1>")
    await server.blocked.wait()
    subscription.end(End.SHUTDOWN)
    await asyncio.wait_for(running, 5)
    assert not server.complete


async def test_a_cancelled_stream_is_cancelled(subscription: QueuedReader) -> None:
    """A cancellation from outside is not swallowed, and the subscription ends."""
    server = Server()
    running = start(server, subscription)
    await server.until(b":\n")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert subscription.ended is End.READER_GONE


async def test_a_server_that_says_so_when_the_reader_has_gone(subscription: QueuedReader) -> None:
    """An OSError of send is the end of the stream, and no failure."""
    server = Server()

    async def broken(_message: dict[str, Any]) -> None:
        raise OSError("client disconnected")

    await EventStream(subscription, server.receive, broken).run([])
    assert subscription.ended is End.READER_GONE


async def test_a_subscription_that_has_ended_is_a_stream_that_ends(subscription: QueuedReader) -> None:
    """The token expired between subscribing and streaming."""
    subscription.end(End.EXPIRED)
    server = Server()
    await start(server, subscription)
    assert server.body == b":\n"
    assert server.complete


async def test_what_makes_the_subscription_depends_on_the_server() -> None:
    """Only a server that gives connections away gets readers that are written to directly."""
    assert reader_of({"extensions": {TAKE_OVER_EXTENSION: None}}) is DirectReader
    for scope in ({}, {"extensions": None}, {"extensions": {}}):
        assert reader_of(scope) is QueuedReader


async def test_a_connection_that_is_lost_before_it_is_taken_over_leaves_nothing(service: Any) -> None:
    """The subscription ends, and no status is noted for an answer that nobody got."""
    server = Server()
    await service.publish("orders")
    subscribed = service.operations.streams.subscribe(service.admin.token, "orders", reader=DirectReader)
    scope: dict[str, Any] = {"method": "GET", "headers": [], "extensions": {TAKE_OVER_EXTENSION: lambda _headers: None}}
    exchange = scope[EXCHANGE] = Exchange(scope, server.send)
    await stream(subscribed, [], scope, server.receive, server.send)
    assert subscribed.ended is End.READER_GONE
    assert exchange.status == 0
    assert server.sent == []
    assert len(service.app._hub) == 0
