"""Readers that are written to directly: order, bounds and endings on a transport that takes what it is let."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from config_service.delivery import subscription as bounds
from config_service.delivery.direct import DirectReader
from config_service.delivery.frames import HEARTBEAT
from config_service.delivery.hub import Hub
from config_service.delivery.replay import ChangeFrame, History
from config_service.delivery.subscription import End, NamedInterest
from config_service.domain.keys import ConfigKey
from config_service.domain.scopes import Scope
from config_service.security.tokens import Token

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TOKEN = Token(1, "t", b"h", (b"k" * 32,), ("id",), "default", (Scope.parse("*@*:read"),), 0, NOW, None, None)
INTEREST = NamedInterest(TOKEN, "orders", "main")


class Transport:
    """As asyncio's: buffers what its reader does not take, and tells its protocol when to pause and to go on."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        """Bytes that the reader still takes; None: any number."""
        self.written = b""
        self.buffered = b""
        self.writes: list[int] = []
        self.closed = self.aborted = False
        self.reading = False
        self.protocol: Any = None
        self._high = 64 * 1024
        self._paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int, low: int = 0) -> None:
        assert low <= high
        self._high = high

    def get_extra_info(self, name: str) -> None:
        """Tell that this is no TLS."""
        self._adjust()

    def get_write_buffer_size(self) -> int:
        return len(self.buffered)

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.closed
        assert not self.aborted
        self.writes.append(len(data))
        self.buffered += data
        self._drain()
        self._adjust()

    def take(self, size: int | None) -> None:
        """Let the reader take ``size`` bytes more; None: everything from now on."""
        self.room = None if size is None else (self.room or 0) + size
        self._drain()
        if self._paused and not self.buffered:
            self._paused = False
            self.protocol.resume_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def _drain(self) -> None:
        taken = len(self.buffered) if self.room is None else min(self.room, len(self.buffered))
        self.written, self.buffered = self.written + self.buffered[:taken], self.buffered[taken:]
        if self.room is not None:
            self.room -= taken

    def _adjust(self) -> None:
        if not self._paused and len(self.buffered) > self._high:
            self._paused = True
            self.protocol.pause_writing()


@pytest.fixture
def hub(clock: Any, epoch: str) -> Hub:
    made = Hub(clock=clock, queue_frames=4, heartbeat_interval=5.0)
    made.load(epoch, History())
    return made


def publish(hub: Hub, revision: int) -> None:
    hub.publish(ChangeFrame(ConfigKey("orders"), revision, b"<%d>" % revision))


def attached(hub: Hub, transport: Transport, backlog: Iterable[bytes] = ()) -> DirectReader:
    reader = hub.join(INTEREST, backlog, DirectReader)
    reader.attach(transport, b"head;")  # type: ignore[arg-type]
    return reader


async def test_frames_go_out_as_they_are_while_the_reader_keeps_up(hub: Hub) -> None:
    """Head, backlog, then each frame by a write of its own; nothing is kept and nothing is copied together."""
    transport = Transport()
    reader = attached(hub, transport, [b"<a>", b"<b>"])
    publish(hub, 1)
    publish(hub, 2)
    assert transport.written == b"head;<a><b><1><2>"
    assert transport.writes == [5, 6, 3, 3]
    assert transport.reading
    assert reader._waiting is None


async def test_what_is_published_before_the_connection_is_there_waits_for_it(hub: Hub) -> None:
    """Between subscribing and taking the connection over nothing is lost or overtaken."""
    transport = Transport()
    reader = hub.join(INTEREST, [b"<a>"], DirectReader)
    publish(hub, 1)
    reader.attach(transport, b"head;")  # type: ignore[arg-type]
    publish(hub, 2)
    assert transport.written == b"head;<a><1><2>"


async def test_a_reader_that_pauses_gets_everything_in_order_later(hub: Hub) -> None:
    """Frames queue behind what the connection has not taken; then they go out together."""
    transport = Transport(room=len(b"head;<1"))
    reader = attached(hub, transport)
    for revision in range(1, 5):
        publish(hub, revision)
    assert transport.written == b"head;<1"
    transport.take(None)
    assert transport.written == b"head;<1><2><3><4>"
    publish(hub, 5)
    assert transport.written.endswith(b"<4><5>")
    assert reader.ended is None
    assert reader._waiting is None


async def test_live_frames_queue_behind_a_backlog_that_is_fed_as_it_is_taken(hub: Hub) -> None:
    """A backlog far over the bounds of the queue is no overflow, and no more of it is made than can be sent."""
    made = 0

    def backlog() -> Iterator[bytes]:
        nonlocal made
        for number in range(1000):
            made += 1
            yield b"[%d]" % number + b"." * 1000

    transport = Transport(room=0)
    reader = attached(hub, transport, backlog())
    assert made == 0
    publish(hub, 1)
    for _ in range(1000):
        if transport.written.endswith(b"<1>"):
            break
        transport.take(50_000)
        assert made * 1000 < len(transport.written) + bounds.CHUNK_BYTES + 2000
    told = b"".join(b"[%d]" % number + b"." * 1000 for number in range(1000))
    assert transport.written == b"head;" + told + b"<1>"
    assert reader.ended is None


