"""The rules of the watches against a model: a service's history, replicas that lag, and cuts at every step.

The model performs the commands of a watch. What the service does in between, and where things fail, hypothesis decides.
When it stops deciding, everything works, and the watch must end where laws 1 to 3 want it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from random import Random
from typing import Any

import pytest
from httpx_sse import ServerSentEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client import (
    ConfigChangeEvent,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    NotFoundError,
    UnmarshalError,
)
from config_client._rounds import Policy
from config_client._steps import (
    Apply,
    Command,
    Ended,
    Fetch,
    Fetched,
    HangUp,
    Notify,
    NotModified,
    Open,
    Opened,
    Outcome,
    Read,
    Report,
)
from config_client.backoff import Backoff
from config_client.options import DEFAULT_FINAL_ERRORS
from config_client.protocol import Metadata, Position, dump_change_event
from config_client.watching import EventWatch, ValueWatch

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
EPOCHS = tuple(f"0192f3a4b5c6{number:012x}" for number in range(100))
OTHER = "prod"
GOOD, UNFIT, SEALED_ELSEWHERE, DELETED = "good", "unfit", "sealed elsewhere", "deleted"


@dataclass(frozen=True)
class Entry:
    """One change in the service's history."""

    position: Position
    kind: str
    environment: str
    version: int

    @property
    def document(self) -> bytes:
        return b"%s of %s %d" % (self.kind.encode(), self.position.epoch.encode(), self.position.revision)


@dataclass
class Stream:
    """What one reader has been sent of the log, and what it is still to be told."""

    sent: int
    first: list[ServerSentEvent] = field(default_factory=list)


class Service:
    """The reference: a log of changes, served by replicas that may be behind.

    ``style``: "own" tells positions and entity tags, "tagged" entity tags only, "bare" nothing. ``memory``: how many
    entries a replay may go back.
    """

    def __init__(self, style: str, memory: int) -> None:
        self.style = style
        self.memory = memory
        self.log: list[Entry] = []
        self.stream: Stream | None = None
        self.opened_at: int | None = None
        self._epoch = 0
        self._restored = 0
        self.change(GOOD)

    def change(self, kind: str, environment: str = "default") -> None:
        revision = self.log[-1].position.revision + 1 if self.log else 1
        self.log.append(Entry(Position(EPOCHS[self._epoch], revision), kind, environment, len(self.log) + 1))

    def restore(self) -> None:
        """Begin a new epoch, as a restore from a backup does, with revisions that start over."""
        self._epoch += 1
        self._restored = len(self.log)
        self.log.append(Entry(Position(EPOCHS[self._epoch], 1), GOOD, "default", len(self.log) + 1))
        self.stream = None

    def running(self, upto: int, environment: str = "default") -> Entry | None:
        """What a replica serves that knows the first ``upto`` entries."""
        return next((each for each in reversed(self.log[:upto]) if each.environment == environment), None)

    def replica(self, lag: int) -> int:
        """How many entries the replica knows that is ``lag`` behind; a restore takes all of them along."""
        return max(1, self._restored + 1, len(self.log) - lag) if self.style == "own" else len(self.log)

    def fetch(self, command: Fetch, lag: int) -> Outcome:
        known = self.replica(lag)
        if command.at_least is not None and self.style == "own" and self.log[known - 1].position < command.at_least:
            return ConnectionError("503, this replica is behind")
        entry = self.running(known)
        if entry is None or entry.kind == DELETED:
            return NotFoundError("404")
        etag = None if self.style == "bare" else f'"{entry.position}"'
        if etag is not None and command.etag == etag:
            return NotModified()
        metadata = Metadata(etag=etag)
        if self.style == "own":
            metadata = Metadata(entry.version, entry.position, entry.environment, "main", 3, NOON, etag)
        if entry.kind == SEALED_ELSEWHERE:
            return Fetched(metadata, fault=DecryptionError("does not open"))
        return Fetched(metadata, entry.document)

    def open(self, command: Open, lag: int) -> Opened:
        known = self.replica(lag)
        if self.style != "own":
            self.stream = Stream(len(self.log))
            self._note_opening(len(self.log))
            return Opened()
        self._note_opening(known)
        position = self.log[known - 1].position
        if not command.last_event_id:
            self.stream = Stream(known)
            return Opened(position)
        seen = Position.parse(command.last_event_id)
        index = next((number for number, each in enumerate(self.log, 1) if each.position == seen), None)
        if index is None or index > known or index < known - self.memory or index <= self._restored:
            self.stream = Stream(known, [ServerSentEvent("reset", "{}")])
            return Opened(position)
        self.stream = Stream(index)
        return Opened(position, replays=True)

    def read(self) -> ServerSentEvent | None:
        """The next event of the stream; None when there is nothing to tell."""
        assert self.stream is not None
        if self.stream.first:
            return self.stream.first.pop()
        if self.stream.sent >= len(self.log):
            return None
        entry = self.log[self.stream.sent]
        self.stream.sent += 1
        event = ConfigChangeEvent("orders", entry.version, 3, NOON)
        if self.style == "own":
            own = (entry.environment, "main", entry.position.epoch, entry.position.revision, entry.kind == DELETED)
            event = ConfigChangeEvent("orders", entry.version, 3, NOON, *own)
        return ServerSentEvent("config_changed", dump_change_event(event))

    def _note_opening(self, known: int) -> None:
        if self.opened_at is None:
            self.opened_at = known


