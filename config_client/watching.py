"""What a watch does next: a state machine without I/O.

A watch is a generator that yields commands (open the stream, fetch, pause …) and is sent their outcomes; a driver
performs them, on a thread or as a task. Here stand the rules; a driver has none. Knows neither HTTP nor keys nor types
of the application, and takes its clock as a parameter.

    load ──► open ──► fetch if changed ──► read … read ──► hang up ──► pause ──► open …
             subscribed first, so that a change before the fetch is fetched and one after it is an event

Two watches share these rounds: ``ValueWatch`` keeps a value current, ``EventWatch`` tells of every change. Both hold
the laws: no change is lost (the fetch after every open), never backwards (positions only grow), and what cannot be
used is reported once and not fetched again until it changes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from typing import Final, TypeAlias

from httpx_sse import ServerSentEvent

from .backoff import Backoff
from .errors import ConfigClientError, ConnectionError, InvalidResponseError, NotFoundError  # noqa: A004 - ours
from .protocol import CHANGED_EVENT, RESET_EVENT, Metadata, Position, parse_change_event
from .types import ConfigChangeEvent

HEALTHY_SECONDS: Final = 60.0
"""A stream that lived this long was no failure; the next pause is short again."""
MIN_BASE_DELAY: Final = 0.05
"""Seconds; below this, a service that ends every stream at once would be hammered."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the config, unless it still has ``etag``. Outcome: Fetched, NotModified or an error."""

    etag: str | None = None
    at_least: Position | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Open the stream. Outcome: Opened or an error."""

    last_event_id: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Take the next event of the stream. Outcome: ServerSentEvent, Ended or an error."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the stream."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Apply:
    """Decode and store a document. Outcome: None, or the error that kept the old value in place."""

    document: bytes
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the application of a change."""

    event: ConfigChangeEvent


@dataclass(frozen=True, slots=True)
class Heard:
    """A change of the watched config was heard of, whether or not its value could be used."""

    config_name: str


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the application of an error that does not end the watch (or is about to)."""

    error: ConfigClientError


@dataclass(frozen=True, slots=True)
class Fetched:
    """A config as it was served; ``fault`` instead of ``document`` when it could not be opened."""

    metadata: Metadata
    document: bytes = b""
    fault: ConfigClientError | None = None


@dataclass(frozen=True, slots=True)
class NotModified:
    """The config still has the entity tag that was sent."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is open. ``position``: the service's history at that moment; None from a foreign service.

    ``replays``: every change since the ``last_event_id`` that was sent follows on the stream.
    """

    position: Position | None = None
    replays: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The service ended the stream."""