async def test_a_fast_reader_of_a_long_backlog_lets_others_in_between(hub: Hub) -> None:
    """Feeding pauses after a bounded number of bytes, goes on by itself, and live frames stay behind."""
    transport = Transport()
    attached(hub, transport, (b"." * 1000 for _ in range(2000)))
    assert len(transport.written) < 700_000
    publish(hub, 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert transport.written == b"head;" + b"." * 2_000_000 + b"<1>"


async def test_a_reader_that_falls_too_far_behind_is_cut(hub: Hub) -> None:
    """At exactly the bound, by aborting: closing would wait for it. What waits is dropped and nothing follows."""
    transport = Transport(room=len(b"head;"))
    reader = attached(hub, transport)
    for revision in range(1, 6):
        publish(hub, revision)
    assert reader.ended is None
    publish(hub, 6)
    assert reader.ended is End.OVERFLOW
    assert transport.aborted
    assert not transport.closed
    publish(hub, 7)
    assert transport.buffered == b"<1>"
    assert len(hub) == 0


async def test_waiting_frames_are_bounded_by_bytes_as_well(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single frame over the bound may wait, since it could never be told otherwise; a second one may not."""
    monkeypatch.setattr(bounds, "QUEUE_BYTES", 100)
    transport = Transport(room=0)
    reader = attached(hub, transport)
    reader.offer(b"x" * 500)
    assert reader.ended is None
    reader.offer(b"y")
    assert reader.ended is End.OVERFLOW


async def test_a_heartbeat_is_written_to_quiet_streams_only(hub: Hub) -> None:
    """None is queued where frames wait, which will break the silence as well."""
    quiet, stuck = Transport(), Transport(room=0)
    attached(hub, quiet)
    reader = attached(hub, stuck)
    for _ in range(10):
        hub.beat()
    assert quiet.written == b"head;" + HEARTBEAT * 10
    assert reader.ended is None
    stuck.take(None)
    assert stuck.written == b"head;" + HEARTBEAT


@pytest.mark.parametrize("why", [End.SHUTDOWN, End.REVOKED, End.EXPIRED])
async def test_an_end_that_is_meant_closes_in_good_order(hub: Hub, why: End) -> None:
    """A reader that has taken everything sees the end of the body."""
    transport = Transport()
    attached(hub, transport).end(why)
    assert transport.closed
    assert not transport.aborted


async def test_an_end_does_not_wait_for_a_reader_that_is_behind(hub: Hub) -> None:
    """It may never take what is left, and a revoked token is owed nothing more."""
    transport = Transport(room=0)
    attached(hub, transport)
    hub.close()
    assert transport.aborted


async def test_an_ended_subscription_closes_the_connection_it_is_given(hub: Hub, clock: Any) -> None:
    """The token was revoked between subscribing and taking the connection over."""
    transport = Transport()
    reader = hub.join(INTEREST, [b"<a>"], DirectReader)
    hub.end_token(TOKEN.id)
    reader.attach(transport, b"head;")  # type: ignore[arg-type]
    assert transport.written == b"head;"
    assert transport.closed


@pytest.mark.parametrize("sign", ["eof", "lost"])
async def test_a_reader_that_goes_away_leaves_nothing(hub: Hub, sign: str) -> None:
    """Neither in the hub nor waiting; what its client sends meanwhile is ignored."""
    transport = Transport(room=0)
    reader = attached(hub, transport, [b"<a>"])
    publish(hub, 1)
    reader.data_received(b"GET / HTTP/1.1\r\n\r\n")
    if sign == "eof":
        assert not reader.eof_received()
    else:
        reader.connection_lost(ConnectionResetError())
    assert reader.ended is End.READER_GONE
    assert reader._waiting is None
    assert reader._transport is None
    assert len(hub) == 0
    reader.pause_writing()
    reader.resume_writing()
    assert reader._waiting is None


async def test_a_connection_that_was_full_before_it_was_taken_over(hub: Hub) -> None:
    """An earlier answer has not left yet, and the transport has said so to its former protocol only."""
    transport = Transport(room=0)
    transport.protocol = DirectReader(hub._audience(INTEREST), None, None, 4)  # type: ignore[arg-type]
    transport.set_write_buffer_limits(high=0)
    transport.write(b"earlier;")
    attached(hub, transport, [b"<a>"])
    publish(hub, 1)
    assert transport.writes == [8, 5]
    transport.take(None)
    assert transport.written == b"earlier;head;<a><1>"


async def test_a_backlog_that_cannot_be_made_cuts_the_reader(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """It comes back and asks again; the log has the type of the failure and nothing that it says."""

    def failing() -> Iterator[bytes]:
        yield b"." * bounds.CHUNK_BYTES
        raise RuntimeError("canary-77c1")

    transport = Transport()
    with caplog.at_level(logging.DEBUG):
        reader = attached(hub, transport, failing())
    assert reader.ended is End.FAILED
    assert transport.aborted
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text


async def test_a_stream_is_one_small_object(hub: Hub) -> None:
    """Thousands wait at the same time: no dictionary, no task, no queue while a reader keeps up."""
    before = asyncio.all_tasks()
    reader = attached(hub, Transport())
    assert not hasattr(reader, "__dict__")
    assert reader.__sizeof__() < 150
    assert asyncio.all_tasks() == before
