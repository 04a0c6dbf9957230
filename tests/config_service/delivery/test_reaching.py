"""Waiting for a revision: bounded, shared, and through failures of the store."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from config_client.protocol import Position
from config_service.delivery import reaching
from config_service.delivery.reaching import Reaching
from config_service.domain.errors import StoreError, UnavailableError

pytestmark = pytest.mark.anyio


class Feed:
    """A feed whose log grows when the test lets it; counts how often it is read."""

    def __init__(self, epoch: str) -> None:
        self.position = Position(epoch, 5)
        self.committed = 5
        self.readings = 0
        self.failure: Exception | None = None
        self.read = asyncio.Event()

    async def catch_up(self) -> None:
        self.readings += 1
        self.read.set()
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(0)
        self.position = Position(self.position.epoch, self.committed)


@pytest.fixture
async def feed(epoch: str, monkeypatch: pytest.MonkeyPatch) -> Feed:
    monkeypatch.setattr(reaching, "_PAUSE", 0.001)
    return Feed(epoch)


async def test_what_is_reached_already_costs_nothing(feed: Feed) -> None:
    """No look at the log; an earlier epoch is older than everything here."""
    waits = Reaching(feed)  # type: ignore[arg-type]
    await waits.reach(feed.position)
    await waits.reach(Position(feed.position.epoch, 1))
    await waits.reach(Position("0" * 24, 10**9))
    assert feed.readings == 0


async def test_however_many_wait_the_log_is_read_by_one(feed: Feed) -> None:
    """A hundred requests share each look at the log, and looking ends with the last of them."""
    waits = Reaching(feed)  # type: ignore[arg-type]
    waiting = [asyncio.create_task(waits.reach(Position(feed.position.epoch, 6 + number % 3))) for number in range(100)]
    await feed.read.wait()
    feed.committed = 8
    await asyncio.gather(*waiting)
    assert feed.readings < 50
    looking = waits._looking
    assert looking is not None
    await looking
    assert waits._looking is None
    assert waits._waiting == {}


async def test_who_waits_for_less_goes_on_earlier(feed: Feed) -> None:
    """Each is woken by its own revision."""
    waits = Reaching(feed)  # type: ignore[arg-type]
    far = asyncio.create_task(waits.reach(Position(feed.position.epoch, 7)))
    near = asyncio.create_task(waits.reach(Position(feed.position.epoch, 6)))
    await feed.read.wait()
    feed.committed = 6
    await near
    assert not far.done()
    feed.committed = 7
    await far


async def test_a_later_history_is_nothing_to_wait_for(feed: Feed) -> None:
    """This process would have to start anew to know it."""
    with pytest.raises(UnavailableError, match="earlier history"):
        await Reaching(feed).reach(Position("f" * 24, 1))  # type: ignore[arg-type]
    assert feed.readings == 0


async def test_patience_ends(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the client is told to try again, and nothing goes on behind it."""
    monkeypatch.setattr(reaching, "PATIENCE", 0.02)
    waits = Reaching(feed)  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match="revision 6"):
        await waits.reach(Position(feed.position.epoch, 6))
    if waits._looking is not None:
        await waits._looking
    assert waits._waiting == {}


async def test_a_store_that_fails_for_a_moment_is_asked_again(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    """Told once in the log, by type; a request that still waits when the store is back succeeds."""
    feed.failure = StoreError("canary-1f90")
    waits = Reaching(feed)  # type: ignore[arg-type]
    with caplog.at_level(logging.DEBUG):
        waiting = asyncio.create_task(waits.reach(Position(feed.position.epoch, 6)))
        while feed.readings < 3:
            feed.read.clear()
            await feed.read.wait()
        feed.failure, feed.committed = None, 6
        await waiting
    assert caplog.text.count("StoreError") == 1
    assert "canary" not in caplog.text


async def test_a_request_that_is_given_up_leaves_nothing(feed: Feed) -> None:
    """Its client hung up."""
    waits = Reaching(feed)  # type: ignore[arg-type]
    waiting = asyncio.create_task(waits.reach(Position(feed.position.epoch, 6)))
    await feed.read.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waits._waiting == {}


async def test_a_service_that_stops_looks_no_more(feed: Feed) -> None:
    """Its store is about to be closed."""
    waits = Reaching(feed)  # type: ignore[arg-type]
    waits.close()
    waiting = asyncio.create_task(waits.reach(Position(feed.position.epoch, 6)))
    await feed.read.wait()
    looking: Any = waits._looking
    waits.close()
    with pytest.raises(asyncio.CancelledError):
        await looking
    waiting.cancel()
