"""Subscriptions and the hub: who hears what, in which order, and when it ends."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from config_client.protocol import Position
from config_service.delivery.frames import HEARTBEAT, reset_frame
from config_service.delivery.hub import Hub
from config_service.delivery.replay import ChangeFrame, History
from config_service.delivery.subscription import CHUNK_BYTES, End, NamedInterest, QueuedReader, Replay
from config_service.domain.errors import UnavailableError
from config_service.domain.keys import ConfigKey
from config_service.domain.scopes import Scope
from config_service.security.tokens import Token

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def token(*scopes: str, id: int = 1, expires_at: datetime | None = None) -> Token:  # noqa: A002 - the field's name
    granted = tuple(Scope.parse(scope) for scope in scopes or ("*@*:read",))
    return Token(id, "t", b"h", (b"k" * 32,), ("id",), "default", granted, 0, NOW, expires_at, None)


def change(revision: int, name: str = "orders", environment: str = "default", label: str = "main") -> ChangeFrame:
    return ChangeFrame(ConfigKey(name, environment, label), revision, b"<%d>" % revision)


@pytest.fixture
def hub(clock: Any, epoch: str) -> Hub:
    made = Hub(clock=clock, queue_frames=4, heartbeat_interval=5.0)
    made.load(epoch, History())
    return made


def interest(*scopes: str, name: str = "orders", environment: str | None = None, label: str = "main") -> NamedInterest:
    return NamedInterest(token(*scopes), name, label, environment)


async def taken(subscription: QueuedReader) -> bytes | None:
    """Return what is waiting, or fail: nothing here may have to be waited for."""
    return await asyncio.wait_for(subscription.next(), 1)


async def test_a_change_reaches_those_who_are_interested(hub: Hub) -> None:
    """By name, environment and label."""
    any_environment = hub.subscribe(interest())
    prod = hub.subscribe(interest(environment="prod"))
    next_label = hub.subscribe(interest(label="next"))
    other = hub.subscribe(interest(name="billing"))
    hub.publish(change(1))
    hub.publish(change(2, environment="prod"))
    hub.publish(change(3, label="next"))
    assert await taken(any_environment) == b"<1><2>"
    assert await taken(prod) == b"<2>"
    assert await taken(next_label) == b"<3>"
    hub.publish(change(4, "billing"))
    assert await taken(other) == b"<4>"


async def test_nobody_hears_of_environments_that_the_token_may_not_read(hub: Hub) -> None:
    """The rights of each token are asked for every change, also when two tokens ask for the same."""
    narrow, wide = hub.subscribe(interest("*@prod:read")), hub.subscribe(NamedInterest(token(id=2), "orders", "main"))
    hub.publish(change(1, environment="test"))
    hub.publish(change(2, environment="prod"))
    assert await taken(narrow) == b"<2>"
    assert await taken(wide) == b"<1><2>"


async def test_a_waiting_reader_is_woken_by_a_change(hub: Hub) -> None:
    """Reading first and publishing then works as well."""
    subscription = hub.subscribe(interest())
    reading = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    hub.publish(change(1))
    assert await reading == b"<1>"


async def test_an_abandoned_read_loses_nothing(hub: Hub) -> None:
    """A reader that is cancelled while it waits can read again."""
    subscription = hub.subscribe(interest())
    reading = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    reading.cancel()
    hub.publish(change(1))
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await taken(subscription) == b"<1>"


async def test_a_full_queue_cuts_the_reader(hub: Hub) -> None:
    """The queue is never trimmed: it ends, at exactly its limit, and nothing of it is delivered any more."""
    slow, fast = hub.subscribe(interest()), hub.subscribe(interest())
    told: list[End] = []
    slow.on_end(told.append)
    for revision in range(1, 5):
        hub.publish(change(revision))
        assert await taken(fast) == b"<%d>" % revision
    assert slow.ended is None
    hub.publish(change(5))
    assert slow.ended is End.OVERFLOW
    assert told == [End.OVERFLOW]
    assert await taken(slow) is None
    assert await taken(fast) == b"<5>"
    assert len(hub) == 1


async def test_what_comes_after_the_end_is_dropped(hub: Hub) -> None:
    """An ended subscription takes nothing more, and ends once only."""
    subscription = hub.subscribe(interest())
    subscription.end(End.READER_GONE)
    subscription.end(End.OVERFLOW)
    subscription.offer(b"late")
    assert subscription.ended is End.READER_GONE
    assert await taken(subscription) is None


async def test_who_listens_for_an_end_that_was_is_told_at_once(hub: Hub) -> None:
    """Nothing is missed between subscribing and listening."""
    subscription = hub.subscribe(interest())
    subscription.end(End.EXPIRED)
    told: list[End] = []
    subscription.on_end(told.append)
    assert told == [End.EXPIRED]


async def test_a_heartbeat_breaks_silence_only(hub: Hub) -> None:
    """One comment for a quiet stream; none in front of frames that wait, which would fill the queue."""
    quiet, busy = hub.subscribe(interest()), hub.subscribe(interest(name="billing"))
    hub.publish(change(1, "billing"))
    for _ in range(10):
        hub.beat()
    assert await taken(quiet) == HEARTBEAT
    assert await taken(busy) == b"<1>"


async def test_heartbeats_come_by_themselves(clock: Any) -> None:
    """One timer for all streams, at the interval of the settings."""
    hub = Hub(clock=clock, queue_frames=4, heartbeat_interval=0.001)
    subscription = hub.subscribe(interest())
    beating = asyncio.create_task(hub.beat_forever())
    assert await taken(subscription) == HEARTBEAT
    assert await taken(subscription) == HEARTBEAT
    beating.cancel()


async def test_revoking_ends_the_streams_of_that_token_only(hub: Hub) -> None:
    """Other tokens go on."""
    revoked = hub.subscribe(NamedInterest(token(id=2), "orders", "main"))
    other = hub.subscribe(interest())
    hub.publish(change(1))
    hub.end_token(2)
    assert revoked.ended is End.REVOKED
    assert await taken(revoked) is None
    assert await taken(other) == b"<1>"


async def test_closing_ends_everything_and_takes_nothing_more(hub: Hub) -> None:
    """A service that stops has no streams, and says so to whom comes."""
    subscription = hub.subscribe(interest())
    hub.close()
    assert subscription.ended is End.SHUTDOWN
    assert len(hub) == 0
    with pytest.raises(UnavailableError):
        hub.subscribe(interest())


async def test_a_stream_ends_when_its_token_expires(hub: Hub, clock: Any) -> None:
    """At the moment of expiry, without a further event."""
    expiring = NamedInterest(token(expires_at=clock.now + timedelta(milliseconds=5)), "orders", "main")
    subscription = hub.subscribe(expiring)
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    clock.advance(0.005)
    assert await asyncio.wait_for(waiting, 2) is None
    assert subscription.ended is End.EXPIRED


async def test_expiry_goes_by_the_clock_and_not_by_the_time_waited(hub: Hub, clock: Any) -> None:
    """While the clock stands still nothing expires, however often the timer fires; clocks can be set."""
    subscription = hub.subscribe(NamedInterest(token(expires_at=clock.now + timedelta(hours=1)), "orders", "main"))
    (audience,) = hub._audiences.values()
    for _ in range(3):
        hub._check_expiry(audience)
        assert subscription.ended is None
    clock.advance(3600)
    hub._check_expiry(audience)
    assert subscription.ended is End.EXPIRED


async def test_a_token_that_has_expired_gets_no_stream(hub: Hub, clock: Any) -> None:
    """Expired between authentication and subscription counts as expired."""
    subscription = hub.subscribe(NamedInterest(token(expires_at=clock.now), "orders", "main"))
    assert subscription.ended is End.EXPIRED
    assert len(hub) == 0


async def test_an_ended_stream_leaves_no_timer(hub: Hub, clock: Any) -> None:
    """Streams that come and go leave nothing behind."""
    expiring = NamedInterest(token(expires_at=clock.now + timedelta(hours=1)), "orders", "main")
    first, second = hub.subscribe(expiring), hub.subscribe(expiring)
    (audience,) = hub._audiences.values()
    first.end(End.READER_GONE)
    assert audience.expiry is not None
    second.end(End.READER_GONE)
    assert audience.expiry is None
    assert not hub._audiences
    assert not hub._listening


async def test_a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice(hub: Hub, epoch: str) -> None:
    """What was missed comes first, then what happens, without a gap."""
    for revision in range(1, 4):
        hub.publish(change(revision))
    hub.advance(4)
    subscription = hub.subscribe(interest(), f"{epoch}-1")
    hub.publish(change(5))
    assert subscription.replay is Replay.EXACT
    assert await taken(subscription) == b"<2><3><5>"


async def test_a_replay_holds_only_what_the_reader_may_see(hub: Hub, epoch: str) -> None:
    """The past is filtered as the present is."""
    hub.publish(change(1, environment="test"))
    hub.publish(change(2, environment="prod"))
    hub.publish(change(3, environment="prod", label="next"))
    subscription = hub.subscribe(interest("*@prod:read"), f"{epoch}-0")
    assert await taken(subscription) == b"<2>"


@pytest.mark.parametrize("last", ["unreadable", "ffffffffffffffffffffffff-1", "{epoch}-9", "{epoch}-0-0"])
async def test_a_position_that_is_not_known_is_a_reset(hub: Hub, epoch: str, last: str) -> None:
    """Another epoch, a future revision, or no position at all: fetch again, then go on from here."""
    hub.publish(change(1))
    subscription = hub.subscribe(interest(), last.format(epoch=epoch))
    assert subscription.replay is Replay.RESET
    assert await taken(subscription) == reset_frame(Position(epoch, 1))
    hub.publish(change(2))
    assert await taken(subscription) == b"<2>"


async def test_a_reader_that_was_reset_is_not_reset_again(hub: Hub, epoch: str) -> None:
    """The reset names the present, also where that is a revision of a token; from there on a replay is exact."""
    hub.publish(change(1))
    hub.advance(2)
    told = await taken(hub.subscribe(interest(), "another-history"))
    last = (told or b"").decode().splitlines()[0].removeprefix("id: ")
    hub.publish(change(3))
    again = hub.subscribe(interest(), last)
    assert again.replay is Replay.EXACT
    assert await taken(again) == b"<3>"


async def test_a_reader_without_a_last_event_is_promised_nothing(hub: Hub) -> None:
    """No id, or an empty one, begins with the present."""
    hub.publish(change(1))
    for last in (None, ""):
        assert hub.subscribe(interest(), last).replay is Replay.NOT_ASKED


async def test_a_long_replay_does_not_overflow_and_comes_in_parts(hub: Hub, epoch: str) -> None:
    """The bound is on what happens while a reader is slow, not on what it has missed."""
    told = b"".join(b"<%d>" % revision + b"." * 1000 for revision in range(1, 601))
    for revision in range(1, 601):
        hub.publish(ChangeFrame(ConfigKey("orders"), revision, b"<%d>" % revision + b"." * 1000))
    subscription = hub.subscribe(interest(), f"{epoch}-0")
    hub.publish(change(601))
    parts: list[bytes] = []
    while not (parts and parts[-1].endswith(b"<601>")):
        parts.append(await taken(subscription) or b"")
    assert b"".join(parts) == told + b"<601>"
    assert len(parts) == 10
    assert max(map(len, parts)) < CHUNK_BYTES + 2000