@dataclass
class Run:
    """What a watch did."""

    applied: list[tuple[Entry, Metadata]] = field(default_factory=list)
    told: list[ConfigChangeEvent] = field(default_factory=list)
    told_after: list[int] = field(default_factory=list)
    reported: list[Exception] = field(default_factory=list)
    raised: Exception | None = None


def perform(
    watch: ValueWatch | EventWatch,
    service: Service,
    chance: Random,
    rounds: int,
    *,
    deletes: bool,
    restores: bool = True,
) -> Run:
    """Run ``watch`` through ``rounds`` commands of chaos, and then until it is at rest."""
    run = Run()
    steps = watch.run()
    # Calm runs find what wild ones cover up: every cut makes the watch look again.
    changes, failures = chance.choice([0.05, 0.3]), chance.choice([0.0, 0.05, 0.2])
    outcome: Outcome = None
    for number in range(rounds + 400):
        chaos = number < rounds
        if chaos and chance.random() < changes:
            found = bool(run.applied) or service.opened_at is not None
            disturb(service, chance, deletes=deletes and found, restores=restores)
        try:
            command = steps.send(outcome)
        except NotFoundError as error:
            run.raised = error
            return run
        if isinstance(command, Read) and not chaos and service.stream and at_rest(service):
            return run
        if chaos and isinstance(command, (Fetch, Open, Read)) and chance.random() < failures:
            service.stream = None
            outcome = ConnectionError("cut")
        else:
            outcome = answer(command, service, run, lag=chance.randrange(4) if chaos else 0)
    raise AssertionError("the watch does not come to rest")


def at_rest(service: Service) -> bool:
    assert service.stream is not None
    return not service.stream.first and service.stream.sent >= len(service.log)


def disturb(service: Service, chance: Random, *, deletes: bool, restores: bool) -> None:
    """Let the service change something."""
    what = chance.choice([GOOD, GOOD, UNFIT, SEALED_ELSEWHERE, "elsewhere", "restore", DELETED])
    if what == "elsewhere":
        if service.style == "own":
            service.change(GOOD, OTHER)
    elif what == "restore":
        if restores and service.style == "own" and chance.random() < 0.3:
            service.restore()
    elif what != DELETED:
        service.change(what)
    else:
        running = service.running(len(service.log))
        if deletes and running is not None and running.kind != DELETED:
            service.change(DELETED)


