"""Following a store that others write to: woken or not, through failures, and never into another history."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone
from typing import Any

import pytest

from config_client.protocol import Position
from config_service.delivery.following import STALE_AFTER, Follower
from config_service.domain.errors import HistoryReplacedError, StoreError
from config_service.domain.records import ChangeKind, Head, LogEntry

pytestmark = pytest.mark.anyio
SECRET = "canary-5f1c"
NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)


class Store:
    """A log that grows when the test says so; waiting for it ends when the test says so."""

    def __init__(self, epoch: str) -> None:
        self.there = Position(epoch, 3)
        self.links = b"123456789"
        """The link of each entry."""
        self.failure: Exception | None = None
        self.waits: list[float] = []
        self.wake = asyncio.Event()
        self.waiting = asyncio.Event()

    async def head(self) -> Head:
        if self.failure is not None:
            raise self.failure
        revision = self.there.revision
        return Head(self.there.epoch, revision, self.links[revision - 1 : revision])

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        assert limit == 1
        return [LogEntry(after + 1, ChangeKind.PUBLISHED, 7, NOON, link=self.links[after : after + 1])]

    async def changed(self, timeout: float) -> None:
        self.waits.append(timeout)
        self.waiting.set()
        await self.wake.wait()
        self.wake.clear()

    async def next_look(self) -> None:
        """Let the follower look once more, and return when it has."""
        self.waiting.clear()
        self.wake.set()
        await asyncio.wait_for(self.waiting.wait(), 5)


class Feed:
    """Applies whatever the log of its store holds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.position = store.there
        self.readings = 0

    async def catch_up(self) -> None:
        self.readings += 1
        self.position = self.store.there


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(epoch: str) -> Store:
    return Store(epoch)


@pytest.fixture
async def feed(store: Store) -> Feed:
    return Feed(store)


@pytest.fixture
async def follower(store: Any, feed: Any, clock: Clock) -> Follower:
    return Follower(store, feed, interval=0.2, monotonic=clock)


async def started(follower: Follower, store: Store) -> asyncio.Task[None]:
    running = asyncio.create_task(follower.run())
    await asyncio.wait_for(store.waiting.wait(), 5)
    return running


async def test_what_others_commit_is_applied_and_nothing_else_is_read(
    follower: Follower, store: Store, feed: Feed
) -> None:
    """The log is read when it has grown; between two looks the follower waits for its interval at most."""
    running = await started(follower, store)
    await store.next_look()
    assert feed.readings == 0
    store.there = Position(store.there.epoch, 5)
    await store.next_look()
    assert (feed.readings, feed.position) == (1, store.there)
    assert set(store.waits) == {0.2}
    running.cancel()


async def test_a_failing_store_is_told_of_once_and_followed_again(
    follower: Follower, store: Store, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins, one when it ends, without a foreign error's text; meanwhile it is asked more rarely."""
    running = await started(follower, store)
    store.failure = ValueError(SECRET)
    for _ in range(3):
        await store.next_look()
    assert store.waits[-1] >= 1
    store.failure = None
    store.there = Position(store.there.epoch, 9)
    await store.next_look()
    assert feed.position == store.there
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert SECRET not in caplog.text
    running.cancel()


async def test_who_cannot_look_for_long_says_so(follower: Follower, store: Store, clock: Clock) -> None:
    """A process that may be far behind should not be asked; one look that succeeds ends that."""
    running = await started(follower, store)
    store.failure = StoreError("gone")
    clock.now = STALE_AFTER - 0.1
    await store.next_look()
    assert follower.problem is None
    clock.now = STALE_AFTER + 1
    await store.next_look()
    assert follower.problem == "what other processes committed has not been read for 6 s"
    store.failure = None
    await store.next_look()
    assert follower.problem is None
    running.cancel()


async def test_a_log_that_grew_from_another_one_is_not_applied(follower: Follower, store: Store, feed: Feed) -> None:
    """A standby that lost the latest changes and has got others since is as long as it was, or longer: links tell."""
    running = await started(follower, store)
    store.links = b"12x456789"
    store.there = Position(store.there.epoch, 5)
    store.wake.set()
    with pytest.raises(HistoryReplacedError, match="has lost changes"):
        await asyncio.wait_for(running, 5)
    assert feed.readings == 0


async def test_other_changes_in_the_place_of_the_newest_are_noticed(follower: Follower, store: Store) -> None:
    """The log is as long as before, and ends otherwise."""
    running = await started(follower, store)
    store.links = b"12x456789"
    store.wake.set()
    with pytest.raises(HistoryReplacedError, match="has lost changes"):
        await asyncio.wait_for(running, 5)


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (Position("f" * 24, 3), "was replaced"),
        (Position("f" * 24, 9), "was replaced"),
        (None, "has lost changes"),
    ],
)
async def test_another_history_is_never_applied(
    follower: Follower, store: Store, feed: Feed, there: Position | None, reason: str
) -> None:
    """Neither a restored one, however long, nor the same one cut short: following ends, and nothing was read."""
    running = await started(follower, store)
    store.there = there or Position(store.there.epoch, 2)
    store.wake.set()
    with pytest.raises(HistoryReplacedError, match=reason):
        await asyncio.wait_for(running, 5)
    assert feed.readings == 0
    assert feed.position.revision == 3
