"""The shared watch of many configs against a model: hypothesis decides what the service, the network and the client do.

The model is a service in memory that states what differs, on hosts that may be behind, down, or reached through a proxy
that lets no stream through; it can be restored from a backup, rotate keys, and forget the state-first watch. A driver
without I/O performs what the rules ask for, with the SDK's own session and keepers behind it. When hypothesis stops
deciding, everything works again, nothing is published, and every subscription must end where laws 1 to 3 want it.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, ClassVar

import pytest
from httpx_sse import ServerSentEvent
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from config_client import (
    Change,
    ConfigChangeEvent,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    Options,
    State,
)
from config_client._horizon import Horizon
from config_client._keeper import Keeper
from config_client._rounds import Policy, Seen
from config_client._session import Session
from config_client._state_watch import StateWatch, metadata_of
from config_client._steps import (
    Apply,
    Command,
    Delegate,
    Ended,
    Fetch,
    Fetched,
    HangUp,
    LocalCommand,
    NotModified,
    Open,
    Opened,
    OpenStates,
    Outcome,
    Pause,
    Read,
    Recall,
    Report,
    StatesOpened,
    Steps,
    Trouble,
    Unsupported,
    Woken,
)
from config_client._tracks import Track
from config_client.backoff import Backoff
from config_client.protocol import (
    ConfigState,
    Held,
    Metadata,
    Position,
    Standing,
    dump_change_event,
    dump_config_state,
    dump_position,
)
from config_client.watching import ValueWatch

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
EPOCHS = tuple(f"0192f3a4b5c6{number:012x}" for number in range(1000))
NAMES = ("orders", "billing", "search")
HOSTS = 3
GOOD, MISFIT, UNWANTED, DELETED = "good", "misfit", "unwanted", "deleted"
KINDS = st.sampled_from([GOOD, GOOD, GOOD, MISFIT, UNWANTED])
NAME = st.sampled_from(NAMES)
HOST = st.integers(0, HOSTS - 1)
HEARTBEAT = 16.0
"""Seconds that a read takes which brings nothing."""
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "300"))
"""Give a larger number for a long run."""


class LawBrokenError(AssertionError):
    """What a subscription must never do; the text begins with the law."""


@dataclass
class Doc:
    """The type that the application asks for; a misfit has no number."""

    number: int
    epoch: int
    revision: int
    unwanted: bool = False


# The service


@dataclass(frozen=True)
class Entry:
    """One version of a config."""

    name: str
    revision: int
    kind: str
    number: int


@dataclass(frozen=True)
class View:
    """What a host knows: one history, as far as it has come."""

    epoch: int
    entries: tuple[Entry, ...]

    @property
    def position(self) -> Position:
        return Position(EPOCHS[self.epoch], self.entries[-1].revision if self.entries else 0)

    def newest(self, name: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.name == name), None)

    def position_of(self, entry: Entry) -> Position:
        return Position(EPOCHS[self.epoch], entry.revision)

    def document(self, entry: Entry) -> bytes:
        number: object = "misfit" if entry.kind == MISFIT else entry.number
        fields = {"number": number, "epoch": self.epoch, "revision": entry.revision}
        return json.dumps({**fields, "unwanted": entry.kind == UNWANTED}).encode()


@dataclass
class Stream:
    """One open stream and what is on its way to the client."""

    names: frozenset[str]
    own: bool
    """Whether it is state-first."""
    queue: list[ServerSentEvent | Ended | ConfigClientError] = field(default_factory=list)
    past: list[ServerSentEvent] = field(default_factory=list)
    quiet: int = 0
    """How many reads in a row have brought nothing."""


@dataclass
class Host:
    """One address of the service."""

    view: View
    at: int = 0
    down: bool = False
    blocked: bool = False
    lags: bool = False
    streams: list[Stream] = field(default_factory=list)


class Service:
    """The reference: what was published, and hosts that serve it."""

    def __init__(self) -> None:
        self.views = [View(0, ())]
        self.hosts = [Host(self.views[0]) for _ in range(HOSTS)]
        self.preferred = 0
        self.base_only = False
        self.key = 0
        self.refused: set[str] = set()
        self._numbers = 0

    @property
    def view(self) -> View:
        return self.views[-1]

    def append(self, name: str, kind: str, number: int = 0) -> None:
        """Publish or delete."""
        self._numbers += 1
        entry = Entry(name, self.view.position.revision + 1, kind, number or self._numbers)
        self._go_on(replace(self.view, entries=(*self.view.entries, entry)))

    def restore(self, kept: int) -> None:
        """Go back to an earlier state, as a new epoch."""
        self._go_on(View(self.view.epoch + 1, self.view.entries[:kept]))

    def catch_up(self, host: Host, at: int) -> None:
        """Let a host come as far as ``at``, and tell its streams."""
        while host.at < at:
            host.at += 1
            before, host.view = host.view, self.views[host.at]
            if host.view.epoch != before.epoch:
                self.cut(host, Ended())
                continue
            for entry in host.view.entries[len(before.entries) :]:
                for stream in host.streams:
                    if entry.name in stream.names and entry.name not in self.refused:
                        stream.queue.append(self._change(host.view, entry, own=stream.own))

    def cut(self, host: Host, how: Ended | ConfigClientError) -> None:
        for stream in host.streams:
            stream.queue.append(how)
        host.streams.clear()

    def cut_all(self) -> None:
        for host in self.hosts:
            self.cut(host, ConnectionError("cut"))

    def open_states(self, index: int, held: tuple[Held, ...]) -> tuple[Outcome, Stream | None]:
        """Answer ``POST /watch``: subscribe, state what differs, and say so."""
        host = self.hosts[index]
        if host.down:
            return ConnectionError("down"), None
        if self.base_only:
            return Unsupported(), None
        if host.blocked:
            return InvalidResponseError("a page of the proxy"), None
        stream = Stream(frozenset(one.name for one in held), own=True)
        for name in dict.fromkeys(one.name for one in held):
            entry = host.view.newest(name)
            if name in self.refused:
                stream.queue.append(stating(ConfigState(name, "default", "main", Standing.REFUSED)))
            elif entry is None:
                stream.queue.append(stating(ConfigState(name, "default", "main", Standing.MISSING)))
            elif any(one.name == name and one.position != host.view.position_of(entry) for one in held):
                stream.queue.append(self._state(host.view, entry))
        stream.queue.append(ServerSentEvent("synced", dump_position(host.view.position)))
        host.streams.append(stream)
        return StatesOpened(host.view.position, "default"), stream

    def open(self, name: str) -> tuple[Outcome, Stream | None]:
        """Open a base stream on the host that is asked first."""
        host = self._reachable()
        if host is None:
            return ConnectionError("down"), None
        if host.blocked:
            return InvalidResponseError("a page of the proxy"), None
        if name in self.refused:
            return ForbiddenError("403"), None
        stream = Stream(frozenset((name,)), own=False)
        host.streams.append(stream)
        return Opened(host.view.position), stream

    def fetch(self, name: str, command: Fetch, opens: Callable[[int], bool]) -> Outcome:
        """Answer a GET on the host that is asked first."""
        host = self._reachable()
        if host is None:
            return ConnectionError("down")
        if name in self.refused:
            return ForbiddenError("403")
        if command.at_least is not None and host.view.position < command.at_least:
            return ConnectionError("503, this replica is behind")
        entry = host.view.newest(name)
        if entry is None or entry.kind == DELETED:
            return NotFoundError("404")
        position = host.view.position_of(entry)
        etag = f'"{position}-{self.key}-1"'
        if command.etag == etag:
            return NotModified()
        metadata = Metadata(entry.revision, position, "default", "main", 3, NOON, etag)
        if not opens(self.key):
            return Fetched(metadata, fault=DecryptionError(f"{name} at {position}"))
        return Fetched(metadata, host.view.document(entry))

    def _reachable(self) -> Host | None:
        order = (*self.hosts[self.preferred :], *self.hosts[: self.preferred])
        return next((host for host in order if not host.down), None)

    def _go_on(self, view: View) -> None:
        self.views.append(view)
        for host in self.hosts:
            if not host.lags:
                self.catch_up(host, len(self.views) - 1)

    def _state(self, view: View, entry: Entry, event: str = "config_state") -> ServerSentEvent:
        position = view.position_of(entry)
        if entry.kind == DELETED:
            state = ConfigState(entry.name, "default", "main", Standing.DELETED, position, entry.revision, 3, NOON)
        else:
            payload = b"%d|" % self.key + view.document(entry)
            running = Standing.RUNNING
            state = ConfigState(entry.name, "default", "main", running, position, entry.revision, 3, NOON, payload)
        return stating(state, event)

    def _change(self, view: View, entry: Entry, *, own: bool) -> ServerSentEvent:
        if own:
            return self._state(view, entry, "config_changed")
        position = view.position_of(entry)
        told = ("default", "main", position.epoch, position.revision, entry.kind == DELETED)
        event = ConfigChangeEvent(entry.name, entry.revision, 3, NOON, *told)
        return ServerSentEvent("config_changed", dump_change_event(event))


def stating(state: ConfigState, event: str = "config_state") -> ServerSentEvent:
    return ServerSentEvent(event, dump_config_state(state))


# The client


class Ring:
    """Stands in for the keyring: a payload names the key that it is sealed under."""

    def __init__(self) -> None:
        self.keys = {0}

    def state(self, state: ConfigState, environment: str | None, label: str | None) -> Fetched:
        key, _, document = state.payload.partition(b"|")
        if int(key) not in self.keys:
            return Fetched(metadata_of(state), fault=DecryptionError(f"{state.name} at {state.position}"))
        return Fetched(metadata_of(state), document)


class Client(Session):
    """The SDK's session, its rules driven by hand and in memory."""

    def __init__(self, service: Service, machine: type[StateWatch]) -> None:
        self.service = service
        self.machine = machine
        self.clock = 0.0
        self.ring = Ring()
        self.policy = Policy(Backoff(1.0), (), lambda: self.clock, lambda low, high: (low + high) / 2)
        options = Options("http://config.test", "token", "00" * 32, cache=False)
        super().__init__(options, self.ring, None, Horizon(), HOSTS)  # type: ignore[arg-type]
        self.stream: Stream | None = None
        self.delegates: dict[Track, Delegated] = {}
        self.broken: list[str] = []
        self.best: dict[Keeper[Doc], Position] = {}
        self.refused: Counter[tuple[Keeper[Any], Position]] = Counter()
        self.closed_reports: Counter[tuple[Keeper[Any], str]] = Counter()
        self.taken: dict[Track, Position] = {}
        self._steps: Steps | None = None
        self._outcome: Outcome = None
        self._woken = False
        self._delegated_until: float | None = None

    def _new_watch(self) -> StateWatch:
        return self.machine(self.policy, HOSTS)

    # Subscriptions

    def subscribe(self, name: str) -> Keeper[Doc]:
        keeper = self.keep(name, {}, Doc, None, lambda doc: not doc.unwanted, patient=True)

        def check(change: Change[Doc]) -> None:
            self.check(keeper, change)

        keeper.snapshot.on_change(check)
        self.add(keeper)
        return keeper

    def check(self, keeper: Keeper[Doc], change: Change[Doc]) -> None:
        """Hold one swap against laws 2 and 3, by what the document itself says."""
        doc: Doc | None = change.new
        if doc is None or doc.unwanted:
            self.broken.append(f"law 3: {keeper.track} took {doc}")
            return
        position = Position(EPOCHS[doc.epoch], doc.revision)
        best = self.best.get(keeper)
        if best is not None and position <= best:
            self.broken.append(f"law 2: {keeper.track} went from {best} to {position}")
        self.best[keeper] = position

    # One step

    def step(self) -> None:
        """Perform one command, or one of every base stream's while those stand in."""
        if self._steps is None:
            self.drain()
            self._steps, self._outcome = self._watch.run(), None
        if self._delegated_until is not None and not self._woken and self.clock < self._delegated_until:
            for delegate in tuple(self.delegates.values()):
                delegate.step()
            return
        if self._delegated_until is not None:
            self._outcome, self._delegated_until = self._wake(), None
        self.drain()
        try:
            command = self._steps.send(self._outcome)
        except StopIteration:
            self._steps = None
            return
        self._outcome = self._execute(command)

    def _execute(self, command: Command) -> Outcome:
        match command:
            case OpenStates():
                self._check_cursors(command)
                outcome, self.stream = self.service.open_states(command.host, command.held)
                return outcome
            case Read():
                if command.patient and not (self.stream and self.stream.queue):
                    return ConnectionError("the stream is open and tells nothing")
                return Woken() if self._woken and not command.patient and self._wake() else self.read(self.stream)
            case Fetch():
                assert command.track is not None
                return self.service.fetch(command.track.name, command, self.ring.keys.__contains__)
            case HangUp():
                self.hang_up(self.stream)
                self.stream = None
            case Pause():
                self.clock += command.seconds
                return self._wake()
            case Delegate():
                self.delegate()
                self._delegated_until = self.clock + command.seconds
            case Recall():
                self.recall()
            case Open():
                raise AssertionError("the shared stream is none of the base protocol")
            case _:
                return self._served(self.perform(command))
        return None

    def read(self, stream: Stream | None) -> Outcome:
        assert stream is not None
        if not stream.queue:
            stream.quiet += 1
            self.clock += HEARTBEAT
            return None
        stream.quiet = 0
        item = stream.queue.pop(0)
        if isinstance(item, ServerSentEvent) and '"revision":' in item.data and item.event != "synced":
            stream.past.append(item)
        return item

    def hang_up(self, stream: Stream | None) -> None:
        for host in self.service.hosts:
            host.streams = [each for each in host.streams if each is not stream]

    def serve(self, keeper: Keeper[Any], command: LocalCommand) -> Outcome | Awaitable[Outcome]:
        """As the session does; the keeper's guard against older states is off: the rules alone have to hold law 2."""
        position = command.metadata.position if isinstance(command, Apply) else None
        if position is not None:
            self.taken[keeper.track] = position
            if keeper.position != position:
                keeper.position = None
        if isinstance(command, Report) and isinstance(command.error, DecryptionError):
            self.closed_reports[keeper, str(command.error)] += 1
            if self.closed_reports[keeper, str(command.error)] > 1:
                self.broken.append(f"law 3: {keeper.track} reported {command.error} again")
        if isinstance(command, Trouble) and command.reason in {"deleted", "missing", "refused", "cannot be opened"}:
            self.taken.pop(keeper.track, None)
        outcome = super().serve(keeper, command)
        if position is not None and outcome is not None:
            self.refused[keeper, position] += 1
            if self.refused[keeper, position] > 1:
                self.broken.append(f"law 3: {keeper.track} was given {position} again, which it had refused")
        return outcome

    def _served(self, outcome: Outcome | Awaitable[Outcome]) -> Outcome:
        assert not isinstance(outcome, Awaitable)
        return outcome

    def _check_cursors(self, command: OpenStates) -> None:
        """What was taken, or refused by the application, must not be stated again."""
        if self.delegates:
            return  # the base streams have gone on meanwhile
        for track, held in zip(self._watch._tracks, command.held, strict=True):
            taken = self.taken.get(track)
            if taken is not None and (held.position is None or held.position < taken):
                self.broken.append(f"law 3: {track} has {self.taken[track]} and asks for it again")

    def _wake(self) -> Outcome:
        woken, self._woken = self._woken, False
        return Woken() if woken else None

    # What the session asks of its driver

    def _go_on(self) -> None:
        self._woken = True

    def _dismiss(self, keeper: Keeper[Any]) -> None:
        delegate = self.delegates.pop(keeper.track, None)
        if delegate is not None:
            self.hang_up(delegate.stream)

    def _delegated(self) -> bool:
        return bool(self.delegates)

    def delegate(self) -> None:
        for track, keeper in self._keepers.items():
            if track not in self.delegates:
                self.delegates[track] = Delegated(self, keeper)

    def recall(self) -> None:
        for track, delegate in self.delegates.items():
            self.hang_up(delegate.stream)
            delegate.watch.hand_over(track)
        self.delegates.clear()
        # One may have been called back before it could take note of what it had just tried.
        self.refused.clear()
        self.closed_reports.clear()

    # Rest

    def at_rest(self) -> bool:
        """Whether nothing is on its way, and whatever is asked for now and then was asked for."""
        if not self._keepers:
            return True
        if self._delegated_until is not None:
            rested = all(is_quiet(each.stream) for each in self.delegates.values())
            return self.service.base_only and len(self.delegates) == len(self._keepers) and rested
        return is_quiet(self.stream) and not self._woken