def answer(command: Command, service: Service, run: Run, *, lag: int) -> Outcome:
    """Perform ``command`` at a replica that is ``lag`` entries behind."""
    if isinstance(command, Fetch):
        return service.fetch(command, lag)
    if isinstance(command, Open):
        return service.open(command, lag)
    if isinstance(command, HangUp):
        service.stream = None
    if isinstance(command, Read):
        event = service.read() if service.stream else None
        if event is None and service.stream is not None:
            return ServerSentEvent("nothing new", "")
        return Ended() if event is None else event
    if isinstance(command, Apply):
        entry = next(each for each in service.log if each.document == command.document)
        if entry.kind == UNFIT:
            return UnmarshalError(f"unfit {entry.version}")
        run.applied.append((entry, command.metadata))
    if isinstance(command, Notify):
        run.told.append(command.event)
        run.told_after.append(len(service.log))
    if isinstance(command, Report):
        run.reported.append(command.error)
    return None


CHAOS: Callable[..., Any] = given(
    style=st.sampled_from(["own", "tagged", "bare"]),
    seed=st.integers(0, 2**32),
    rounds=st.integers(0, 150),
    memory=st.integers(0, 12),
)
POLICY = Policy(Backoff(0.0), DEFAULT_FINAL_ERRORS, lambda: 0.0)


@pytest.mark.parametrize("deletes", [True, False])
@settings(max_examples=150, deadline=None)
@CHAOS
def test_a_value_watch_ends_on_the_newest_acceptable_version_and_never_goes_back(
    deletes: bool, style: str, seed: int, rounds: int, memory: int
) -> None:
    """Laws 1 to 3: after any chaos the newest usable document is in place, reached in order, each applied once."""
    service = Service(style, memory)
    run = perform(ValueWatch(POLICY), service, Random(seed), rounds, deletes=deletes)
    assert run.raised is None
    running = service.running(len(service.log))
    assert running is not None
    entries = [entry for entry, _ in run.applied]
    if running.kind == GOOD:
        assert entries[-1] == running
    positions = [entry.position for entry in entries]
    assert positions == sorted(set(positions))
    unusable = [str(error) for error in run.reported if isinstance(error, UnmarshalError)]
    assert len(unusable) == len(set(unusable))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), rounds=st.integers(0, 150))
def test_an_event_watch_tells_every_change_of_our_service_exactly_once_unless_history_is_gone(
    seed: int, rounds: int
) -> None:
    """With a replay that reaches back far enough, the events are the log from the first opening on, in order."""
    service = Service("own", memory=10_000)
    run = perform(
        EventWatch(POLICY, "orders", everywhere=True), service, Random(seed), rounds, deletes=True, restores=False
    )
    assert run.raised is None
    assert service.opened_at is not None
    told = [(event.revision, event.environment, event.deleted) for event in run.told]
    log = service.log[service.opened_at :]
    assert told == [(entry.position.revision, entry.environment, entry.kind == DELETED) for entry in log]


@settings(max_examples=300, deadline=None)
@CHAOS
def test_an_event_watch_always_tells_that_something_changed(style: str, seed: int, rounds: int, memory: int) -> None:
    """Whatever service: what was told last, by the stream or by a fetch, is how things stand; ours never twice."""
    service = Service(style, memory)
    run = perform(EventWatch(POLICY, "orders", everywhere=True), service, Random(seed), rounds, deletes=True)
    assert run.raised is None
    assert service.opened_at is not None
    own = [number for number, each in enumerate(service.log, 1) if each.environment == "default"]
    before = service.running(service.opened_at)
    gone = [before is None or before.kind == DELETED]
    gone += [event.deleted for event in run.told if event.environment != OTHER]
    # Back and gone again while no stream was open: it stands as it was told.
    still_gone = gone[-1] and service.log[own[-1] - 1].kind == DELETED
    if own[-1] > service.opened_at and not still_gone:
        assert run.told_after
        assert run.told_after[-1] >= own[-1]
    if style == "own":
        told = [(event.environment, event.epoch, event.revision) for event in run.told if event.epoch]
        assert len(told) == len(set(told))
        mine = [Position(str(event.epoch), event.revision or 0) for event in run.told if event.environment == "default"]
        assert mine == sorted(mine)
