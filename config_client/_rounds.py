"""The rounds that every watch goes through, and what it remembers. Does no I/O.

Knows commands, outcomes and the clock it is given. What a watch does with a change is in ``watching``.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from httpx_sse import ServerSentEvent

from ._steps import (
    Attempt,
    Command,
    Connection,
    Ended,
    Fetched,
    Forget,
    Halted,
    HangUp,
    Open,
    Opened,
    Outcome,
    Pause,
    Read,
    Report,
    Steps,
    Trouble,
)
from .backoff import MAX_RETRY_AFTER, Backoff, Uniform
from .errors import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    DecryptionError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
)
from .protocol import CHANGED_EVENT, RESET_EVENT, Position, parse_change_event
from .status import State
from .types import ConfigChangeEvent

HEALTHY_SECONDS: Final = 60.0
"""A stream that lived this long was no failure; the next pause is short again."""
MIN_BASE_DELAY: Final = 0.05
"""Seconds; below this, a service that ends every stream at once would be hammered."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a watch is. ``final_errors`` end it; a NotFoundError only while nothing was ever found.

    ``poll_interval``: seconds between two looks at every config while no stream can be had.
    """

    backoff: Backoff
    final_errors: tuple[type[ConfigClientError], ...]
    clock: Callable[[], float] = time.monotonic
    uniform: Uniform = random.uniform
    poll_interval: float = 30.0

    def is_final(self, error: ConfigClientError, *, found: bool) -> bool:
        """Tell whether ``error`` ends the watch of a config that was, or was never, ``found``."""
        return isinstance(error, self.final_errors) and not (found and isinstance(error, NotFoundError))


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest state that a fetch has shown.

    ``position`` never goes back, not even over an answer that tells none (a login page of a proxy, say), so that an
    older state is still known as older after it. ``unopened``: the state at ``position`` could not be opened.
    """

    position: Position | None = None
    etag: str | None = None
    digest: bytes = b""
    unopened: bool = False

    def is_news(self, fetched: Fetched) -> bool:
        """Tell whether ``fetched`` differs from this and is not older."""
        position = fetched.metadata.position
        if position is None or self.position is None:
            return digest_of(fetched) != self.digest
        # The same version may have been sealed anew, under a key that opens it.
        return position > self.position or (position == self.position and self.unopened and fetched.fault is None)

    def after(self, fetched: Fetched) -> Seen:
        """Return the newest state once ``fetched`` has been seen as well."""
        position, unopened = fetched.metadata.position, fetched.fault is not None
        if position is None:
            position, unopened = self.position, self.unopened if self.position else unopened
        elif self.position is not None and position <= self.position:
            if position < self.position:
                return self
            unopened = unopened and self.unopened
        return Seen(position, fetched.metadata.etag, digest_of(fetched), unopened)


