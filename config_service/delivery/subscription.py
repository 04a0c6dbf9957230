"""One reader of a stream: what it wants to hear, and its frames on their way to it.

Knows frames, rights and endings. Knows nothing of HTTP or sockets. A reader that falls behind is cut, not trimmed: it
comes back and misses nothing, while a trimmed one would not know what it missed.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Final, NamedTuple, Protocol, TypeVar

from ..domain.documents import Document
from ..domain.keys import ConfigKey
from ..domain.scopes import Right
from ..security.tokens import Token
from .frames import HEARTBEAT
from .replay import ChangeFrame

CHUNK_BYTES: Final = 64 * 1024
"""Bytes of waiting frames that are handed over at a time: a long backlog must not become one large copy per reader."""
QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of live frames that may wait for one reader; a single larger one may, when nothing else waits."""

REMEMBERED: Final = 256
"""Changes that an audience remembers, to tell which of them wait for a slow reader."""


class End(Enum):
    """Why a subscription ended."""

    READER_GONE = "reader gone"
    OVERFLOW = "too slow"
    REVOKED = "token revoked"
    EXPIRED = "token expired"
    SHUTDOWN = "service stopping"
    FAILED = "service failed"


class Replay(Enum):
    """What a reader that names its last event gets."""

    NOT_ASKED = "not asked"
    EXACT = "exact"
    RESET = "reset"


class Beat(Enum):
    """How often a stream carries heartbeats: base streams, which old clients read, need more of them."""

    BASE = "base stream"
    STATE = "state-first stream"


class Interest(Protocol):
    """What a reader wants to hear, and on whose behalf. Equal interests hear the same frames."""

    @property
    def token(self) -> Token:
        """The token, as it was when the stream was opened."""

    @property
    def beat(self) -> Beat:
        """The kind of heartbeats."""

    @property
    def identity(self) -> Hashable:
        """What two interests that hear the same have in common."""

    def places(self) -> Iterable[str | ConfigKey]:
        """Return the names and keys whose changes are to be looked at."""

    def covers(self, key: ConfigKey) -> bool:
        """Tell whether this reader wants, and may see, the changes of ``key``."""

    def frame(self, change: ChangeFrame, document: Document | None) -> bytes:
        """Return the bytes that tell ``change``, which made ``document``."""


@dataclass(frozen=True, slots=True)
class NamedInterest:
    """The changes of one name, as base streams tell them. Without an environment: in all that the token may read."""

    token: Token
    name: str
    label: str
    environment: str | None = None

    @property
    def beat(self) -> Beat:
        """As often as old clients need it."""
        return Beat.BASE

    @property
    def identity(self) -> Hashable:
        """A token's rights never change, so its id stands for them."""
        return (self.token.id, self.name, self.label, self.environment)

    def places(self) -> Iterable[str | ConfigKey]:
        """Return the name: environments that do not exist yet are covered as well."""
        return (self.name,)

    def covers(self, key: ConfigKey) -> bool:
        """Tell whether this reader wants, and may see, the changes of ``key``."""
        return (
            key.name == self.name
            and key.label == self.label
            and (self.environment is None or self.environment == key.environment)
            and self.token.may(Right.READ, key.name, key.environment)
        )

    def frame(self, change: ChangeFrame, document: Document | None) -> bytes:
        """Return the one frame that all base streams share."""
        return change.frame


class Told(NamedTuple):
    """What was told of a config."""

    version: int
    revision: int


class Telling(NamedTuple):
    """A change that was handed to an audience, and what was served before it, if anything was."""

    key: ConfigKey
    before: Told | None


class Opened(NamedTuple):
    """When a stream was opened, from which address, and at which revision: of every later change it hears."""

    at: datetime
    address: str
    revision: int


NOT_OPENED: Final = Opened(datetime.min.replace(tzinfo=timezone.utc), "", 0)


class Audience:
    """All streams that hear exactly the same: a decision and a frame are made once for all of them."""

    __slots__ = ("_when_left", "expiry", "interest", "latest", "streams", "told")

    def __init__(self, interest: Interest, when_left: Callable[[Subscription, End], None]) -> None:
        self.interest: Final = interest
        self.told: Final[dict[ConfigKey, Told]] = {}
        """The newest change of each config that its streams were handed."""
        self.latest: Final[deque[Telling]] = deque(maxlen=REMEMBERED)
        """The latest changes: what waits for a reader that is behind is the end of them."""
        self.streams: Final[dict[Subscription, None]] = {}
        self.expiry: asyncio.TimerHandle | None = None
        self._when_left = when_left

    def note(self, key: ConfigKey, now: Told, before: Told | None) -> None:
        """Take note that its streams are handed a change of ``key``."""
        self.told[key] = now
        self.latest.append(Telling(key, before))

    def leave(self, stream: Subscription, why: End) -> None:
        """Take ``stream`` out, which has ended."""
        self.streams.pop(stream, None)
        self._when_left(stream, why)

    def end(self, why: End) -> None:
        """End every stream."""
        for stream in tuple(self.streams):
            stream.end(why)


