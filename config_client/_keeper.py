"""One snapshot kept current: decoding, the application's own proof, the swap, and the status of it all.

Knows documents, types and the application's ``pre_apply``. Knows nothing of streams, keys or disks. Written by one
watching thread or task; statuses are read from anywhere, because each is one frozen value.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from threading import Lock
from typing import Generic, Protocol, TypeVar

from ._tracks import Track
from .errors import ClosedError, ConfigClientError, RefusedError, UnmarshalError
from .protocol import Metadata, Position
from .snapshot import Snapshot
from .status import State, Status

T = TypeVar("T")
Verdict = ConfigClientError | None


class News(Protocol):
    """What wakes those who wait for a first value: an Event of threads or of tasks."""

    def set(self) -> None:
        """Wake all waiters."""


class Keeper(Generic[T]):
    """Keeps ``snapshot`` at the newest document of ``track`` that decodes and that ``pre_apply`` does not refuse."""

    def __init__(
        self,
        track: Track,
        snapshot: Snapshot[T],
        read: Callable[[bytes], T],
        pre_apply: Callable[[T], object] | None,
        news: News,
        tell: Callable[[Keeper[T], Status], None],
    ) -> None:
        self.track = track
        self.snapshot = snapshot
        self.news = news
        self.status = Status(State.INITIALIZING, _now())
        self.failure: ConfigClientError | None = None
        """The last error of the config or its connection; None since it was last LIVE."""
        self.position: Position | None = None
        self.heard: float | None = None
        """When its own base stream last brought anything (monotonic); None on the shared stream."""
        self._read = read
        self._pre_apply = pre_apply
        self._tell = tell
        self._lock = Lock()
        self._filled = False
        self._restored = False
        self._trouble: tuple[str, ConfigClientError] | None = None
        self._connection: tuple[State, str] = (State.INITIALIZING, "")
        self._confirmed: float | None = None

    @property
    def filled(self) -> bool:
        """Whether a value is in place that came from the service or from the disk."""
        return self._filled

    @property
    def troubled(self) -> bool:
        """Whether the newest state is known, and cannot be taken."""
        return self._trouble is not None

    @property
    def stopped(self) -> bool:
        """Whether nothing will change any more."""
        return self.status.state is State.STOPPED

    def age(self, contact: float | None) -> float | None:
        """Return the seconds since the value was known to be current; None without a value.

        ``contact``: when the service was last heard of on the open stream (monotonic).
        """
        confirmed = self._confirmed
        if confirmed is None:
            return None
        if self.status.state is State.LIVE and contact is not None:
            confirmed = max(confirmed, contact)
        return max(0.0, time.monotonic() - confirmed)

    def apply(self, document: bytes, metadata: Metadata, *, age: float | None = None) -> Verdict | Awaitable[Verdict]:
        """Decode ``document``, ask ``pre_apply``, and swap; return what kept the old value in place.

        Awaitable when ``pre_apply`` is. ``age``: it comes from the disk, and was current that many seconds ago. A
        document that is older than the one in place changes nothing.
        """
        try:
            value = self._read(document)
        except UnmarshalError as error:
            return error.with_traceback(None)
        if self._pre_apply is None:
            return self._swap(value, metadata, age)
        try:
            verdict = self._pre_apply(value)
        except Exception as error:
            return _refusal(error)
        if inspect.isawaitable(verdict):
            return self._apply_after(verdict, value, metadata, age)
        return self._swap(value, metadata, age) if verdict is not False else _refusal(None)

    def fall_back(self, value: T) -> None:
        """Put the application's own default in place, unless something better is."""
        with self._lock:
            if not self._filled:
                self.snapshot.store(value)

    def connection(self, state: State, reason: str, error: ConfigClientError | None) -> None:
        """Take note of what the connection came to be."""
        self._connection = (state, reason)
        if error is not None:
            self.failure = error
        elif state is State.LIVE:
            # What is left is what the config itself has to complain of.
            self.failure = None if self._trouble is None else self._trouble[1]
        if state is not State.STALE and self._trouble is None and self._filled:
            self._confirmed = time.monotonic()
        self._refresh()

    def lost_contact(self, contact: float | None) -> None:
        """Take note that nothing confirms the value any more since ``contact``."""
        if contact is not None and self._confirmed is not None and self._trouble is None:
            self._confirmed = max(self._confirmed, contact)

    def trouble(self, reason: str, error: ConfigClientError) -> None:
        """Take note that the newest state cannot be taken."""
        self._trouble = (reason, error)
        self.failure = error
        self._refresh()

    def fail(self, error: ConfigClientError) -> None:
        """Take note of an error of the config or of the connection; the status may follow."""
        self.failure = error
        self.news.set()

    def clear(self) -> None:
        """Take note that the trouble is over."""
        self._trouble = None
        self._refresh()

    def stop(self, error: ConfigClientError | None) -> None:
        """End: nothing is stored from here on."""
        if self.stopped:
            return
        self.failure = error or self.failure
        reason = "closed" if error is None or isinstance(error, ClosedError) else "ended by an error"
        self._become(Status(State.STOPPED, _now(), reason, error))
        self.snapshot._wake()

    def renew(self, news: News) -> None:
        """Go on in a forked child, where no other thread lives on and no stream is open yet. Tells nobody."""
        self._lock = Lock()
        self.news = news
        self.snapshot._renew_locks()
        self._connection = (State.STALE, "forked")
        if self.status.state in {State.LIVE, State.POLLING}:
            self.status = Status(State.STALE, _now(), "forked")

    async def _apply_after(
        self, verdict: Awaitable[object], value: T, metadata: Metadata, age: float | None
    ) -> Verdict:
        try:
            accepted = await verdict
        except Exception as error:
            return _refusal(error)
        return self._swap(value, metadata, age) if accepted is not False else _refusal(None)

    def _swap(self, value: T, metadata: Metadata, age: float | None) -> Verdict:
        with self._lock:
            position = metadata.position
            if self.stopped or (position is not None and self.position is not None and position <= self.position):
                return None
            # The value first: a child forked in between has to be told of it again.
            self.snapshot.store(value, version=metadata.version, updated_at=metadata.timestamp)
            self.position = position or self.position
            self._filled, self._restored = True, age is not None
            self._confirmed = time.monotonic() - (age or 0.0)
        if age is None:
            self._trouble = None
        self._refresh()
        return None

    def _refresh(self) -> None:
        """Derive the status from the connection, the trouble, and whether there is a value."""
        state, reason = self._connection
        if self._trouble is not None:
            state, reason = State.STALE, self._trouble[0]
        if not self._filled:
            state = State.INITIALIZING
        elif self._restored and self._trouble is None and state in {State.INITIALIZING, State.STALE}:
            state, reason = State.STALE, "from the cache"
        elif state is State.INITIALIZING:
            # What the service has just told is current, also before it has told of everything.
            state, reason = State.LIVE, ""
        if state is State.LIVE:
            self.failure = None
        failure = self.failure
        if (state, reason, failure) != (self.status.state, self.status.reason, self.status.error):
            self._become(Status(state, _now(), reason, failure))
        self.news.set()

    def _become(self, status: Status) -> None:
        if self.stopped:
            return
        same = status.state is self.status.state and status.reason == self.status.reason
        self.status = status if not same else Status(status.state, self.status.since, status.reason, status.error)
        if not same:
            self._tell(self, self.status)
        self.news.set()


def _refusal(error: Exception | None) -> RefusedError:
    # By type only: whoever tries a password may well put it into the text of a failure.
    why = "returned False" if error is None else f"raised {type(error).__name__}"
    return RefusedError(f"pre_apply {why}; the old value stays until another version is published")


def _now() -> datetime:
    return datetime.now(timezone.utc)