class Watch(ABC):
    """The rounds that every watch goes through."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._backoff = policy.backoff
        self._seen = Seen()
        self._found = False
        self._gone = False
        self._caught_up = False
        self._opened = False
        self._fresh = False

    def run(self) -> Steps:
        """Yield commands for ever; raise the error that is final."""
        while True:
            # After a stream that was followed, the next one closes the gap; without one, only loading does.
            followed = self._caught_up
            failure = None if followed else (yield from self._load())
            if failure is None:
                failure = yield from self._stream()
                # Loading works and streaming does not: the value is as current as the last load.
                state = State.STALE if followed or self._opened else State.POLLING
            else:
                state = State.STALE
            yield Connection(state, "no stream" if state is State.POLLING else "connection lost", failure)
            yield from self._back_off(failure)

    def _stream(self) -> Generator[Command, Outcome, ConfigClientError]:
        """Follow one stream from its opening to its end; return what ended it."""
        self._caught_up = self._opened = False
        opened = yield Open(self._last_event_id())
        if isinstance(opened, Halted):
            yield Report(opened.error)
            raise opened.error
        if not isinstance(opened, Opened):
            return failure_of(opened)
        since = self._policy.clock()
        self._opened = True
        failure = yield from self._close_gap(opened)
        self._caught_up = failure is None
        if self._caught_up:
            yield Connection(State.LIVE)
        self._fresh = not opened.replays
        while failure is None:
            failure = yield from self._read()
        yield HangUp()
        if self._policy.clock() - since >= HEALTHY_SECONDS:
            self._backoff = self._policy.backoff
        return failure

    def _read(self) -> Attempt:
        item = yield Read()
        if item is None:
            return (yield from self._on_heartbeat())
        if isinstance(item, ServerSentEvent):
            return (yield from self._on_sse(item))
        if isinstance(item, Ended):
            return ConnectionError("the service ended the stream")
        return failure_of(item)

    def _last_event_id(self) -> str:
        return ""

    def _on_heartbeat(self) -> Attempt:
        """Do what is to be done now and then while a stream is open."""
        yield from ()
        return None

    @abstractmethod
    def _load(self) -> Attempt:
        """Do what can be done before a stream is open."""

    @abstractmethod
    def _close_gap(self, opened: Opened) -> Attempt:
        """Find out what changed while no stream was open."""

    @abstractmethod
    def _on_change(self, event: ConfigChangeEvent) -> Attempt:
        """Act on a change that the stream tells."""

    @abstractmethod
    def _look(self) -> Attempt:
        """Find out what the stream, which is open, cannot tell."""

    def _on_sse(self, sse: ServerSentEvent) -> Attempt:
        fresh, self._fresh = self._fresh, False
        if sse.event == RESET_EVENT:
            # At the start of a stream it says why nothing is replayed; the fetch after the opening has made up for it.
            return None if fresh else (yield from self._look())
        if sse.event != CHANGED_EVENT or not sse.data:
            return None
        try:
            event = parse_change_event(sse.data)
        except InvalidResponseError as error:
            unreadable = error
        else:
            return (yield from self._on_change(event))
        # Something changed; the fetch tells what.
        return (yield from self._outlive(unreadable)) or (yield from self._look())

    def _back_off(self, failure: ConfigClientError) -> Steps:
        if not self._found or not isinstance(failure, NotFoundError):
            if isinstance(failure, UnauthorizedError | ForbiddenError | NotFoundError):
                yield Forget()
            yield Report(failure)
        else:
            yield from self._lose(failure)
        if self._is_final(failure):
            raise failure
        delay, self._backoff = self._backoff.next()
        yield Pause(max(delay, asked_pause(failure)))

    def _is_final(self, error: ConfigClientError) -> bool:
        return self._policy.is_final(error, found=self._found)

    def _outlive(self, error: ConfigClientError) -> Attempt:
        """Report an error that the stream outlives; return one that it does not."""
        if self._is_final(error):
            return error
        yield Report(error)
        return None

    def _lose(self, error: NotFoundError) -> Generator[Command, Outcome, bool]:
        """Report that the config is gone, once; tell whether this was news."""
        known = self._gone
        if not known:
            yield Report(error)
            yield Forget()
            yield Trouble("deleted", error)
        # Not before all is said of it, since the watch may be called back between any two commands.
        self._gone = True
        return not known


def limited(backoff: Backoff) -> Backoff:
    """Return ``backoff`` with bounds that cannot make a hot loop."""
    return backoff._replace(base=max(backoff.base, MIN_BASE_DELAY), cap=max(backoff.cap, MIN_BASE_DELAY))


def asked_pause(failure: ConfigClientError) -> float:
    """Return the seconds that the service asked to wait (``Retry-After``), within reason."""
    asked = failure.retry_after if isinstance(failure, ConnectionError) else None
    return min(asked or 0.0, MAX_RETRY_AFTER)


def trouble_of(error: ConfigClientError) -> str:
    """Return in a few words what keeps a document from being taken."""
    if isinstance(error, DecryptionError):
        return "cannot be opened"
    return "refused by pre_apply" if isinstance(error, RefusedError) else "does not decode"


def failure_of(outcome: Outcome) -> ConfigClientError:
    """Return the error that an outcome is."""
    if isinstance(outcome, ConfigClientError):
        return outcome
    raise TypeError(f"a driver answered with {type(outcome).__name__}")


def position_of(event: ConfigChangeEvent) -> Position | None:
    """Return where in the service's history a change stands, if it tells."""
    # Parsed, not built: a foreign epoch has no order, and would travel in a header when the stream is resumed.
    return Position.parse(f"{event.epoch}-{event.revision}")


def later(one: Position | None, other: Position | None) -> Position | None:
    """Return the later of two positions, of which either may be unknown."""
    return max(one, other) if one and other else one or other


def differs(told: str | None, own: str | None) -> bool:
    """Tell whether both are known and are not the same."""
    return told is not None and own is not None and told != own


def is_blank(fetched: Fetched) -> bool:
    """Tell whether there is nothing to compare an answer by: neither text nor tag nor position."""
    metadata = fetched.metadata
    return fetched.fault is not None and metadata.etag is None and metadata.position is None


def digest_of(fetched: Fetched) -> bytes:
    """Return what tells documents apart; of one that was not opened, only its entity tag does."""
    return sha256(fetched.document or (fetched.metadata.etag or "").encode()).digest()
