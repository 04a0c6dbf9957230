"""The watch of many configs on one stream: the rules of the state-first watch, without I/O.

    ┌──► open ──► state … state ──► synced ──► change … change ──► hang up ──┐
    │     │                         LIVE                                     │ STALE
    │     └─ not to be had ──► next host ─ none left ──► poll? ──► pause ────┤
    └────────────────────────────────────────────────────────────────────────┘

Every opening tells the service what is held, config by config, and the service states what differs. So nothing can be
skipped, whatever was missed: a reconnect, a failover and a restored backup are all the same case. Positions only grow,
so what arrives late, twice or out of order changes nothing. What cannot be used is reported once and not asked for
again until it changes; what could not be opened is asked for again with every opening, since keys may be rotated.

Knows neither HTTP nor keys nor types of the application. The set of configs changes between two steps.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from httpx_sse import ServerSentEvent

from ._rounds import HEALTHY_SECONDS, Policy, asked_pause, failure_of, trouble_of
from ._steps import (
    Apply,
    Attempt,
    Clear,
    Command,
    Connection,
    Delegate,
    Ended,
    Fetch,
    Fetched,
    Finish,
    Forget,
    Halted,
    HangUp,
    Heard,
    NotModified,
    OpenStates,
    Outcome,
    Pause,
    Read,
    Recall,
    Report,
    StatesOpened,
    Steps,
    Trouble,
    Unseal,
    Unsupported,
    Woken,
)
from ._tracks import Track
from .errors import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
)
from .protocol import (
    CHANGED_EVENT,
    DEFAULT_ENVIRONMENT,
    DEFAULT_LABEL,
    STATE_EVENT,
    SYNCED_EVENT,
    ConfigState,
    Standing,
    metadata_of,
    parse_config_state,
)
from .status import State

PROBE_SECONDS: Final = 60.0
"""Seconds, jittered, after which a service that spoke only the base protocol is asked again for more."""

_Key = tuple[str, str, str]


class StateWatch:
    """Keeps the values of any number of configs current. ``add`` and ``remove`` between two steps of ``run``."""

    def __init__(self, policy: Policy, hosts: int = 1) -> None:
        self._policy = policy
        self._backoff = policy.backoff
        self._hosts = hosts
        self._host = 0
        self._tried = 0
        self._due = [0.0] * hosts
        """When each host may be asked again, as it has said itself."""
        self._tracks: dict[Track, None] = {}
        self._delegated = False
        self._blocked = 0
        """Rounds in a row in which no stream came as far as ``synced``."""
        self._poll_due = 0.0
        """When every config is to be looked at again."""
        self._asked = 0.0
        """When the service was last told what is held."""
        self._state = State.INITIALIZING

    def add(self, track: Track) -> None:
        """Watch ``track`` from the next opening on, which follows at once if the driver is woken."""
        self._tracks[track] = None
        # Whoever subscribes waits for a first value, and not for the next turn.
        self._poll_due = 0.0

    def remove(self, track: Track) -> None:
        """Leave ``track`` alone from now on."""
        self._tracks.pop(track, None)

    def run(self) -> Steps:
        """Yield commands as long as there is something to watch."""
        while self._tracks:
            failure = yield from self._follow()
            if failure is not None:
                yield from self._recover(failure)

    # One stream

    def _follow(self) -> Attempt:
        """Follow one stream from its opening to its end; return what ended it, None when only the set has changed."""
        self._asked = self._policy.clock()
        opened = yield OpenStates(tuple(track.held for track in self._tracks), self._host)
        if isinstance(opened, Unsupported) or (self._delegated and not isinstance(opened, StatesOpened)):
            return (yield from self._delegate())
        if isinstance(opened, Halted):
            yield from self._finish_all(opened.error)
            return None
        if not isinstance(opened, StatesOpened):
            return failure_of(opened)
        if self._delegated:
            self._delegated = False
            yield Recall()
        since = self._policy.clock()
        failure = self._behind(opened)
        if failure is None:
            failure = yield from self._listen(opened)
        yield HangUp()
        if self._state is State.LIVE and self._policy.clock() - since >= HEALTHY_SECONDS:
            self._backoff, self._tried = self._policy.backoff, 0
        return failure

    def _listen(self, opened: StatesOpened) -> Attempt:
        tracks = self._index(opened.environment or DEFAULT_ENVIRONMENT)
        synced = False
        while self._tracks:
            # Were an opening given up for every new config, many new ones in a row would keep all from their states.
            item = yield Read(patient=not synced)
            if isinstance(item, Woken):
                break
            if item is None:
                if self._may_open_now():
                    break
                continue
            if isinstance(item, Ended):
                return ConnectionError("the service ended the stream")
            if not isinstance(item, ServerSentEvent):
                return failure_of(item)
            if item.event == SYNCED_EVENT:
                synced = True
                self._blocked, self._poll_due = 0, 0.0
                self._state = State.LIVE
                yield Connection(State.LIVE)
            elif item.event in {STATE_EVENT, CHANGED_EVENT} and item.data:
                try:
                    state = parse_config_state(item.data)
                except InvalidResponseError as error:
                    # Of which config is unknown; the next opening states whatever is not held.
                    return error
                for track in tracks.get((state.name, state.environment, state.label), ()):
                    if track in self._tracks:
                        yield from self._take(track, state)
        return None

    def _may_open_now(self) -> bool:
        """Tell whether it is time to ask once more for what could not be opened: keys may have come meanwhile."""
        now = self._policy.clock()
        if now - self._asked < self._policy.poll_interval:
            return False
        return any(track.seen.unopened and not track.gone for track in self._tracks)

    def _index(self, environment: str) -> dict[_Key, list[Track]]:
        tracks: dict[_Key, list[Track]] = {}
        for track in self._tracks:
            key = (track.name, track.environment or environment, track.label or DEFAULT_LABEL)
            tracks.setdefault(key, []).append(track)
        return tracks

    def _behind(self, opened: StatesOpened) -> ConfigClientError | None:
        """Return the failure of a service whose history is an earlier one than what was seen."""
        if opened.position is None:
            return None
        for track in self._tracks:
            if track.seen.position is not None and opened.position.epoch < track.seen.position.epoch:
                return ConnectionError(
                    "the service has an earlier history than the one seen before (an old backup, or another service?)"
                )
        return None

    # One config

    def _take(self, track: Track, state: ConfigState) -> Steps:
        """Act on what the service states of a config."""
        where = f"config {state.name!r} in environment {state.environment!r}, label {state.label!r}"
        if state.standing is Standing.REFUSED:
            yield from self._lose(track, ForbiddenError(f"{where}: the token's scopes do not cover it"), "refused")
        elif state.standing is Standing.MISSING:
            yield from self._lose(track, NotFoundError(f"{where}: nothing was ever published"), "missing")
        elif state.position is None or (track.seen.position is not None and state.position < track.seen.position):
            return
        elif state.standing is Standing.DELETED:
            if not track.tombstone or state.position != track.seen.position:
                yield from self._lose(track, NotFoundError(f"{where} was deleted; the last value stays"), "deleted")
                track.seen, track.tombstone = track.seen.after(Fetched(metadata_of(state))), True
        elif track.tombstone or track.seen.unopened or state.position != track.seen.position:
            outcome = yield Unseal(track, state)
            if not isinstance(outcome, Fetched):
                outcome = Fetched(metadata_of(state), fault=failure_of(outcome))
            yield from self._hold(track, outcome)
        else:
            yield from self._find_again(track)

    def _hold(self, track: Track, fetched: Fetched) -> Generator[Command, Outcome, None]:
        """Take what was stated or fetched of a config, if it is newer than what was seen."""
        news = track.seen.is_news(fetched)
        if not news:
            yield from self._find_again(track)
            return
        again, track.found = track.found, True
        track.gone, track.tombstone = "", False
        fault = fetched.fault
        if fault is None:
            outcome = yield Apply(fetched.document, fetched.metadata, track)
            fault = outcome if isinstance(outcome, ConfigClientError) else None
        if fault is not None:
            yield Report(fault, track)
            yield Trouble(trouble_of(fault), fault, track)
        # Not before it is in place: a child that is forked meanwhile has to be told of it again.
        track.seen, track.fault = track.seen.after(fetched), fault
        if fault is not None and self._policy.is_final(fault, found=True):
            yield from self._finish(track, fault)
        if again:
            yield Heard(track)

    def _find_again(self, track: Track) -> Steps:
        """Take note that a config is as it was seen last."""
        track.found = True
        if track.gone and not track.tombstone:
            track.gone = ""
            if track.fault is None:
                yield Clear(track)
            else:
                yield Trouble(trouble_of(track.fault), track.fault, track)

    def _lose(self, track: Track, error: ConfigClientError, reason: str) -> Steps:
        """Act on a config that is not there, or not for this token: the old value stays, unless the error is final."""
        before = track.gone
        # A deletion that is hidden by now has to be told of again.
        track.tombstone = track.tombstone and reason == "deleted"
        if before and (before == "refused") is (reason == "refused"):
            # The same once more, perhaps told in other words: by a poll, or after a restored backup.
            if before != reason:
                yield Trouble(reason, error, track)
                track.gone = reason
            return
        yield Forget(track)
        waits = isinstance(error, NotFoundError) and track.patient
        yield Report(error, track)
        if self._policy.is_final(error, found=track.found) and not waits:
            yield from self._finish(track, error)
            return
        yield Trouble(reason, error, track)
        track.gone = reason
        if track.found:
            yield Heard(track)

    def _finish(self, track: Track, error: ConfigClientError) -> Steps:
        self.remove(track)
        yield Finish(error, track)

    def _finish_all(self, error: ConfigClientError) -> Steps:
        yield Report(error)
        for track in tuple(self._tracks):
            yield from self._finish(track, error)
        yield Connection(State.STOPPED, "ended by an error", error)

    # Without a stream

    def _recover(self, failure: ConfigClientError) -> Steps:
        """Report what ended a stream, or kept it from opening, and wait before the next one, or try the next host."""
        yield from self._forget_if_unknown(failure)
        # Filters on the way refuse what they do not know: whether a config may be read is for its own GET to say.
        refused = isinstance(failure, ForbiddenError)
        if self._policy.is_final(failure, found=True) and not refused:
            yield from self._finish_all(failure)
            return
        yield Report(failure)
        if self._state is not State.POLLING:
            yield from self._become(State.STALE, "connection lost", failure)
        self._due[self._host] = self._policy.clock() + asked_pause(failure)
        if self._another_host():
            return
        self._tried = 0
        self._blocked += 1
        delay, self._backoff = self._backoff.next(self._policy.uniform)
        # The first round may just have met a restart; from the second on, values are kept current without a stream.
        # Streams are tried as often as ever meanwhile.
        fresh = any(not track.found and not track.gone for track in self._tracks)
        if (self._blocked >= 2 or fresh or refused) and self._policy.clock() >= self._poll_due:
            missed = yield from self._poll()
            if missed is not None:
                yield from self._forget_if_unknown(missed)
            if missed is None:
                yield from self._become(State.POLLING, "no stream", failure)
                self._poll_due = self._policy.clock() + self._policy.poll_interval * self._policy.uniform(0.5, 1.5)
            elif self._policy.is_final(missed, found=True):
                yield from self._finish_all(missed)
                return
            else:
                yield from self._become(State.STALE, "connection lost", missed)
                if self._hosts == 1:
                    self._due[0] = max(self._due[0], self._policy.clock() + asked_pause(missed))
                # A poll asks every host.
                self._poll_due = max(self._due)
        now = self._policy.clock()
        end = max(now + delay, min(self._due))
        self._host = next(host for host, due in enumerate(self._due) if due <= end)
        yield Pause(max(delay, end - now))

    def _another_host(self) -> bool:
        """Go on to the next host of this round that does not want to be left alone; tell whether there is one."""
        now = self._policy.clock()
        while self._tried + 1 < self._hosts:
            self._tried += 1
            self._host = (self._host + 1) % self._hosts
            if self._due[self._host] <= now:
                return True
        return False

    def _forget_if_unknown(self, failure: ConfigClientError) -> Steps:
        """Erase what is kept when the token is refused as such."""
        if isinstance(failure, UnauthorizedError):
            for track in tuple(self._tracks):
                yield Forget(track)

    def _become(self, state: State, reason: str, error: ConfigClientError) -> Steps:
        self._state = state
        yield Connection(state, reason, error)

    def _poll(self) -> Attempt:
        """Look at every config once; return what kept that from working."""
        for track in tuple(self._tracks):
            # What could not be opened is asked for as a whole, since keys may have come meanwhile.
            etag = None if track.seen.unopened else track.seen.etag
            fetched = yield Fetch(etag, track.seen.position, track)
            if track not in self._tracks:
                continue
            if isinstance(fetched, Fetched):
                told, seen = fetched.metadata.position, track.seen.position
                if told is not None and seen is not None and told < seen:
                    return ConnectionError(
                        "the service answered with an older state than the one seen before (a replica behind, an old "
                        "backup?)"
                    )
                yield from self._hold(track, fetched)
            elif isinstance(fetched, NotModified):
                yield from self._find_again(track)
            elif isinstance(fetched, NotFoundError):
                yield from self._lose(track, fetched, "deleted" if track.found else "missing")
            elif isinstance(fetched, ForbiddenError):
                yield from self._lose(track, fetched, "refused")
            else:
                return failure_of(fetched)
        return None

    def _delegate(self) -> Attempt:
        """Leave the configs to base streams until the service is asked for more again, or the set changes."""
        self._delegated, self._blocked = True, 0
        yield Delegate(PROBE_SECONDS * self._policy.uniform(0.5, 1.5))
        return None
