"""Long work in turns: order, and room for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from config_service.delivery import hub as hub_module
from config_service.delivery.frames import HEARTBEAT
from config_service.delivery.hub import Hub
from config_service.delivery.replay import ChangeFrame, History
from config_service.delivery.subscription import Beat, End, NamedInterest, QueuedReader
from config_service.delivery.turns import TURN, Turns
from config_service.domain.keys import ConfigKey
from config_service.domain.scopes import Scope
from config_service.security.tokens import Token

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def job(done: list[str], name: str, steps: int, cost: int) -> Iterator[int]:
    for number in range(steps):
        done.append(f"{name}{number}")
        yield cost


async def until_idle(turns: Turns) -> int:
    """Return how many rounds of the event loop went by until everything was done."""
    rounds = 0
    while turns._next is not None:
        await asyncio.sleep(0)
        rounds += 1
    return rounds


async def test_little_work_is_done_at_once() -> None:
    """Nobody waits for a turn when there is nothing to wait for."""
    done: list[str] = []
    turns = Turns()
    turns.add(job(done, "a", 3, 1))
    assert done == ["a0", "a1", "a2"]
    assert turns._next is None


async def test_much_work_leaves_room_in_between_and_keeps_its_order() -> None:
    """A job that comes later waits until those before it are done, however cheap it is."""
    done: list[str] = []
    turns = Turns()
    turns.add(job(done, "a", 10, TURN // 2))
    assert done == ["a0", "a1"]
    turns.add(job(done, "b", 1, 1))
    assert await until_idle(turns) >= 4
    assert done == [*(f"a{number}" for number in range(10)), "b0"]


async def test_work_that_is_dropped_is_not_done() -> None:
    """Neither what waits nor what is under way."""
    done: list[str] = []
    turns = Turns()
    turns.add(job(done, "a", 10, TURN))
    turns.clear()
    await asyncio.sleep(0)
    assert done == ["a0"]
    turns.add(job(done, "b", 1, 1))
    assert done == ["a0", "b0"]


def token(id: int = 1) -> Token:  # noqa: A002 - the field's name
    return Token(id, "t", b"h", (b"k" * 32,), ("id",), "default", (Scope.parse("*@*:read"),), 0, NOW, None, None)


def change(revision: int) -> ChangeFrame:
    return ChangeFrame(ConfigKey("orders"), revision, b"<%d>" % revision)


@pytest.fixture
def hub(clock: Any, epoch: str) -> Hub:
    made = Hub(clock=clock, queue_frames=100, heartbeat_interval=5.0)
    made.load(epoch, History())
    return made


async def test_thousands_of_streams_hear_changes_in_order_over_several_turns(hub: Hub) -> None:
    """The first turn reaches some of them; another change and a heartbeat meanwhile overtake nothing."""
    interest = NamedInterest(token(), "orders", "main")
    streams = [hub.subscribe(interest) for _ in range(3000)]
    hub.publish(change(1))
    assert not streams[-1]._waiting
    hub.publish(change(2))
    hub.beat()
    assert await until_idle(hub._turns) >= 10
    for stream in streams:
        assert await stream.next() == b"<1><2>"
    hub.beat()
    await until_idle(hub._turns)
    assert await streams[-1].next() == HEARTBEAT


async def test_who_comes_while_a_change_is_being_told_does_not_hear_it_again(hub: Hub, epoch: str) -> None:
    """It belongs to what was there before; a reader that resumes gets it from the history, once."""
    interest = NamedInterest(token(), "orders", "main")
    streams = [hub.subscribe(interest) for _ in range(3000)]
    hub.publish(change(1))
    late, resumed = hub.subscribe(interest), hub.subscribe(interest, f"{epoch}-0")
    hub.publish(change(2))
    await until_idle(hub._turns)
    assert await late.next() == b"<2>"
    assert await resumed.next() == b"<1><2>"
    assert await streams[-1].next() == b"<1><2>"


async def test_who_ends_while_a_change_is_being_told_hears_nothing_more(hub: Hub) -> None:
    """A revocation in between holds, and the streams of other tokens are told."""
    revoked = [hub.subscribe(NamedInterest(token(2), "orders", "main")) for _ in range(2000)]
    other = hub.subscribe(NamedInterest(token(3), "orders", "main"))
    hub.publish(change(1))
    assert not revoked[-1]._waiting
    hub.end_token(2)
    await until_idle(hub._turns)
    assert revoked[-1].ended is End.REVOKED
    assert await revoked[-1].next() is None
    assert await other.next() == b"<1>"


async def test_a_stream_that_cannot_be_written_to_is_cut_and_the_others_are_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that one connection does may keep a change from the rest, or from being served."""
    streams = [hub.subscribe(NamedInterest(token(), "orders", "main")) for _ in range(3)]
    offer = QueuedReader.offer

    def failing(stream: QueuedReader, frame: bytes) -> None:
        if stream is streams[1]:
            raise RuntimeError("canary-a0c4")
        offer(stream, frame)

    monkeypatch.setattr(QueuedReader, "offer", failing)
    hub.publish(change(1))
    assert await streams[0].next() == await streams[2].next() == b"<1>"
    assert streams[1].ended is End.FAILED
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text


async def test_a_stop_drops_what_is_still_to_be_told(hub: Hub) -> None:
    """The streams are over, and nothing runs on behind the end."""
    streams = [hub.subscribe(NamedInterest(token(), "orders", "main")) for _ in range(3000)]
    hub.publish(change(1))
    hub.close()
    assert hub._turns._next is None
    assert all(stream.ended is End.SHUTDOWN for stream in streams)


async def test_the_cost_of_large_frames_is_counted(hub: Hub) -> None:
    """Writing a megabyte takes longer than writing a line, so fewer are written in a turn."""
    streams = [hub.subscribe(NamedInterest(token(), "orders", "main")) for _ in range(1000)]
    hub.publish(ChangeFrame(ConfigKey("orders"), 1, b"x" * 100 * hub_module._BYTES_PER_WRITE))
    reached = sum(bool(stream._waiting) for stream in streams)
    assert reached == hub_module._AT_A_TIME


async def test_each_kind_of_stream_has_heartbeats_of_its_own(hub: Hub) -> None:
    """Beating for one kind leaves the other alone."""
    stream = hub.subscribe(NamedInterest(token(), "orders", "main"))
    hub.beat(Beat.STATE)
    assert not stream._waiting
    hub.beat(Beat.BASE)
    assert await stream.next() == HEARTBEAT
    assert hub.intervals == {Beat.BASE: 5.0, Beat.STATE: 15.0}
