"""One reader of changes: a bounded queue between the hub, which never waits, and a stream, which may be slow.

Knows frames and who is interested in what. Knows nothing of HTTP. A reader that falls behind is cut, not trimmed: it
resumes from its last event and misses nothing, while a trimmed one would not know what it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..domain.keys import ConfigKey
from ..domain.scopes import Right
from ..security.tokens import Token
from .frames import HEARTBEAT

_CHUNK: Final = 256
"""Frames handed over at a time: a long replay must not become one large copy per reader."""


class End(Enum):
    """Why a subscription ended."""

    READER_GONE = "reader gone"
    OVERFLOW = "too slow"
    REVOKED = "token revoked"
    EXPIRED = "token expired"
    SHUTDOWN = "service stopping"


class Replay(Enum):
    """What a reader that names its last event gets."""

    NOT_ASKED = "not asked"
    EXACT = "exact"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Interest:
    """Which changes a reader wants, and on whose behalf. Without an environment: every one that the token may read."""

    token: Token
    name: str
    label: str
    environment: str | None = None

    def covers(self, key: ConfigKey) -> bool:
        """Tell whether this reader wants, and may see, the changes of ``key``."""
        return (
            key.name == self.name
            and key.label == self.label
            and (self.environment is None or self.environment == key.environment)
            and self.token.may(Right.READ, key.name, key.environment)
        )


class Subscription:
    """Frames on their way to one reader. Made by ``Hub.subscribe``; used on one event loop."""

    __slots__ = (
        "_backlog",
        "_ended",
        "_limit",
        "_listeners",
        "_queue",
        "_waiting",
        "interest",
        "replay",
    )

    def __init__(self, interest: Interest, replay: Replay, backlog: Iterable[bytes], limit: int) -> None:
        self.interest = interest
        self.replay = replay
        self._backlog = deque(backlog)
        self._queue: deque[bytes] = deque()
        self._limit = limit
        self._ended: End | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._listeners: list[Callable[[End], None]] = []

    @property
    def ended(self) -> End | None:
        """Why this subscription has ended, or None while it has not."""
        return self._ended

    def offer(self, frame: bytes) -> None:
        """Queue ``frame``; when the queue is full, end instead."""
        if self._ended is not None:
            return
        if len(self._queue) >= self._limit:
            self.end(End.OVERFLOW)
            return
        self._queue.append(frame)
        self._wake()

    def beat(self) -> None:
        """Queue a heartbeat, unless frames are waiting: those will break the silence as well."""
        if not self._queue and not self._backlog:
            self.offer(HEARTBEAT)

    def end(self, why: End) -> None:
        """Drop what is queued and end. Only the first call counts."""
        if self._ended is not None:
            return
        self._ended = why
        self._backlog.clear()
        self._queue.clear()
        self._wake()
        for listener in self._listeners:
            listener(why)

    def on_end(self, listener: Callable[[End], None]) -> None:
        """Call ``listener`` when this subscription ends; at once when it has ended."""
        if self._ended is not None:
            listener(self._ended)
        else:
            self._listeners.append(listener)

    async def next(self) -> bytes | None:
        """Return the next frames, joined, waiting for at least one; None when the subscription has ended."""
        while self._ended is None:
            if self._backlog:
                return b"".join(self._backlog.popleft() for _ in range(min(_CHUNK, len(self._backlog))))
            if self._queue:
                frames = b"".join(self._queue)
                self._queue.clear()
                return frames
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
