"""All subscriptions of one client: who keeps which snapshot, on one stream for all of them.

Knows keepers, the cache on disk, the application's callbacks and metrics. How the stream is driven, on a thread or as a
task, is the business of ``_threads`` and ``_tasks``.
"""

from __future__ import annotations

import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ._desk import call, logger, report
from ._horizon import Horizon
from ._keeper import Keeper
from ._opening import Opener
from ._rounds import Policy, Seen, limited
from ._state_watch import StateWatch
from ._steps import (
    Apply,
    Clear,
    Connection,
    Finish,
    Forget,
    Heard,
    LocalCommand,
    Notify,
    Outcome,
    Report,
    Trouble,
    Unseal,
)
from ._tracks import Track
from .backoff import Backoff
from .crypto import Keyring
from .decode import decoder
from .errors import ClosedError, ConfigClientError
from .options import Options
from .protocol import MAX_WATCHED, Metadata
from .snapshot import Snapshot
from .status import State, Status

if TYPE_CHECKING:
    from .cache import Cache, CachedValue

T = TypeVar("T")
AnyKeeper = Keeper[Any]

_SEVERITY: Final = {State.LIVE: 0, State.POLLING: 1, State.INITIALIZING: 2, State.STALE: 3, State.STOPPED: 4}


class Session(ABC):
    """The desk of the shared stream, and of the base streams that stand in for it."""

    def __init__(self, options: Options, opener: Opener, cache: Cache | None, horizon: Horizon, hosts: int) -> None:
        self.options: Final = options
        self.opener: Final = opener
        self._cache = cache
        self._horizon = horizon
        self._hosts = hosts
        self._keepers: dict[Track, AnyKeeper] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._watch = self._new_watch()
        self._contact: float | None = None
        self._refreshed = time.monotonic()
        self._closed = False
        self._warned: set[str] = set()
        self._status = Status(State.INITIALIZING, _now())

    @property
    def status(self) -> Status:
        """How the connection stands; on base streams of their own, how the worst of the configs stands."""
        if not self._delegated() or self._closed:
            return self._status
        known = [keeper.status for keeper in tuple(self._keepers.values())]
        return max(known, key=lambda status: _SEVERITY[status.state], default=self._status)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    # What the application does

    def keep(
        self,
        config_name: str,
        query: dict[str, str],
        target_type: type[T],
        snapshot: Snapshot[T] | None,
        pre_apply: Callable[[T], object] | None,
        *,
        patient: bool,
    ) -> Keeper[T]:
        """Return a keeper of the config, to be added. Raises UnmarshalError when the type is not supported."""
        track = Track(config_name, query.get("environment"), query.get("label"), patient=patient)
        return Keeper(
            track, Snapshot() if snapshot is None else snapshot, decoder(target_type), pre_apply, _NoNews(), self.told
        )

    def add(self, keeper: AnyKeeper) -> None:
        """Keep the snapshot of ``keeper`` current from now on. Raises ClosedError; ConfigClientError for too many."""
        if self._closed:
            raise ClosedError("the client is closed")
        if len(self._keepers) >= MAX_WATCHED:
            raise ConfigClientError(f"one client keeps up to {MAX_WATCHED} subscriptions; use another client for more")
        self._keepers[keeper.track] = keeper
        self._inbox.append(lambda: self._watch.add(keeper.track))
        try:
            self._go_on()
        except ConfigClientError:
            self._keepers.pop(keeper.track, None)
            self._inbox.append(lambda: self._watch.remove(keeper.track))
            raise

    def remove(self, keeper: AnyKeeper) -> None:
        """Leave the snapshot of ``keeper`` as it is."""
        keeper.stop(None)
        if self._keepers.pop(keeper.track, None) is not None:
            self._inbox.append(lambda: self._watch.remove(keeper.track))
            self._dismiss(keeper)
            if not self._keepers:
                self._go_on()

    def end(self, keeper: AnyKeeper, error: ConfigClientError) -> None:
        """Stop ``keeper`` for good, on an error that only it has met."""
        keeper.stop(error)
        self.remove(keeper)

    def close(self) -> None:
        """Stop every keeper. The stream ends with the transport."""
        self._closed = True
        for keeper in tuple(self._keepers.values()):
            keeper.stop(ClosedError("the client is closed"))
        self._keepers.clear()
        self._rest(State.STOPPED, "closed")

    def _rest(self, state: State, reason: str) -> None:
        """Take note that there is no stream any more, and none is wanted."""
        before, self._status = self._status.state, Status(state, _now(), reason)
        if before is State.LIVE:
            self._measure(lambda metrics: metrics.connected(False))

    def age(self, keeper: AnyKeeper) -> float | None:
        """Return the seconds since the value of ``keeper`` was known to be current."""
        return keeper.age(self._contact if keeper.heard is None else keeper.heard)

    def cached(self, track: Track) -> CachedValue | None:
        """Return the last good value of a config that the disk holds."""
        return None if self._cache is None else self._cache.load(track.name, track.environment, track.label)

    def restore(self, keeper: AnyKeeper, cached: CachedValue) -> Outcome | Awaitable[Outcome]:
        """Put a value from the disk in place; return what kept that from working. Called by whoever subscribes."""
        metadata = Metadata(
            version=cached.version,
            position=cached.position,
            environment=cached.environment,
            label=cached.label,
            timestamp=cached.fetched_at,
        )
        age = (_now() - cached.fetched_at).total_seconds()
        outcome = keeper.apply(cached.document, metadata, age=max(0.0, age))
        if inspect.isawaitable(outcome):
            return self._restored_after(outcome, keeper, cached)
        return self._restored(outcome, keeper, cached)

    def would_wait_for_itself(self) -> bool:
        """Tell whether the caller must not block: the watch could not go on meanwhile."""
        return False

    @abstractmethod
    def _go_on(self) -> None:
        """Let the stream take note of a change in the set of configs, starting it if need be."""

    @abstractmethod
    def _dismiss(self, keeper: AnyKeeper) -> None:
        """End the base stream of a config, if it was delegated to one."""

    @abstractmethod
    def _delegated(self) -> bool:
        """Tell whether the configs are on base streams of their own."""

    @abstractmethod
    def delegate(self) -> None:
        """Give every config a base stream of its own."""

    @abstractmethod
    def recall(self) -> None:
        """End the base streams that were delegated."""

    def _aside(self, work: Callable[[], None], track: Track | None = None) -> None:
        """Do what touches the disk. ``track``: the config that this is the latest of; None: not of a single one."""
        work()

    # What the driver hands over

    def subject(self, track: Track | None) -> tuple[str, dict[str, str]]:
        """Return name and query of a config."""
        if track is None:
            raise TypeError("the shared stream is of many configs")
        return track.name, track.query

    def drain(self) -> None:
        """Pass on what has changed in the set of configs."""
        while self._inbox:
            self._inbox.popleft()()

    def contact(self) -> None:
        """Take note that the stream has just brought something, be it a heartbeat."""
        now = time.monotonic()
        self._contact = now
        if self._cache is not None and now - self._refreshed > self.options.cache_max_age / 8:
            self._refreshed = now
            self._aside(self._refresh_cache)

    def perform(self, command: LocalCommand) -> Outcome | Awaitable[Outcome]:
        """Perform a command that needs no network."""
        match command:
            case Unseal():
                return self.opener.state(command.state, command.track.environment, command.track.label)
            case Connection():
                self._connected(command)
                return None
            case Report() if command.track is None:
                # An outage is one warning, not one for every attempt.
                again = str(command.error) in self._warned
                self._warned.add(str(command.error))
                report(self.options, None, command.error, logging.DEBUG if again else logging.WARNING)
                self._each(lambda keeper: keeper.fail(command.error))
        track = None if isinstance(command, Notify | Connection | Unseal) else command.track
        keeper = self._keepers.get(track) if track is not None else None
        return None if keeper is None else self.serve(keeper, command)

    def serve(self, keeper: AnyKeeper, command: LocalCommand) -> Outcome | Awaitable[Outcome]:
        """Perform a command that concerns one config."""
        track = keeper.track
        match command:
            case Apply():
                outcome = keeper.apply(command.document, command.metadata)
                if inspect.isawaitable(outcome):
                    return self._applied_after(outcome, keeper, command)
                return self._applied(outcome, keeper, command)
            case Heard():
                call("on_change", self.options.on_change, track.name)
            case Report():
                report(self.options, track.name, command.error)
                keeper.fail(command.error)
                self._measure(lambda metrics: metrics.failed(track.name, command.error))
            case Connection():
                keeper.connection(command.state, command.reason, command.error)
            case Trouble():
                keeper.trouble(command.reason, command.error)
            case Clear():
                keeper.clear()
            case Forget() if self._cache is not None:
                cache = self._cache
                self._aside(lambda: cache.erase(track.name, track.environment, track.label), track)
            case Finish():
                self._keepers.pop(track, None)
                keeper.stop(command.error)
            case _:
                pass
        return None

    def told(self, keeper: AnyKeeper, status: Status) -> None:
        """Pass a new status on to the metrics."""
        self._measure(lambda metrics: metrics.status(keeper.track.name, status))

    def _connected(self, command: Connection) -> None:
        before = self._status.state
        same = before is command.state and self._status.reason == command.reason
        since = self._status.since if same else _now()
        self._status = Status(command.state, since, command.reason, command.error)
        if command.state is State.LIVE:
            self._warned.clear()
        if command.state is State.STALE:
            self._each(lambda keeper: keeper.lost_contact(self._contact))
        self._each(lambda keeper: keeper.connection(command.state, command.reason, command.error))
        if (before is State.LIVE) is not (command.state is State.LIVE):
            self._measure(lambda metrics: metrics.connected(command.state is State.LIVE))

    def _applied(self, outcome: ConfigClientError | None, keeper: AnyKeeper, command: Apply) -> Outcome:
        if outcome is not None:
            return outcome
        track, metadata = keeper.track, command.metadata
        self._horizon.note(track.name, track.environment, track.label, metadata)
        delay = None
        if metadata.timestamp is not None and self._status.state is State.LIVE:
            delay = max(0.0, (_now() - metadata.timestamp).total_seconds())
        self._measure(lambda metrics: metrics.applied(track.name, metadata.version, delay))
        self._remember(track, command)
        return None

    async def _applied_after(
        self, outcome: Awaitable[ConfigClientError | None], keeper: AnyKeeper, command: Apply
    ) -> Outcome:
        return self._applied(await outcome, keeper, command)

    def _restored(self, outcome: ConfigClientError | None, keeper: AnyKeeper, cached: CachedValue) -> Outcome:
        if outcome is None:
            self._inbox.append(lambda: _hold(keeper.track, cached))
        return outcome

    async def _restored_after(
        self, outcome: Awaitable[ConfigClientError | None], keeper: AnyKeeper, cached: CachedValue
    ) -> Outcome:
        return self._restored(await outcome, keeper, cached)

    def _remember(self, track: Track, command: Apply) -> None:
        cache, metadata = self._cache, command.metadata
        if cache is None:
            return
        from .cache import CachedValue  # noqa: PLC0415 - loaded where there is a cache

        value = CachedValue(
            document=command.document,
            environment=metadata.environment or "",
            label=metadata.label or "",
            version=metadata.version,
            position=metadata.position,
            fetched_at=_now(),
        )
        self._aside(lambda: cache.store(track.name, track.environment, track.label, value), track)

    def _refresh_cache(self) -> None:
        """Seal anew, with the present time, what is still current: its age counts from when it was last confirmed."""
        cache = self._cache
        for track, keeper in tuple(self._keepers.items()):
            if cache is None or keeper.status.state not in {State.LIVE, State.POLLING}:
                continue
            value = cache.load(track.name, track.environment, track.label)
            if value is not None and value.position == keeper.position:
                cache.store(track.name, track.environment, track.label, value._replace(fetched_at=_now()))

    def _each(self, act: Callable[[AnyKeeper], None]) -> None:
        for keeper in tuple(self._keepers.values()):
            act(keeper)

    def _measure(self, tell: Callable[[Any], None]) -> None:
        if self.options.metrics is None:
            return
        try:
            tell(self.options.metrics)
        except Exception as error:
            logger.error("metrics raised %s; the watch goes on", type(error).__name__)

    def _forked(self) -> None:
        """Take note, in a child, that no stream is open yet. Tells nobody: locks may have been held at the fork."""
        self._contact = None
        if self._status.state is not State.STOPPED:
            self._status = Status(State.STALE, _now(), "forked")

    def _new_watch(self) -> StateWatch:
        watch = StateWatch(policy_of(self.options), self._hosts)
        for track in self._keepers:
            watch.add(track)
        return watch


