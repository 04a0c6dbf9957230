"""Who hears of which change: subscriptions by config name, the replay of missed changes, heartbeats and endings.

Knows subscriptions, tokens and time. Knows nothing of HTTP or stores, and never waits for a reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final

from config_client.protocol import Position

from ..domain.errors import UnavailableError
from .frames import RESET
from .replay import ChangeFrame, History
from .subscription import End, Interest, Replay, Subscription

_EXPIRY_CHECK: Final = 60.0
"""Seconds after which a token's expiry is compared with the clock again: clocks can be set."""


class Hub:
    """All subscriptions of this process. Used on one event loop; ``publish`` is called by the feed alone."""

    def __init__(self, *, clock: Callable[[], datetime], queue_frames: int, heartbeat_interval: float) -> None:
        self._clock = clock
        self._queue_frames = queue_frames
        self.heartbeat_interval: Final = heartbeat_interval
        """Seconds between two heartbeats of every stream."""
        self._epoch = ""
        self._history = History()
        self._by_name: dict[str, dict[Subscription, None]] = {}
        self._expiries: dict[Subscription, asyncio.TimerHandle] = {}
        self._closed = False

    def load(self, epoch: str, history: History) -> None:
        """Replay from ``history``, the latest changes of ``epoch``, from now on."""
        self._epoch = epoch
        self._history = history

    def subscribe(self, interest: Interest, last_event_id: str | None = None) -> Subscription:
        """Return a subscription to the changes of ``interest`` from this moment on.

        With ``last_event_id`` it first gives every change missed since that event, or says ``reset`` when they are
        not all known. Nothing happens between replay and subscription: there is no gap and no duplicate.

        Raises UnavailableError when the service is stopping.
        """
        if self._closed:
            raise UnavailableError("the service is stopping; connect again")
        replay, backlog = self._replay(interest, last_event_id)
        subscription = Subscription(interest, replay, backlog, self._queue_frames)
        self._by_name.setdefault(interest.name, {})[subscription] = None
        subscription.on_end(lambda _: self._forget(subscription))
        self._check_expiry(subscription)
        return subscription

    def publish(self, change: ChangeFrame) -> None:
        """Tell ``change`` to all who are interested, and keep it for replays."""
        self._history.append(change)
        readable: dict[tuple[int, str | None, str], bool] = {}
        for subscription in tuple(self._by_name.get(change.key.name, ())):
            interest = subscription.interest
            # One decision for all streams of a token that ask for the same.
            same = (interest.token.id, interest.environment, interest.label)
            if same not in readable:
                readable[same] = interest.covers(change.key)
            if readable[same]:
                subscription.offer(change.frame)

    def advance(self, revision: int) -> None:
        """Take note of a revision that changed no config."""
        self._history.advance(revision)

    def beat(self) -> None:
        """Send one heartbeat to every stream."""
        for subscription in tuple(self):
            subscription.beat()

    async def beat_forever(self) -> None:
        """Send heartbeats until cancelled; one timer for all streams."""
        while True:
            await asyncio.sleep(self.heartbeat_interval)
            self.beat()

    def end_token(self, token_id: int) -> None:
        """End every stream of a revoked token."""
        self._end((one for one in self if one.interest.token.id == token_id), End.REVOKED)

    def close(self) -> None:
        """End every stream and refuse new ones: the service is stopping."""
        self._closed = True
        self._end(self, End.SHUTDOWN)

    def __iter__(self) -> Iterator[Subscription]:
        for named in self._by_name.values():
            yield from named

    def __len__(self) -> int:
        return sum(len(named) for named in self._by_name.values())

    def _replay(self, interest: Interest, last_event_id: str | None) -> tuple[Replay, list[bytes]]:
        if not last_event_id:
            return Replay.NOT_ASKED, []
        seen = Position.parse(last_event_id)
        missed = self._history.since(seen.revision, interest.name) if seen and seen.epoch == self._epoch else None
        if missed is None:
            return Replay.RESET, [RESET]
        return Replay.EXACT, [change.frame for change in missed if interest.covers(change.key)]

    def _check_expiry(self, subscription: Subscription) -> None:
        expires_at = subscription.interest.token.expires_at
        if expires_at is None or subscription.ended is not None:
            return
        remaining = (expires_at - self._clock()).total_seconds()
        if remaining <= 0:
            subscription.end(End.EXPIRED)
            return
        self._expiries[subscription] = asyncio.get_running_loop().call_later(
            min(remaining, _EXPIRY_CHECK), self._check_expiry, subscription
        )

    def _end(self, subscriptions: Iterable[Subscription], why: End) -> None:
        for subscription in tuple(subscriptions):
            subscription.end(why)

    def _forget(self, subscription: Subscription) -> None:
        named = self._by_name[subscription.interest.name]
        del named[subscription]
        if not named:
            del self._by_name[subscription.interest.name]
        expiry = self._expiries.pop(subscription, None)
        if expiry is not None:
            expiry.cancel()