Command: TypeAlias = Fetch | Open | Read | HangUp | Pause | Apply | Notify | Heard | Report
Outcome: TypeAlias = Fetched | NotModified | Opened | Ended | ServerSentEvent | ConfigClientError | None
Steps: TypeAlias = Generator[Command, Outcome, None]
Attempt: TypeAlias = Generator[Command, Outcome, ConfigClientError | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a watch is. ``final_errors`` end it; a NotFoundError only while nothing was ever found."""

    backoff: Backoff
    final_errors: tuple[type[ConfigClientError], ...]
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest state that a fetch has shown."""

    position: Position | None = None
    etag: str | None = None
    digest: bytes = b""

    def is_news(self, fetched: Fetched) -> bool:
        """Tell whether ``fetched`` differs from this and is not older."""
        position = fetched.metadata.position
        if position is not None and self.position is not None:
            return position > self.position
        return _digest(fetched) != self.digest


class _Watch(ABC):
    """The rounds that every watch goes through."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._backoff = policy.backoff
        self._seen = _Seen()
        self._found = False

    def run(self) -> Steps:
        """Yield commands for ever; raise the error that is final."""
        yield from self._begin()
        while True:
            opened = yield Open(self._last_event_id())
            if isinstance(opened, Opened):
                since = self._policy.clock()
                failure = yield from self._follow(opened)
                yield HangUp()
                if self._policy.clock() - since >= HEALTHY_SECONDS:
                    self._backoff = self._policy.backoff
            else:
                failure = _failure(opened)
            yield from self._back_off(failure)

    def _begin(self) -> Steps:
        yield from ()

    def _last_event_id(self) -> str:
        return ""

    def _follow(self, opened: Opened) -> Generator[Command, Outcome, ConfigClientError]:
        failure = yield from self._close_gap(opened)
        while failure is None:
            item = yield Read()
            if isinstance(item, ServerSentEvent):
                failure = yield from self._on_sse(item)
            elif isinstance(item, Ended):
                failure = ConnectionError("the service ended the stream")
            else:
                failure = _failure(item)
        return failure

    @abstractmethod
    def _close_gap(self, opened: Opened) -> Attempt:
        """Find out what changed while no stream was open."""

    @abstractmethod
    def _on_change(self, event: ConfigChangeEvent) -> Attempt:
        """Act on a change that the stream tells."""

    @abstractmethod
    def _on_reset(self) -> Attempt:
        """Act on a stream that cannot tell what was missed."""

    def _on_sse(self, sse: ServerSentEvent) -> Attempt:
        if sse.event == RESET_EVENT:
            return (yield from self._on_reset())
        if sse.event != CHANGED_EVENT or not sse.data:
            return None
        try:
            event = parse_change_event(sse.data)
        except InvalidResponseError as error:
            unreadable = error
        else:
            return (yield from self._on_change(event))
        yield Report(unreadable)
        # Something changed; the fetch tells what.
        return (yield from self._on_reset())

    def _back_off(self, failure: ConfigClientError) -> Steps:
        yield Report(failure)
        if isinstance(failure, self._policy.final_errors) and not (isinstance(failure, NotFoundError) and self._found):
            raise failure
        delay, self._backoff = self._backoff.next()
        yield Pause(delay)


class ValueWatch(_Watch):
    """Keeps the value of one config current."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._environment: str | None = None
        self._label: str | None = None
        self._gone = False

    def _begin(self) -> Steps:
        while (failure := (yield from self._catch_up())) is not None:
            yield from self._back_off(failure)

    def _close_gap(self, opened: Opened) -> Attempt:
        return (yield from self._catch_up())

    def _on_reset(self) -> Attempt:
        return (yield from self._catch_up())

    def _on_change(self, event: ConfigChangeEvent) -> Attempt:
        if _differs(event.environment, self._environment) or _differs(event.label, self._label):
            return None
        position = _position(event)
        if position is not None and self._seen.position is not None and position <= self._seen.position:
            return None
        failure: ConfigClientError | None = None
        if event.deleted:
            yield from self._lose(NotFoundError(f"config {event.config_name!r} was deleted; the last value stays"))
        else:
            failure = yield from self._catch_up(at_least=position if event.environment and event.label else None)
        yield Heard(event.config_name)
        return failure

    def _catch_up(self, at_least: Position | None = None) -> Attempt:
        """Fetch the config if it changed and apply it; return what kept that from being known."""
        fetched = yield Fetch(self._seen.etag, at_least)
        if isinstance(fetched, NotFoundError) and self._found:
            yield from self._lose(fetched)
            return None
        if isinstance(fetched, NotModified):
            self._gone = False
            return _behind(self._seen.position, at_least)
        if not isinstance(fetched, Fetched):
            return _failure(fetched)
        self._found, self._gone = True, False
        self._environment, self._label = fetched.metadata.environment, fetched.metadata.label
        if not self._seen.is_news(fetched):
            return _behind(fetched.metadata.position, at_least)
        fault = fetched.fault
        if fault is None:
            outcome = yield Apply(fetched.document, fetched.metadata)
            fault = outcome if isinstance(outcome, ConfigClientError) else None
        # A document that cannot be used counts as seen: fetching it again would not mend it.
        self._seen = _Seen(fetched.metadata.position, fetched.metadata.etag, _digest(fetched))
        if fault is not None:
            yield Report(fault)
        return _behind(fetched.metadata.position, at_least)

    def _lose(self, error: NotFoundError) -> Steps:
        """Report a deletion, once; the value stays."""
        if not self._gone:
            self._gone = True
            yield Report(error)


class EventWatch(_Watch):
    """Tells of every change of one config name.

    Our own service says at the opening where its history stands and replays what was missed, so nothing is fetched
    from it unless it cannot replay. From a foreign service a fetch after every reconnect shows whether something was
    missed; which version that was it may not tell, and a change may then be told of twice, but is never missed.

    ``everywhere``: no environment was named, so the stream carries all of them. ``config_name`` names the events that
    a fetch gives rise to.
    """

    def __init__(self, policy: Policy, config_name: str, *, everywhere: bool) -> None:
        super().__init__(policy)
        self._name = config_name
        self._everywhere = everywhere
        self._resume: Position | None = None
        self._told: dict[tuple[str | None, str | None], Position] = {}
        self._connected_before = False

    def _last_event_id(self) -> str:
        return str(self._resume) if self._resume else ""

    def _close_gap(self, opened: Opened) -> Attempt:
        if opened.position is not None:
            self._found = True
            if self._resume is None:
                self._resume = opened.position
        first, self._connected_before = not self._connected_before, True
        if opened.replays:
            return None
        return (yield from self._compare(tell=not first, own_service=opened.position is not None))

    def _on_reset(self) -> Attempt:
        return (yield from self._compare(tell=True, own_service=True))

    def _on_change(self, event: ConfigChangeEvent) -> Attempt:
        yield from self._tell(event)
        return None

    def _compare(self, *, tell: bool, own_service: bool) -> Attempt:
        fetched = yield Fetch(self._seen.etag)
        if isinstance(fetched, NotModified):
            return None
        if not isinstance(fetched, Fetched):
            failure = _failure(fetched)
            # The name exists (the stream opened), if not in the token's own environment or not any more.
            elsewhere = own_service and self._everywhere and not isinstance(failure, ConnectionError)
            absent = isinstance(failure, NotFoundError) and (self._found or own_service)
            return None if elsewhere or absent else failure
        first, self._found = not self._found, True
        news = self._seen.is_news(fetched)
        metadata = fetched.metadata
        self._seen = _Seen(metadata.position, metadata.etag, _digest(fetched))
        if news and tell and not first:
            position = metadata.position
            yield from self._tell(
                ConfigChangeEvent(
                    config_name=self._name,
                    version=metadata.version or 0,
                    changed_by=metadata.changed_by or 0,
                    timestamp=metadata.timestamp or datetime.now(timezone.utc),
                    environment=metadata.environment,
                    label=metadata.label,
                    epoch=position.epoch if position else None,
                    revision=position.revision if position else None,
                )
            )
        return None

    def _tell(self, event: ConfigChangeEvent) -> Steps:
        position = _position(event)
        if position is not None:
            key = (event.environment, event.label)
            if key in self._told and position <= self._told[key]:
                return
            self._told[key] = position
            self._resume = max(self._resume, position) if self._resume else position
        yield Notify(event)
        yield Heard(event.config_name)


def limited(backoff: Backoff) -> Backoff:
    """Return ``backoff`` with a base that cannot make a hot loop."""
    return backoff._replace(base=max(backoff.base, MIN_BASE_DELAY))


def _failure(outcome: Outcome) -> ConfigClientError:
    if isinstance(outcome, ConfigClientError):
        return outcome
    raise TypeError(f"a driver answered with {type(outcome).__name__}")


def _behind(position: Position | None, at_least: Position | None) -> ConfigClientError | None:
    if at_least is None or position is None or position >= at_least:
        return None
    return ConnectionError("the service answered with an older state than it had announced (a replica that is behind?)")


def _position(event: ConfigChangeEvent) -> Position | None:
    if event.epoch is None or event.revision is None:
        return None
    return Position(event.epoch, event.revision)


def _differs(told: str | None, own: str | None) -> bool:
    return told is not None and own is not None and told != own


def _digest(fetched: Fetched) -> bytes:
    return sha256(fetched.document).digest()