def is_quiet(stream: Stream | None) -> bool:
    """Tell whether a stream is open and has brought nothing for long."""
    return stream is not None and not stream.queue and stream.quiet > 4


class Delegated:
    """One config on a base stream of its own."""

    def __init__(self, client: Client, keeper: Keeper[Any]) -> None:
        self.client = client
        self.keeper = keeper
        self.watch = ValueWatch(client.policy, keeper.track)
        self.stream: Stream | None = None
        self._steps = self.watch.run()
        self._outcome: Outcome = None

    def step(self) -> None:
        command, client = self._steps.send(self._outcome), self.client
        self._outcome = None
        match command:
            case Fetch():
                name = self.keeper.track.name
                self._outcome = client.service.fetch(name, command, client.ring.keys.__contains__)
            case Open():
                self._outcome, self.stream = client.service.open(self.keeper.track.name)
            case Read():
                self._outcome = client.read(self.stream)
            case HangUp():
                client.hang_up(self.stream)
                self.stream = None
            case Pause():
                client.clock += command.seconds
            case _:
                self._outcome = client._served(client.serve(self.keeper, command))  # type: ignore[arg-type]


# What may happen


class Model(RuleBasedStateMachine):
    """Everything that may happen, in any order; ``teardown`` heals it and looks where the subscriptions have ended."""

    laws: ClassVar[tuple[str, ...]] = ("law 1", "law 2", "law 3")
    machine: ClassVar[type[StateWatch]] = StateWatch
    client_type: ClassVar[type[Client]] = Client

    @initialize(first=st.lists(NAME, min_size=1, max_size=4), kinds=st.tuples(KINDS, KINDS))
    def begin(self, first: list[str], kinds: tuple[str, str]) -> None:
        self.service = Service()
        self.client = self.client_type(self.service, self.machine)
        self.keepers: list[Keeper[Doc]] = []
        for name, kind in zip(NAMES, kinds, strict=False):
            self.service.append(name, kind)
        for name in first:
            self.subscribe(name)

    @rule(steps=st.integers(1, 30))
    def go_on(self, steps: int) -> None:
        """Let the watch perform some commands."""
        for _ in range(steps):
            self.client.step()

    @rule(name=NAME, kind=KINDS)
    def publish(self, name: str, kind: str) -> None:
        self.service.append(name, kind)

    @rule(name=NAME)
    def delete(self, name: str) -> None:
        newest = self.service.view.newest(name)
        if newest is not None and newest.kind != DELETED:
            self.service.append(name, DELETED)

    @rule(name=NAME, back=st.integers(1, 5))
    def roll_back(self, name: str, back: int) -> None:
        entries = [entry for entry in self.service.view.entries if entry.name == name and entry.kind != DELETED]
        if len(entries) > back:
            self.service.append(name, entries[-1 - back].kind, entries[-1 - back].number)

    @rule(kept=st.integers(0, 20), everywhere=st.booleans())
    def restore_a_backup(self, kept: int, everywhere: bool) -> None:
        """Restore it on all hosts, or on the first alone for now."""
        for host in () if everywhere else self.service.hosts[1:]:
            host.lags = True
        self.service.restore(kept)

    @rule(host=HOST)
    def leave_one_host(self, host: int) -> None:
        """Let all others go down."""
        for index, each in enumerate(self.service.hosts):
            each.down = index != host
            if each.down:
                self.service.cut(each, ConnectionError("reset"))

    @rule(host=HOST)
    def let_a_replica_fall_behind(self, host: int) -> None:
        self.service.hosts[host].lags = True

    @rule(host=HOST, steps=st.integers(1, 5))
    def let_a_replica_catch_up(self, host: int, steps: int) -> None:
        each = self.service.hosts[host]
        self.service.catch_up(each, min(each.at + steps, len(self.service.views) - 1))

    @rule(host=HOST, down=st.booleans())
    def stop_or_start_a_host(self, host: int, down: bool) -> None:
        self.service.hosts[host].down = down
        if down:
            self.service.cut(self.service.hosts[host], ConnectionError("reset"))

    @rule(blocked=st.booleans(), also_open=st.booleans())
    def let_a_proxy_block_streams(self, blocked: bool, also_open: bool) -> None:
        for host in self.service.hosts:
            host.blocked = blocked
        if also_open:
            self.service.cut_all()

    @rule(host=HOST)
    def ask_another_host_first(self, host: int) -> None:
        self.service.preferred = host

    @rule(base_only=st.booleans())
    def change_the_release_of_the_service(self, base_only: bool) -> None:
        self.service.base_only = base_only
        self.service.cut_all()

    @rule(clean=st.booleans())
    def cut(self, clean: bool) -> None:
        for host in self.service.hosts:
            self.service.cut(host, Ended() if clean else ConnectionError("reset"))

    @rule(index=st.integers(0, 9))
    def garble_what_is_on_its_way(self, index: int) -> None:
        stream = self.client.stream
        if stream is not None and stream.queue:
            stream.queue[index % len(stream.queue)] = ServerSentEvent("config_state", "{")

    @rule(index=st.integers(0, 9), steps=st.integers(1, 9))
    def tell_twice(self, index: int, steps: int) -> None:
        """Repeat what was told on this stream before."""
        stream = self.client.stream
        if stream is not None and stream.past:
            stream.queue.insert(0, stream.past[index % len(stream.past)])
            self.go_on(steps)

    @rule(index=st.integers(0, 9))
    def reorder(self, index: int) -> None:
        """Swap two events that tell positions: nothing else can tell that they came in another order."""
        stream = self.client.stream
        if stream is None or len(stream.queue) < 2:
            return
        at = index % (len(stream.queue) - 1)
        pair = stream.queue[at : at + 2]
        if all(isinstance(each, ServerSentEvent) and '"revision":' in each.data for each in pair):
            stream.queue[at : at + 2] = reversed(pair)

    @rule()
    def rotate_the_key(self) -> None:
        self.service.key += 1

    @rule()
    def bring_the_keys(self) -> None:
        self.client.ring.keys = set(range(self.service.key + 1))

    @rule(name=NAME)
    def refuse(self, name: str) -> None:
        self.service.refused ^= {name}
        self.service.cut_all()

    @rule(name=NAME)
    def subscribe(self, name: str) -> None:
        if len(self.keepers) < 6:
            self.keepers.append(self.client.subscribe(name))

    @rule(index=st.integers(0, 5))
    def unsubscribe(self, index: int) -> None:
        if len(self.keepers) > 1:
            self.client.remove(self.keepers.pop(index % len(self.keepers)))

    @rule(seconds=st.sampled_from([1.0, 31.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.client.clock += seconds

    @invariant()
    def laws_two_and_three_hold(self) -> None:
        for text in self.client.broken if hasattr(self, "client") else ():
            self.hold(False, text)
        for keeper in getattr(self, "keepers", ()):
            best, doc = self.client.best.get(keeper), keeper.snapshot.load()
            kept = best is None or (doc is not None and Position(EPOCHS[doc.epoch], doc.revision) == best)
            self.hold(kept, f"law 3: {keeper.track} lost its value")

    def teardown(self) -> None:
        """Heal everything, publish nothing, and run until nothing is on its way."""
        if not hasattr(self, "client"):
            return
        service, client = self.service, self.client
        if service.refused:
            service.refused.clear()
            service.cut_all()
        for host in service.hosts:
            host.down = host.blocked = host.lags = False
            service.catch_up(host, len(service.views) - 1)
        self.bring_the_keys()
        for stream in (client.stream, *(each.stream for each in client.delegates.values())):
            if stream is not None:
                stream.quiet = 0
        for _ in range(3000):
            if client.at_rest():
                break
            client.step()
        else:
            self.hold(False, "law 1: the watch does not come to rest")
        self.laws_two_and_three_hold()
        for keeper in self.keepers:
            self._look_at(keeper)

    def _look_at(self, keeper: Keeper[Doc]) -> None:
        view, status, doc = self.service.view, keeper.status, keeper.snapshot.load()
        entry = view.newest(keeper.track.name)
        if entry is not None and entry.kind == GOOD:
            current = doc is not None and (doc.epoch, doc.revision) == (view.epoch, entry.revision)
            self.hold(current, f"law 1: {keeper.track} ended on {doc} and not on {entry} of epoch {view.epoch}")
            live = status.state is State.LIVE and status.error is None and keeper.failure is None
            self.hold(live, f"law 1: {keeper.track} is current and says {status}, {keeper.failure!r}")
            return
        expected = State.STALE if keeper.filled else State.INITIALIZING
        wanted = {None: {"missing", "deleted"}, DELETED: {"deleted"}, MISFIT: {"does not decode"}}
        reasons = wanted.get(entry and entry.kind, {"refused by pre_apply"})
        truthful = status.state is expected and status.error is not None
        truthful = truthful and (status.reason in reasons or not keeper.filled)
        self.hold(truthful, f"law 3: the newest state of {keeper.track} is {entry}, and its status says {status}")

    def hold(self, held: bool, text: str) -> None:
        """Raise if a law does not hold, of those that are looked at."""
        if not held and text.startswith(self.laws):
            raise LawBrokenError(text)


def checked(model: type[Model], examples: int, phases: tuple[Phase, ...]) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep thousands of expected warnings out of the log, which costs more than all the rest."""
    logging.getLogger("config_client").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("config_client").setLevel(logging.NOTSET)


@pytest.mark.timeout(600)
def test_whatever_happens_every_subscription_ends_on_the_newest_acceptable_version() -> None:
    """Laws 1 to 3, and statuses that tell the truth, for any number of configs on one stream or on base streams."""
    checked(Model, EXAMPLES, (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))


# Mutants


def altered(steps: Steps, change: Callable[[Command], Command]) -> Steps:
    """Return ``steps`` with every command changed on its way to the driver."""
    outcome: Outcome = None
    while True:
        try:
            command = steps.send(outcome)
        except StopIteration:
            return
        outcome = yield change(command)


class OneCursorForAll(StateWatch):
    """Tells the newest position of any config as that of every config, as one Last-Event-ID would."""

    def run(self) -> Steps:
        def change(command: Command) -> Command:
            if not isinstance(command, OpenStates):
                return command
            newest = max((one.position for one in command.held if one.position), default=None)
            return replace(command, held=tuple(one._replace(position=newest) for one in command.held))

        return altered(super().run(), change)


class AsksNoMore(StateWatch):
    """Never asks again for what could not be opened."""

    def _may_open_now(self) -> bool:
        return False


class GivesUp(StateWatch):
    """Ends with the third failure."""

    failures = 0

    def _recover(self, failure: ConfigClientError) -> Steps:
        self.failures += 1
        if self.failures < 3:
            yield from super()._recover(failure)
        else:
            while True:
                yield Pause(1.0)


class TakesWhatComes(StateWatch):
    """Applies whatever is stated, in the order of arrival."""

    def _take(self, track: Track, state: ConfigState) -> Steps:
        if state.position is not None and track.seen.position is not None and state.position < track.seen.position:
            track.seen = Seen()
        yield from super()._take(track, state)


class TrustsAnyHistory(StateWatch):
    """Compares revisions without their epochs."""

    def _take(self, track: Track, state: ConfigState) -> Steps:
        seen, told = track.seen.position, state.position
        if seen is not None and told is not None and told.epoch < seen.epoch and told.revision > seen.revision:
            track.seen = Seen()
        yield from super()._take(track, state)

    def _behind(self, opened: StatesOpened) -> None:
        return None


class ForgetsTheMisfit(StateWatch):
    """Does not count as seen what does not decode, so that it is stated and tried again and again."""

    def _hold(self, track: Track, fetched: Fetched) -> Any:
        before = track.seen
        yield from super()._hold(track, fetched)
        if track.fault is not None:
            track.seen = before


class Clearing(Client):
    """Clears a value that has become stale."""

    def serve(self, keeper: Keeper[Any], command: LocalCommand) -> Outcome | Awaitable[Outcome]:
        if isinstance(command, Trouble):
            keeper.snapshot.store(None)
        return super().serve(keeper, command)


Story = tuple[Callable[[Any], object], ...]
"""What happens, rule by rule, before everything is healed."""


def begun(*names: str) -> Callable[[Any], object]:
    return lambda model: (model.begin(list(names), (GOOD, GOOD)), model.go_on(20))


AGAIN: Story = (begun("orders"), lambda model: model.subscribe("orders"))
OTHER_KEY: Story = (
    begun("orders"),
    lambda model: model.rotate_the_key(),
    lambda model: model.publish("orders", GOOD),
    lambda model: model.go_on(20),
)
CUTS: Story = (begun("orders"), *(lambda model: (model.cut(False), model.go_on(9)) for _ in range(3)))
OLD_NEWS: Story = (
    begun("orders"),
    lambda model: (model.publish("orders", GOOD), model.publish("orders", GOOD)),
    lambda model: model.go_on(12),
    lambda model: model.tell_twice(0, 5),
)
OLD_REPLICA: Story = (
    begun("orders"),
    lambda model: model.publish("orders", GOOD),
    lambda model: model.go_on(9),
    lambda model: model.restore_a_backup(1, False),
    lambda model: (model.leave_one_host(0), model.go_on(30)),
    lambda model: (model.leave_one_host(1), model.go_on(30)),
)
BAD_NEWS: Story = (
    begun("orders"),
    lambda model: model.publish("orders", MISFIT),
    lambda model: (model.go_on(9), model.cut(True), model.go_on(9)),
)
MUTANTS: list[tuple[str, type[StateWatch] | type[Client], Story]] = [
    ("law 1", OneCursorForAll, AGAIN),
    ("law 1", AsksNoMore, OTHER_KEY),
    ("law 1", GivesUp, CUTS),
    ("law 2", TakesWhatComes, OLD_NEWS),
    ("law 2", TrustsAnyHistory, OLD_REPLICA),
    ("law 3", ForgetsTheMisfit, BAD_NEWS),
    ("law 3", Clearing, BAD_NEWS),
]


def with_mutant(mutant: type[StateWatch] | type[Client], law: str) -> type[Model]:
    attribute = "client_type" if issubclass(mutant, Client) else "machine"
    return type("Broken", (Model,), {attribute: mutant, "laws": (law,)})


def tell(story: Story, model: Model) -> None:
    for chapter in story:
        chapter(model)
        model.laws_two_and_three_hold()
    model.teardown()


@pytest.mark.parametrize(("law", "mutant", "story"), MUTANTS)
def test_the_model_catches_a_watch_that_breaks_a_law(
    law: str, mutant: type[StateWatch] | type[Client], story: Story
) -> None:
    """Each mutant is a mistake that such a client may well make; in the same story the true watch breaks no law."""
    tell(story, Model())
    with pytest.raises(LawBrokenError, match=law):
        tell(story, with_mutant(mutant, law)())


@pytest.mark.parametrize(("law", "mutant"), [("law 1", GivesUp), ("law 3", ForgetsTheMisfit), ("law 3", Clearing)])
def test_hypothesis_finds_such_stories_by_itself(law: str, mutant: type[StateWatch] | type[Client]) -> None:
    """The search that passes for the true watch fails for one that breaks a law."""
    with pytest.raises(LawBrokenError, match=law):
        checked(with_mutant(mutant, law), EXAMPLES, (Phase.generate,))
