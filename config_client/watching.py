"""What a watch does next: a state machine without I/O.

A watch is a generator that yields commands (open the stream, fetch, pause …) and is sent their outcomes; a driver
performs them, on a thread or as a task. Here stand the rules; a driver has none. Knows neither HTTP nor keys nor types
of the application, and takes its clock as a parameter.

    load ──► open ──► fetch if changed ──► read … read ──► hang up ──► pause ──► open …
      ▲        │      subscribed first, so that a change before the fetch is fetched and one after it is an event
      └─ pause ┘      no stream to be had: loading again keeps the value current meanwhile

Two watches share these rounds: ``ValueWatch`` keeps a value current, ``EventWatch`` tells of every change. Both hold
the laws: no change is lost (the fetch after every open), never backwards (positions only grow), and what cannot be
used is reported once and not fetched again until it changes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from datetime import datetime, timezone

from ._rounds import Policy, Watch, differs, failure_of, is_blank, later, position_of, trouble_of
from ._steps import (
    Apply,
    Attempt,
    Clear,
    Command,
    Fetch,
    Fetched,
    Heard,
    Notify,
    NotModified,
    Opened,
    Outcome,
    Report,
    Steps,
    Trouble,
)
from ._tracks import Track
from .errors import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    NotFoundError,
)
from .protocol import Metadata, Position
from .types import ConfigChangeEvent


class ValueWatch(Watch):
    """Keeps the value of one config current."""

    def __init__(self, policy: Policy, track: Track | None = None) -> None:
        super().__init__(policy)
        self._fault: ConfigClientError | None = None
        """What kept the state in ``_seen`` from being taken."""
        self._doubtful = False
        """Whether the config was absent for the watch before this one, and was not looked at since."""
        self._name = track.name if track is not None else None
        if track is not None:
            self._seen, self._fault, self._doubtful = track.seen, track.fault, bool(track.gone)
            self._found = track.found or track.patient
        self._environment: str | None = None
        self._label: str | None = None
        self._announced: Position | None = None
        self._asked = 0.0
        """When the config was last asked for."""

    def hand_over(self, track: Track) -> None:
        """Let whoever goes on with ``track`` know what was seen."""
        track.seen, track.found, track.fault = self._seen, self._found, self._fault
        track.gone, track.tombstone = "deleted" if self._gone else "", False

    def _load(self) -> Attempt:
        return (yield from self._catch_up())

    def _close_gap(self, opened: Opened) -> Attempt:
        # The stream tells what comes after its opening, so the fetch must not be answered by a replica from before.
        return (yield from self._catch_up(opened.position))

    def _look(self) -> Attempt:
        return (yield from self._catch_up())

    def _on_heartbeat(self) -> Attempt:
        if not self._seen.unopened or self._policy.clock() - self._asked < self._policy.poll_interval:
            return None
        return (yield from self._catch_up())

    def _on_change(self, event: ConfigChangeEvent) -> Attempt:
        if differs(event.config_name, self._name):
            return None
        if differs(event.environment, self._environment) or differs(event.label, self._label):
            return None
        position = position_of(event)
        failure: ConfigClientError | None = None
        if position is None or self._seen.position is None or position > self._seen.position:
            if position is not None and (event.environment, event.label) == (self._environment, self._label):
                self._announced = later(self._announced, position)
            if event.deleted and position is not None:
                yield from self._lose(NotFoundError(f"config {event.config_name!r} was deleted; the last value stays"))
            else:
                _, failure = yield from self._refresh()
        yield Heard()
        return failure

    def _catch_up(self, at_least: Position | None = None) -> Attempt:
        """Find what no event has told; return what kept that from being known."""
        first = not self._found
        changed, failure = yield from self._refresh(at_least)
        if changed and not first:
            yield Heard()
        return failure

    def _refresh(
        self, at_least: Position | None = None
    ) -> Generator[Command, Outcome, tuple[bool, ConfigClientError | None]]:
        """Fetch the config if it changed and apply it; tell whether it had changed, and what kept that from working."""
        self._asked = self._policy.clock()
        # What could not be opened is asked for as a whole, since keys may have come meanwhile.
        etag = None if self._seen.unopened else self._seen.etag
        fetched = yield Fetch(etag, later(at_least, self._announced))
        if isinstance(fetched, NotFoundError) and self._found:
            return (yield from self._lose(fetched)), None
        if isinstance(fetched, NotModified):
            failure = self._behind(self._seen.position)
            if failure is None:
                yield from self._find_again()
            return False, failure
        if not isinstance(fetched, Fetched):
            return False, failure_of(fetched)
        metadata, fault = fetched.metadata, fetched.fault
        self._found = True
        self._environment, self._label = metadata.environment, metadata.label
        failure = self._behind(metadata.position)
        if not self._seen.is_news(fetched):
            self._seen = self._seen.after(fetched)
            if failure is None:
                yield from self._find_again()
            return False, failure
        self._gone = self._doubtful = False
        if fault is None:
            outcome = yield Apply(fetched.document, metadata)
            fault = outcome if isinstance(outcome, ConfigClientError) else None
        if fault is not None:
            failure = (yield from self._outlive(fault)) or failure
            yield Trouble(trouble_of(fault), fault)
        # A document that cannot be used counts as seen: fetching it again would not mend it. Not before all is said of
        # it, since the watch may be called back between any two commands.
        self._seen, self._fault = self._seen.after(fetched), fault
        return True, failure

    def _find_again(self) -> Steps:
        """Take note that the config is as it was seen last."""
        if not self._gone and not self._doubtful:
            return
        self._gone = self._doubtful = False
        if self._fault is None:
            yield Clear()
        else:
            yield Trouble(trouble_of(self._fault), self._fault)

    def _behind(self, position: Position | None) -> ConfigClientError | None:
        """Return the failure of an answer that is older than what the stream has told of this very config."""
        if self._announced is None or position is None or position >= self._announced:
            return None
        return ConnectionError("the service answered with an older state than it had announced (a replica behind?)")


class EventWatch(Watch):
    """Tells of every change of one config name.

    A fetch before the first stream is what later ones are compared with. Our own service says at the opening where its
    history stands and replays what was missed, so nothing more is fetched unless it cannot replay: then the newest
    state is told, if it was not yet. From a foreign service a fetch after every opening shows whether something was
    missed; which version that was it may not tell, and a change may then be told of twice, but is never missed. An
    event made from a fetch has version and changed_by 0 if the service does not tell them.

    ``everywhere``: no environment was named, so the stream carries all of them, while a fetch shows the token's own.
    ``config_name`` names the events that a fetch gives rise to.
    """

    def __init__(self, policy: Policy, config_name: str, *, everywhere: bool) -> None:
        super().__init__(policy)
        self._name = config_name
        self._everywhere = everywhere
        self._start: Position | None = None
        self._resume: Position | None = None
        """Everything up to here was told on the stream, or was there before it."""
        self._told: dict[tuple[str | None, str | None], Position] = {}
        self._tried = False
        self._based = False
        """Whether ``_seen`` or ``_present`` says how things stood when the watch began, or were told since."""
        self._opened_before = False
        self._fetched_key: tuple[str | None, str | None] | None = None
        self._present = True
        """Whether the config was there when last looked at; in doubt it was, and its absence is worth telling."""

    def _load(self) -> Attempt:
        """Fetch what later fetches are compared with: before the stream is open, so that it holds no change of it."""
        if not self._tried:
            self._tried = True
            fetched = yield Fetch()
            if isinstance(fetched, NotFoundError):
                self._based, self._present = True, False
            if isinstance(fetched, Fetched) and not is_blank(fetched):
                self._based = True
                self._note(fetched)
        return None

    def _last_event_id(self) -> str:
        return str(self._resume) if self._resume else ""

    def _close_gap(self, opened: Opened) -> Attempt:
        again, self._opened_before = self._opened_before, True
        self._gone = False
        position = opened.position
        if position is not None:
            self._found = True
            # A replica that is behind repeats what was told, and all that was missed comes after it.
            behind = again and self._resume is not None and position <= self._resume
            self._start, self._resume = self._start or position, self._resume or position
            if opened.replays or behind or (self._based and not again):
                return None
        failure = yield from self._compare(tell=again or self._based, opened_at=position)
        if failure is not None and not again:
            # Nothing can have been missed yet, and the stream that is open tells what comes.
            failure = yield from self._outlive(failure)
        if failure is None:
            self._found = True
            self._resume = later(self._resume, position)
        return failure

    def _look(self) -> Attempt:
        return (yield from self._compare(tell=True))

    def _on_change(self, event: ConfigChangeEvent) -> Attempt:
        # Only what the stream tells moves this on: a fetch may show one config ahead of others still on their way.
        self._resume = later(self._resume, position_of(event))
        if (event.environment, event.label) == self._fetched_key:
            self._present = not event.deleted
        yield from self._tell(event)
        return None

    def _compare(self, *, tell: bool, opened_at: Position | None = None) -> Attempt:
        """Fetch, and tell the difference from what is known. What came after ``opened_at`` is left to the stream."""
        fetched = yield Fetch(self._seen.etag, opened_at)
        if isinstance(fetched, NotModified):
            return None
        if isinstance(fetched, NotFoundError) and (self._found or self._everywhere):
            if not self._found:
                # The stream is open, so this may be a name of other environments; it may also be a mistyped one.
                yield Report(fetched)
            self._seen = replace(self._seen, etag=None, digest=b"")
            if tell and self._present:
                self._present = False
                yield from self._tell(self._event(Metadata(), deleted=True))
            return None
        if isinstance(fetched, ForbiddenError) and self._everywhere:
            # The stream is open: the token may read other environments.
            return None
        if not isinstance(fetched, Fetched):
            return failure_of(fetched)
        metadata = fetched.metadata
        position = metadata.position
        if position is not None and opened_at is not None and position > opened_at:
            # Not noted: should the stream end before it tells this, the next fetch has to.
            return None
        if position is not None and self._resume is not None:
            news = position > self._resume
        else:
            # In doubt it is told.
            news = self._seen.is_news(fetched) or is_blank(fetched)
        if tell or position is not None:
            self._based = True
            self._note(fetched)
        if news and tell:
            yield from self._tell(self._event(metadata))
        return None

    def _note(self, fetched: Fetched) -> None:
        self._seen = self._seen.after(fetched)
        self._found = self._present = True
        self._fetched_key = (fetched.metadata.environment, fetched.metadata.label)

    def _event(self, metadata: Metadata, *, deleted: bool = False) -> ConfigChangeEvent:
        position = metadata.position
        return ConfigChangeEvent(
            config_name=self._name,
            version=metadata.version or 0,
            changed_by=metadata.changed_by or 0,
            timestamp=metadata.timestamp or datetime.now(timezone.utc),
            environment=metadata.environment,
            label=metadata.label,
            epoch=position.epoch if position else None,
            revision=position.revision if position else None,
            deleted=deleted,
        )

    def _tell(self, event: ConfigChangeEvent) -> Steps:
        position = position_of(event)
        if position is not None:
            key = (event.environment, event.label)
            known = later(self._told.get(key), self._start)
            if known is not None and position <= known:
                return
            self._told[key] = position
        yield Notify(event)
        yield Heard()