class Subscription(ABC):
    """Frames on their way to one reader. Made by the hub; used on one event loop.

    ``backlog`` comes first, then what is offered, in order.
    """

    __slots__ = ("_audience", "_ended", "opened", "replay")

    def __init__(self, audience: Audience, replay: Replay) -> None:
        self.replay: Final = replay
        self._audience = audience
        self._ended: End | None = None
        self.opened = NOT_OPENED
        """How it began; the hub takes note of it."""

    @property
    def audience(self) -> Audience:
        """All streams that hear the same, this one included."""
        return self._audience

    @property
    def queued(self) -> int:
        """How many frames wait for the reader; a backlog that is not made yet counts as one."""
        waiting = self._waits()
        return 0 if waiting is None else len(waiting)

    @property
    def queued_changes(self) -> int | None:
        """How many changes wait for the reader; None while a backlog waits before them."""
        waiting = self._waits()
        return 0 if waiting is None else waiting.changes

    @abstractmethod
    def _waits(self) -> Waiting | None:
        """Return what waits for the reader, if anything may."""

    @property
    def interest(self) -> Interest:
        """What this reader wants to hear."""
        return self._audience.interest

    @property
    def ended(self) -> End | None:
        """Why this subscription has ended, or None while it has not."""
        return self._ended

    @abstractmethod
    def offer(self, frame: bytes) -> None:
        """Hand on ``frame`` or queue it; when the queue is full, end instead."""

    @abstractmethod
    def beat(self) -> None:
        """Hand on a heartbeat, unless frames are waiting: those will break the silence as well."""

    def end(self, why: End) -> None:
        """Drop what is queued and end. Only the first call counts."""
        if self._ended is None:
            self._ended = why
            self._audience.leave(self, why)
            self._finish(why)

    @abstractmethod
    def _finish(self, why: End) -> None:
        """Let go of everything, once."""


S = TypeVar("S", bound=Subscription)
S_co = TypeVar("S_co", bound=Subscription, covariant=True)


class Reader(Protocol[S_co]):
    """Makes a subscription: ``QueuedReader`` or ``DirectReader``."""

    def __call__(self, audience: Audience, replay: Replay, backlog: Iterator[bytes] | None, limit: int) -> S_co:
        """Return a subscription in ``audience`` that lets ``limit`` live frames wait behind ``backlog``."""


class Waiting:
    """What waits for one reader: a backlog, made while it is read, and live frames within bounds behind it."""

    __slots__ = ("_backlog", "_frames", "_limit", "_size")

    def __init__(self, backlog: Iterator[bytes] | None, limit: int) -> None:
        self._backlog = backlog
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._limit = limit

    def add(self, frame: bytes) -> bool:
        """Queue ``frame`` and return True; return False when there is no room for it."""
        if len(self._frames) >= self._limit or (self._frames and self._size + len(frame) > QUEUE_BYTES):
            return False
        self._frames.append(frame)
        self._size += len(frame)
        return True

    def take(self) -> bytes:
        """Return the next frames, joined; empty when nothing waits any more."""
        taken: list[bytes] = []
        size = 0
        if self._backlog is not None:
            for frame in self._backlog:
                taken.append(frame)
                size += len(frame)
                if size >= CHUNK_BYTES:
                    break
            else:
                self._backlog = None
        while self._frames and size < CHUNK_BYTES:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
            self._size -= len(taken[-1])
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> None:
        """Drop everything."""
        self._backlog = None
        self._frames.clear()
        self._size = 0

    @property
    def changes(self) -> int | None:
        """How many frames wait that are no heartbeats; None while there is a backlog."""
        return None if self._backlog is not None else sum(frame is not HEARTBEAT for frame in self._frames)

    def __len__(self) -> int:
        return len(self._frames) + (self._backlog is not None)

    def __bool__(self) -> bool:
        return self._backlog is not None or bool(self._frames)


class QueuedReader(Subscription):
    """A reader that asks for its frames: for servers that do not hand over their connections."""

    __slots__ = ("_listeners", "_reading", "_waiting")

    def __init__(self, audience: Audience, replay: Replay, backlog: Iterator[bytes] | None, limit: int) -> None:
        super().__init__(audience, replay)
        self._waiting = Waiting(backlog, limit)
        self._reading: asyncio.Future[None] | None = None
        self._listeners: list[Callable[[End], None]] = []

    def _waits(self) -> Waiting | None:
        return self._waiting

    def offer(self, frame: bytes) -> None:
        """Queue ``frame``; when the queue is full, end instead."""
        if self._ended is not None:
            return
        if self._waiting.add(frame):
            self._wake()
        else:
            self.end(End.OVERFLOW)

    def beat(self) -> None:
        """Queue a heartbeat, unless frames are waiting."""
        if not self._waiting:
            self.offer(HEARTBEAT)

    def on_end(self, listener: Callable[[End], None]) -> None:
        """Call ``listener`` when this subscription ends; at once when it has ended."""
        if self._ended is not None:
            listener(self._ended)
        else:
            self._listeners.append(listener)

    async def next(self) -> bytes | None:
        """Return the next frames, joined, waiting for at least one; None when the subscription has ended."""
        while self._ended is None:
            if frames := self._waiting.take():
                return frames
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        return None

    def _finish(self, why: End) -> None:
        self._waiting.clear()
        self._wake()
        for listener in self._listeners:
            listener(why)

    def _wake(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)