class _NoNews:
    """Stands in for waiters until there are some."""

    def set(self) -> None:
        """Wake nobody."""


def defect(error: BaseException) -> ConfigClientError:
    """Log what should never happen, by its type, and return the error that subscriptions end on."""
    whose = "a defect of this package" if isinstance(error, Exception) else "raised by a callback or from outside"
    text = f"the watch ended on {type(error).__name__}, {whose}"
    logger.error("%s", text)
    return ConfigClientError(text)


def cache_of(options: Options, keyring: Keyring) -> Cache | None:
    """Return the cache on disk that the options ask for."""
    if not options.cache:
        return None
    from .cache import Cache  # noqa: PLC0415 - loaded where there is a cache

    host = ",".join(options.hosts)
    return Cache(options.cache_directory, host=host, keyring=keyring, max_age=options.cache_max_age)


def policy_of(options: Options) -> Policy:
    """Return how patient the watches of a client are."""
    backoff = Backoff(options.retry_delay, cap=options.max_retry_delay)
    return Policy(limited(backoff), options.final_errors, poll_interval=options.poll_interval)


def _hold(track: Track, cached: CachedValue) -> None:
    """Let the watch know of a value from the disk, unless it knows better already."""
    track.found = True
    if track.seen.position is None:
        track.seen = Seen(cached.position)


def _now() -> datetime:
    return datetime.now(timezone.utc)
