"""The rules of the shared watch, driven by hand: commands out, outcomes in, no I/O and no time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from httpx_sse import ServerSentEvent

from config_client import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    RefusedError,
    State,
    UnauthorizedError,
    UnmarshalError,
)
from config_client._rounds import HEALTHY_SECONDS, Policy, Seen
from config_client._state_watch import PROBE_SECONDS, StateWatch, metadata_of
from config_client._steps import (
    Apply,
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
    Trouble,
    Unseal,
    Unsupported,
    Woken,
)
from config_client._tracks import Track
from config_client.backoff import Backoff
from config_client.options import DEFAULT_FINAL_ERRORS
from config_client.protocol import ConfigState, Held, Metadata, Position, Standing, dump_config_state, dump_position

EPOCH = "0192f3a4b5c6d7e8f9a0b1c2"
EARLIER_EPOCH = "0192f3a4b5c600000000000a"
LATER_EPOCH = "0192f3a4b5c700000000000a"
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
DOWN = ConnectionError("down")
LIVE = Connection(State.LIVE)
HEARTBEAT = None


class Counting(Backoff):
    """A backoff that tells its attempt as the delay: 0, 1, 2 … seconds."""

    __slots__ = ()

    def next(self, uniform: Any = None) -> tuple[float, Counting]:
        return float(self.attempt), self._replace(attempt=self.attempt + 1)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Play:
    """The watch on a stage: call it with an outcome and it returns the next command; None when it has ended.

    A read is returned as ``Read()``, after a look at its patience: it is patient from the opening to ``synced``.
    """

    def __init__(
        self,
        *tracks: Track,
        final: tuple[type[ConfigClientError], ...] = DEFAULT_FINAL_ERRORS,
        hosts: int = 1,
        uniform: Callable[[float, float], float] = lambda low, high: (low + high) / 2,
    ) -> None:
        self.clock = Clock()
        self.watch = StateWatch(Policy(Counting(1.0), final, self.clock, uniform), hosts)
        for track in tracks:
            self.watch.add(track)
        self._steps = self.watch.run()
        self._synced = False

    def __call__(self, outcome: Outcome = None) -> Command | None:
        if isinstance(outcome, StatesOpened):
            self._synced = False
        elif isinstance(outcome, ServerSentEvent) and outcome.event == "synced":
            self._synced = True
        try:
            command = self._steps.send(outcome)
        except StopIteration:
            return None
        if isinstance(command, Read):
            assert command.patient is not self._synced
            return Read()
        return command

    def expect(self, outcome: Outcome, *commands: Command) -> None:
        """Send ``outcome`` and expect ``commands``, every one but the last answered with None."""
        for command in commands:
            assert self(outcome) == command
            outcome = None

    def lost(self, outcome: Outcome, pause: float | None) -> ConfigClientError:
        """Expect that ``outcome`` ends the stream: hang up, report, STALE, a pause (None: none); return the error."""
        assert self(outcome) == HangUp()
        report = self()
        assert isinstance(report, Report)
        assert self() == Connection(State.STALE, "connection lost", report.error)
        if pause is not None:
            assert self() == Pause(pause)
        return report.error

    def looked_for_in_vain(self, fetch: Fetch, pause: float) -> None:
        """Expect ``fetch``, as long as some config has no first value yet; let it fail, and expect the pause."""
        assert self() == fetch
        self.expect(DOWN, Connection(State.STALE, "connection lost", DOWN), Pause(pause))


def orders(**changes: Any) -> Track:
    return Track("orders", None, None, **changes)


def at(revision: int, epoch: str = EPOCH) -> Position:
    return Position(epoch, revision)


def running(revision: int, name: str = "orders", epoch: str = EPOCH, **changes: Any) -> ConfigState:
    told: dict[str, Any] = {"environment": "default", "label": "main", **changes}
    where = (name, told["environment"], told["label"])
    return ConfigState(*where, Standing.RUNNING, at(revision, epoch), revision, 3, NOON, b"sealed %d" % revision)


def deleted(revision: int, epoch: str = EPOCH) -> ConfigState:
    return ConfigState("orders", "default", "main", Standing.DELETED, at(revision, epoch), revision, 3, NOON)


MISSING = ConfigState("orders", "default", "main", Standing.MISSING)
REFUSED = ConfigState("orders", "default", "main", Standing.REFUSED)


def stated(state: ConfigState) -> ServerSentEvent:
    return ServerSentEvent("config_state", dump_config_state(state))


def changed(state: ConfigState) -> ServerSentEvent:
    return ServerSentEvent("config_changed", dump_config_state(state))


def synced(revision: int = 1, epoch: str = EPOCH) -> ServerSentEvent:
    return ServerSentEvent("synced", dump_position(at(revision, epoch)))


def opened(revision: int = 1, epoch: str = EPOCH, environment: str | None = "default") -> StatesOpened:
    return StatesOpened(at(revision, epoch), environment)


def unsealed(state: ConfigState) -> Fetched:
    return Fetched(metadata_of(state), b"document %d" % (state.version or 0))


def closed(state: ConfigState) -> Fetched:
    """A payload that does not open."""
    return Fetched(metadata_of(state), fault=DecryptionError("does not open"))


def applied(state: ConfigState, track: Track) -> Apply:
    return Apply(b"document %d" % (state.version or 0), metadata_of(state), track)


def fetched(revision: int, epoch: str = EPOCH, etag: str | None = '"tag"') -> Fetched:
    told = Metadata(revision, at(revision, epoch), "default", "main", 3, NOON, etag)
    return Fetched(told, b"document %d" % revision)


def following(track: Track, revision: int = 1, **settings: Any) -> Play:
    """A watch that holds ``revision`` of its one config, is LIVE and waits for what the stream brings."""
    play = Play(track, **settings)
    first = running(revision)
    assert isinstance(play(), OpenStates)
    assert play(opened(revision)) == Read()
    play.expect(stated(first), Unseal(track, first))
    play.expect(unsealed(first), applied(first, track), Read())
    play.expect(synced(revision), LIVE, Read())
    return play


def polling(track: Track, **settings: Any) -> Play:
    """A watch that has lost its stream, finds none, and is about to look at its one config."""
    play = following(track, **settings)
    play.lost(DOWN, 0.0)
    assert isinstance(play(), OpenStates)
    play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN))
    return play


# One stream


def test_the_first_opening_tells_that_nothing_is_held_and_the_states_are_taken_before_synced() -> None:
    """Open → state → unseal → apply → synced → LIVE: one request, and no fetch."""
    track = orders()
    play = Play(track)
    assert play() == OpenStates((Held("orders"),))
    assert play(opened(7)) == Read()
    play.expect(stated(running(3)), Unseal(track, running(3)))
    play.expect(unsealed(running(3)), applied(running(3), track), Read())
    play.expect(synced(7), LIVE, Read())
    assert track.seen.position == at(3)


def test_a_live_change_is_applied_from_its_own_payload() -> None:
    """A change brings the document along: it is unsealed, applied and heard of, and nothing is fetched."""
    track = orders()
    play = following(track)
    play.expect(changed(running(2)), Unseal(track, running(2)))
    play.expect(unsealed(running(2)), applied(running(2), track), Heard(track), Read())


@pytest.mark.parametrize("event", [stated, changed])
@pytest.mark.parametrize(
    "old", [running(4), running(5), deleted(4), running(900, epoch=EARLIER_EPOCH), deleted(900, EARLIER_EPOCH)]
)
def test_what_is_older_or_the_same_changes_nothing(
    old: ConfigState, event: Callable[[ConfigState], ServerSentEvent]
) -> None:
    """Late, repeated and reordered events, and those of an earlier history, are passed over."""
    track = orders()
    play = following(track, 5)
    play.expect(event(old), Read())
    assert track.held == Held("orders", None, None, at(5))


def test_a_later_epoch_is_newer_whatever_its_revision() -> None:
    """After a restore from a backup revisions start over, and are taken; the old history is older from then on."""
    track = orders()
    play = following(track, 5)
    play.lost(Ended(), 0.0)
    assert play() == OpenStates((Held("orders", None, None, at(5)),))
    assert play(opened(2, LATER_EPOCH)) == Read()
    new = running(2, epoch=LATER_EPOCH)
    play.expect(stated(new), Unseal(track, new))
    play.expect(unsealed(new), applied(new, track), Heard(track), Read())
    play.expect(synced(2, LATER_EPOCH), LIVE, Read())
    play.expect(changed(running(6)), Read())
    play.lost(Ended(), 1.0)
    assert play() == OpenStates((Held("orders", None, None, at(2, LATER_EPOCH)),))


def test_a_service_with_an_earlier_history_is_not_followed() -> None:
    """It is hung up on before anything is read, reported, and the old value stays STALE; the next host may be right."""
    track = orders()
    play = following(track, hosts=2)
    play.lost(Ended(), None)
    assert play() == OpenStates((Held("orders", None, None, at(1)),), host=1)
    error = play.lost(opened(900, EARLIER_EPOCH), 0.0)
    assert "earlier history" in str(error)
    assert isinstance(play(), OpenStates)
    play.expect(opened(), Read())


def test_each_config_has_a_cursor_of_its_own() -> None:
    """What a reconnect tells is what was seen of each, so that a change of one cannot hide a change of another."""
    one, other, third = orders(), Track("billing", "prod", "blue"), Track("search", None, None)
    play = Play(one, other, third)
    assert play() == OpenStates((Held("orders"), Held("billing", "prod", "blue"), Held("search")))
    assert play(opened(9)) == Read()
    first, second = running(9), running(4, "billing", environment="prod", label="blue")
    play.expect(stated(first), Unseal(one, first))
    play.expect(unsealed(first), applied(first, one), Read())
    play.expect(stated(second), Unseal(other, second))
    play.expect(unsealed(second), applied(second, other), Read())
    play.lost(DOWN, None)
    play.looked_for_in_vain(Fetch(None, at(9), one), 0.0)
    held = (Held("orders", None, None, at(9)), Held("billing", "prod", "blue", at(4)), Held("search"))
    assert play() == OpenStates(held)


def test_what_was_not_named_is_what_the_service_says_it_is() -> None:
    """Without an environment the token's own counts, which the head of the stream tells; another is passed over."""
    track, named = orders(), Track("orders", "prod", None)
    play = Play(track, named)
    play()
    assert play(opened(1, environment="staging")) == Read()
    play.expect(stated(running(1, environment="default")), Read())
    own = running(1, environment="staging")
    play.expect(stated(own), Unseal(track, own))
    play.expect(unsealed(own), applied(own, track), Read())
    prod = running(2, environment="prod")
    play.expect(changed(prod), Unseal(named, prod))
    play.expect(unsealed(prod), applied(prod, named), Read())
    play.expect(changed(running(3, label="blue", environment="prod")), Read())


def test_two_subscriptions_of_one_config_both_take_what_is_stated() -> None:
    """One event serves all of them, each with its own value and cursor."""
    one, other = orders(), orders()
    play = Play(one, other)
    assert play() == OpenStates((Held("orders"), Held("orders")))
    play(opened())
    play.expect(stated(running(1)), Unseal(one, running(1)))
    play.expect(unsealed(running(1)), applied(running(1), one), Unseal(other, running(1)))
    play.expect(unsealed(running(1)), applied(running(1), other), Read())


def test_comments_and_events_of_other_kinds_are_passed_over() -> None:
    """Heartbeats, blank events and kinds of a later release do no harm."""
    play = following(orders())
    play.expect(HEARTBEAT, Read())
    play.expect(ServerSentEvent("config_changed", ""), Read())
    play.expect(ServerSentEvent("message", "{}"), Read())
    play.expect(ServerSentEvent("config_retired", "{"), Read())


def test_an_event_that_cannot_be_read_ends_the_stream() -> None:
    """Of which config it was is unknown; the next opening states whatever is not held."""
    play = following(orders())
    error = play.lost(ServerSentEvent("config_changed", '{"config_name": "orders"}'), 0.0)
    assert isinstance(error, InvalidResponseError)
    assert play() == OpenStates((Held("orders", None, None, at(1)),))


def test_a_driver_that_answers_nonsense_is_a_defect() -> None:
    """An outcome that does not belong to the command raises TypeError instead of being taken for success."""
    play = Play(orders())
    play()
    with pytest.raises(TypeError, match="Ended"):
        play(Ended())


# What is not there


def test_a_deleted_config_keeps_its_value_and_is_reported_once() -> None:
    """Also over reconnects: the deletion is held like any other state; a later version brings the config back."""
    track = orders()
    play = following(track)
    report = play(changed(deleted(2)))
    assert report == Forget(track)
    report = play()
    assert isinstance(report, Report)
    assert isinstance(report.error, NotFoundError)
    play.expect(None, Trouble("deleted", report.error, track), Heard(track), Read())
    play.expect(stated(deleted(2)), Read())
    play.lost(Ended(), 0.0)
    assert play() == OpenStates((Held("orders", None, None, at(2)),))
    play.expect(opened(2), Read())
    play.expect(synced(2), LIVE, Read())
    play.expect(changed(running(3)), Unseal(track, running(3)))
    play.expect(unsealed(running(3)), applied(running(3), track), Heard(track), Read())


@pytest.mark.parametrize(
    ("state", "error"), [(MISSING, NotFoundError), (deleted(4), NotFoundError), (REFUSED, ForbiddenError)]
)
def test_what_was_never_there_ends_its_own_subscription_only(
    state: ConfigState, error: type[ConfigClientError]
) -> None:
    """A mistyped name or a missing scope is told at once; the other configs are followed on."""
    track, other = orders(), Track("billing", None, None)
    play = Play(track, other)
    play()
    play(opened())
    assert play(stated(state)) == Forget(track)
    report = play()
    assert isinstance(report, Report)
    assert isinstance(report.error, error)
    play.expect(None, Finish(report.error, track), Read())
    play.lost(DOWN, None)
    play.looked_for_in_vain(Fetch(None, None, other), 0.0)
    assert play() == OpenStates((Held("billing"),))


@pytest.mark.parametrize("state", [MISSING, deleted(4)])
@pytest.mark.parametrize("how", ["patient", "option"])
def test_what_is_not_there_yet_may_be_waited_for(state: ConfigState, how: str) -> None:
    """A patient subscription, or final errors without NotFoundError: reported once, and taken when it comes."""
    track = orders(patient=how == "patient")
    play = Play(track, final=DEFAULT_FINAL_ERRORS if how == "patient" else (UnauthorizedError,))
    play()
    play(opened())
    assert play(stated(state)) == Forget(track)
    report = play()
    assert isinstance(report, Report)
    reason = "missing" if state is MISSING else "deleted"
    play.expect(None, Trouble(reason, report.error, track), Read())
    play.expect(synced(), LIVE, Read())
    play.lost(Ended(), 0.0)
    play()
    play(opened())
    play.expect(stated(state), Read())
    play.expect(changed(running(9)), Unseal(track, running(9)))
    play.expect(unsealed(running(9)), applied(running(9), track), Read())


def test_a_config_that_was_found_is_never_lost_to_a_404() -> None:
    """A restored backup may lack it: the value stays, it is asked for without a cursor, and its return is noticed."""
    track = orders()
    play = following(track)
    play.lost(Ended(), 0.0)
    play()
    play(opened())
    assert play(stated(MISSING)) == Forget(track)
    report = play()
    assert isinstance(report, Report)
    play.expect(None, Trouble("missing", report.error, track), Heard(track), Read())
    play.expect(synced(), LIVE, Read())
    play.lost(Ended(), 1.0)
    assert play() == OpenStates((Held("orders"),))
    play.expect(opened(), Read())
    play.expect(stated(running(1)), Clear(track), Read())


def test_a_refusal_that_is_not_final_is_told_once_and_passes() -> None:
    """Scopes may be given back: the state is asked for at every opening, and the old trouble is over then."""
    track = orders()
    play = following(track, final=())
    play.lost(Ended(), 0.0)
    for number in range(2):
        play()
        play(opened())
        if number == 0:
            assert play(stated(REFUSED)) == Forget(track)
            report = play()
            assert isinstance(report, Report)
            play.expect(None, Trouble("refused", report.error, track), Heard(track), Read())
        else:
            play.expect(stated(REFUSED), Read())
        play.expect(synced(), LIVE, Read())
        play.lost(Ended(), number + 1.0)
    assert play() == OpenStates((Held("orders"),))
    play(opened())
    play.expect(stated(running(1)), Clear(track), Read())


def test_a_deletion_behind_a_refusal_is_told_of_when_it_shows() -> None:
    """Refused, then readable again and deleted: the trouble is what is true now."""
    track = orders()
    play = following(track, final=())
    play(changed(deleted(2)))
    while play() != Read():
        pass
    assert play(stated(REFUSED)) == Forget(track)
    while play() != Read():
        pass
    assert track.held == Held("orders")
    assert play(stated(deleted(2))) == Forget(track)
    report = play()
    assert isinstance(report, Report)
    play.expect(None, Trouble("deleted", report.error, track), Heard(track), Read())
    assert track.held == Held("orders", None, None, at(2))


# What cannot be used


@pytest.mark.parametrize(
    ("error", "reason"),
    [(UnmarshalError("does not fit"), "does not decode"), (RefusedError("no"), "refused by pre_apply")],
)
def test_what_cannot_be_used_is_reported_once_and_counts_as_seen(error: ConfigClientError, reason: str) -> None:
    """The old value stays, and no reconnect asks for the bad version again; the next one is taken."""
    track = orders()
    play = following(track)
    play.expect(changed(running(2)), Unseal(track, running(2)))
    play.expect(unsealed(running(2)), applied(running(2), track))
    play.expect(error, Report(error, track), Trouble(reason, error, track), Heard(track), Read())
    play.expect(stated(running(2)), Read())
    play.lost(Ended(), 0.0)
    assert play() == OpenStates((Held("orders", None, None, at(2)),))
    play.expect(opened(2), Read())
    play.expect(changed(running(3)), Unseal(track, running(3)))
    play.expect(unsealed(running(3)), applied(running(3), track), Heard(track), Read())


def test_a_misfit_that_was_gone_for_a_while_is_still_a_misfit() -> None:
    """When it is found again as it was, so is its trouble: the value is not current."""
    track = orders()
    play = following(track, final=())
    error = UnmarshalError("does not fit")
    play.expect(changed(running(2)), Unseal(track, running(2)))
    play.expect(unsealed(running(2)), applied(running(2), track))
    play.expect(error, Report(error, track), Trouble("does not decode", error, track), Heard(track), Read())
    assert play(stated(REFUSED)) == Forget(track)
    while play() != Read():
        pass
    play.expect(stated(running(2)), Trouble("does not decode", error, track), Read())


def test_an_error_of_a_value_may_be_final() -> None:
    """Who wants to end on a document that does not decode says so."""
    track = orders()
    play = following(track, final=(UnmarshalError,))
    error = UnmarshalError("does not fit")
    play.expect(changed(running(2)), Unseal(track, running(2)))
    play.expect(unsealed(running(2)), applied(running(2), track))
    play.expect(error, Report(error, track), Trouble("does not decode", error, track), Finish(error, track))
    play.expect(None, Heard(track), HangUp())
    assert play() is None


def test_what_does_not_open_is_reported_once_and_stated_again_until_it_opens() -> None:
    """It is not held, so every opening brings it again: a rotation of keys may be under way."""
    track = orders()
    play = following(track)
    play.expect(changed(running(2)), Unseal(track, running(2)))
    bad = closed(running(2))
    assert bad.fault is not None
    play.expect(bad, Report(bad.fault, track), Trouble("cannot be opened", bad.fault, track), Heard(track), Read())
    play.lost(Ended(), 0.0)
    assert play() == OpenStates((Held("orders"),))
    play(opened())
    play.expect(stated(running(2)), Unseal(track, running(2)))
    play.expect(closed(running(2)), Read())
    play.expect(synced(), LIVE, Read())
    play.lost(Ended(), 1.0)
    assert play() == OpenStates((Held("orders"),))
    play(opened())
    play.expect(stated(running(2)), Unseal(track, running(2)))
    play.expect(unsealed(running(2)), applied(running(2), track), Heard(track), Read())
    play.expect(synced(), LIVE, Read())
    play.lost(Ended(), 2.0)
    assert play() == OpenStates((Held("orders", None, None, at(2)),))


def test_what_does_not_open_is_asked_for_now_and_then_on_a_stream_that_stays() -> None:
    """Keys may come without a change: heartbeats give the occasion, once per poll interval, without a pause."""
    track = orders()
    play = following(track)
    play.expect(changed(running(2)), Unseal(track, running(2)))
    bad = closed(running(2))
    play(bad)
    while play() != Read():
        pass
    play.clock.now += 29.0
    play.expect(HEARTBEAT, Read())
    play.clock.now += 2.0
    play.expect(HEARTBEAT, HangUp(), OpenStates((Held("orders"),)))
    play.expect(opened(), Read())
    play.clock.now += 29.0
    play.expect(HEARTBEAT, Read())
    # One that is not there any more is not waited for.
    assert play(stated(MISSING)) == Forget(track)
    while play() != Read():
        pass
    play.clock.now += 100.0
    play.expect(HEARTBEAT, Read())


def test_another_version_that_does_not_open_is_reported_too() -> None:
    """Once for each version."""
    track = orders()
    play = following(track)
    for revision in (2, 3):
        play.expect(changed(running(revision)), Unseal(track, running(revision)))
        bad = closed(running(revision))
        assert bad.fault is not None
        play.expect(bad, Report(bad.fault, track), Trouble("cannot be opened", bad.fault, track), Heard(track), Read())


# Ends and pauses


def test_a_clean_end_of_the_stream_backs_off_too() -> None:
    """A service that ends every stream at once is not hammered: the pauses grow, though each came as far as LIVE."""
    play = following(orders())
    for pause in (0.0, 1.0, 2.0):
        error = play.lost(Ended(), pause)
        assert isinstance(error, ConnectionError)
        assert isinstance(play(), OpenStates)
        play.expect(opened(), Read())
        play.expect(synced(), LIVE, Read())


def test_the_pauses_are_short_again_only_after_a_healthy_minute() -> None:
    """A stream that lived 59.9 s counts as one more failure; one that lived 60 s starts the backoff anew."""
    play = following(orders())
    for lived, pause in ((0.0, 0.0), (59.9, 1.0), (HEALTHY_SECONDS, 0.0), (1.0, 1.0), (1000.0, 0.0)):
        play.clock.now += lived
        play.lost(Ended(), pause)
        play()
        play.expect(opened(), Read())
        play.expect(synced(), LIVE, Read())


def test_a_stream_that_never_says_synced_is_not_healthy() -> None:
    """However long it stays open."""
    track = orders()
    play = Play(track)
    for pause in (0.0, 1.0):
        play()
        play.expect(opened(), Read())
        play.clock.now += 1000.0
        play.lost(Ended(), None)
        play.looked_for_in_vain(Fetch(None, None, track), pause)


def test_the_pause_that_the_service_asks_for_is_kept() -> None:
    """Retry-After counts when it is longer than the backoff, up to a minute."""
    for asked, pause in ((20.0, 20.0), (3600.0, 60.0), (None, 0.0)):
        play = following(orders())
        play.lost(ConnectionError("503", retry_after=asked), pause)


def test_the_pause_that_a_poll_is_asked_for_is_kept_too() -> None:
    """What refuses streams may say nothing of when to come again, and the service behind it may."""
    track, busy = orders(), ConnectionError("503", retry_after=20.0)
    play = Play(track)
    play()
    play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN), Fetch(None, None, track))
    play.expect(busy, Connection(State.STALE, "connection lost", busy), Pause(20.0))


@pytest.mark.parametrize("busy_host", [0, 1])
def test_a_host_that_asks_for_a_pause_has_it_and_keeps_the_others_from_nothing(busy_host: int) -> None:
    """Retry-After is one host's: that one is passed over, and polls of all are left out, until its time has come."""
    track, busy = orders(), ConnectionError("503", retry_after=20.0)
    play = Play(track, hosts=2)
    asked: list[tuple[int, float]] = []
    polled: list[float] = []
    paused: list[float] = []
    outcome: Outcome = None
    while play.clock.now < 1022.0:
        command = play(outcome)
        outcome = None
        if isinstance(command, OpenStates):
            asked.append((command.host, play.clock.now - 1000.0))
            outcome = busy if command.host == busy_host else DOWN
        elif isinstance(command, Fetch):
            polled.append(play.clock.now - 1000.0)
            outcome = DOWN
        elif isinstance(command, Pause):
            paused.append(command.seconds)
            play.clock.now += command.seconds
    assert [since for host, since in asked if host == busy_host] == [0.0, 21.0]
    assert [since for host, since in asked if host != busy_host] == [0.0, 0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0]
    assert polled == [0.0, 21.0]
    assert paused == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_all_hosts_that_ask_for_a_pause_have_it() -> None:
    """The pause is as long as the shortest that was asked for, and that host is asked first then."""
    play = following(orders(), hosts=2)
    play.lost(ConnectionError("503", retry_after=30.0), None)
    assert play() == OpenStates((Held("orders", None, None, at(1)),), host=1)
    busy = ConnectionError("503", retry_after=10.0)
    play.expect(busy, Report(busy), Connection(State.STALE, "connection lost", busy), Pause(10.0))
    play.clock.now += 10.0
    assert play() == OpenStates((Held("orders", None, None, at(1)),), host=1)


def test_hosts_are_tried_in_order_and_only_all_of_them_are_worth_a_pause() -> None:
    """A host that is down costs no pause while there is another; each round begins at the first."""
    play = Play(orders(), hosts=3)
    outcome: Outcome = None
    for _ in range(2):
        for host in range(3):
            assert play(outcome) == OpenStates((Held("orders"),), host)
            play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN))
            outcome = None
        command = play()
        if isinstance(command, Fetch):
            play.expect(DOWN, Connection(State.STALE, "connection lost", DOWN))
            command = play()
        assert isinstance(command, Pause)


def test_a_host_that_fails_after_a_healthy_minute_hands_over_without_a_pause() -> None:
    """A failover is immediate, and counts as the first try of a new round."""
    play = following(orders(), hosts=2)
    play.clock.now += HEALTHY_SECONDS
    play.lost(Ended(), None)
    assert play() == OpenStates((Held("orders", None, None, at(1)),), host=1)
    play.expect(opened(), Read())
    play.expect(synced(), LIVE, Read())


# Without a stream


def test_the_second_round_without_a_stream_polls_and_says_so() -> None:
    """The first may just have met a restart. Polls are conditional, and streams are tried as often as ever."""
    track = orders()
    play = polling(track, uniform=lambda low, high: low)
    play.expect(None, Fetch(None, at(1), track))
    play.expect(fetched(2), Apply(b"document 2", fetched(2).metadata, track))
    play.expect(None, Heard(track), Connection(State.POLLING, "no stream", DOWN), Pause(1.0))
    assert play() == OpenStates((Held("orders", None, None, at(2)),))
    play.expect(DOWN, Report(DOWN), Pause(2.0))
    play.clock.now += 15.0
    assert isinstance(play(), OpenStates)
    play.expect(DOWN, Report(DOWN), Fetch('"tag"', at(2), track))
    play.expect(NotModified(), Connection(State.POLLING, "no stream", DOWN), Pause(3.0))
    assert isinstance(play(), OpenStates)
    play.expect(opened(2), Read())
    play.expect(synced(2), LIVE, Read())


def test_the_interval_of_polling_is_jittered_by_half_either_way() -> None:
    """Many clients behind one proxy must not all come at once."""
    for pick, seconds in ((0, 15.0), (1, 45.0)):
        track = orders()
        play = polling(track, uniform=lambda low, high, pick=pick: (low, high)[pick])
        assert isinstance(play(), Fetch)
        play.expect(NotModified(), Connection(State.POLLING, "no stream", DOWN), Pause(1.0))
        for moved, command in ((seconds - 0.1, Pause(2.0)), (0.2, Fetch(None, at(1), track))):
            play.clock.now += moved
            assert isinstance(play(), OpenStates)
            play.expect(DOWN, Report(DOWN), command)


def test_a_poll_that_fails_is_an_outage_and_asks_no_further() -> None:
    """One request per pause while the service is down, however many configs there are."""
    track, other = orders(), Track("billing", None, None)
    play = Play(track, other)
    for pause in (0.0, 1.0):
        play()
        play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN))
        play.looked_for_in_vain(Fetch(None, None, track), pause)


def test_a_config_without_a_first_value_is_looked_for_in_the_first_round_already() -> None:
    """Whoever starts behind a proxy that refuses streams has its value at once; what is held waits for a second."""
    track, other = orders(), Track("billing", None, None)
    play = following(track)
    play.watch.add(other)
    play.expect(Woken(), HangUp())
    assert isinstance(play(), OpenStates)
    play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN), Fetch(None, at(1), track))
    play.expect(NotModified(), Fetch(None, None, other))
    play.expect(fetched(2), Apply(b"document 2", fetched(2).metadata, other))
    play.expect(None, Connection(State.POLLING, "no stream", DOWN), Pause(0.0))
    # What was found to be missing has been looked for, and what is held can wait.
    for gone in (False, True):
        alone = orders(patient=True)
        play = following(alone)
        alone.found, alone.gone = not gone, "missing" if gone else ""
        play.lost(DOWN, 0.0)


def test_a_poll_finds_deletions_and_returns() -> None:
    """404 keeps the value and is reported once; a 304 after it says that all is as it was."""
    track = orders()
    play = polling(track)
    gone = NotFoundError("404")
    assert isinstance(play(), Fetch)
    play.expect(gone, Forget(track), Report(gone, track), Trouble("deleted", gone, track), Heard(track))
    play.expect(None, Connection(State.POLLING, "no stream", DOWN))
    for answer, told in ((gone, []), (NotModified(), [Clear(track)])):
        assert isinstance(play(), Pause)
        play.clock.now += 60.0
        assert isinstance(play(), OpenStates)
        play.expect(DOWN, Report(DOWN))
        assert isinstance(play(), Fetch)
        play.expect(answer, *told, Connection(State.POLLING, "no stream", DOWN))


@pytest.mark.parametrize(("error", "found"), [(NotFoundError("404"), False), (ForbiddenError("403"), True)])
def test_a_poll_may_end_one_subscription(error: ConfigClientError, found: bool) -> None:
    """A first 404, and a 403, are as final by a poll as they are on the stream; the others go on."""
    track, other = orders(), Track("billing", None, None)
    track.found = found
    play = Play(track, other)
    play()
    play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN), Fetch(None, None, track))
    play.expect(error, Forget(track), Report(error, track), Finish(error, track), Fetch(None, None, other))


def test_an_older_answer_to_a_poll_is_no_confirmation() -> None:
    """A replica that is behind, or an old backup, leaves the value STALE instead of POLLING."""
    for old in (fetched(4), fetched(900, EARLIER_EPOCH)):
        track = orders()
        play = polling(track)
        track.seen = Seen(at(5))
        assert play() == Fetch(None, at(5), track)
        command = play(old)
        assert isinstance(command, Connection)
        assert command.state is State.STALE
        assert "older state" in str(command.error)
        assert isinstance(play(), Pause)


def test_a_poll_asks_for_the_whole_of_what_could_not_be_opened() -> None:
    """A 304 would never bring it, though keys have come meanwhile."""
    track = orders()
    play = polling(track)
    track.seen = Seen(at(2), '"tag"', unopened=True)
    assert play() == Fetch(None, at(2), track)
    play.expect(fetched(2), Apply(b"document 2", fetched(2).metadata, track), Heard(track))


# Refusals of the whole


def over(error: ConfigClientError) -> Connection:
    return Connection(State.STOPPED, "ended by an error", error)


def test_a_token_that_is_refused_ends_everything_and_erases_what_is_kept() -> None:
    """401: reported once, every subscription ends, and so does the connection."""
    track, other = orders(), Track("billing", None, None)
    error = UnauthorizedError("401")
    play = Play(track, other)
    play()
    play.expect(error, Forget(track), Forget(other), Report(error), Finish(error, track), Finish(error, other))
    assert play() == over(error)
    assert play() is None


def test_a_stream_that_is_forbidden_says_nothing_of_the_configs() -> None:
    """A filter on the way refuses what it does not know: values are polled for at once, and nothing is erased."""
    track = orders()
    play = following(track)
    error = ForbiddenError("403")
    play.lost(Ended(), 0.0)
    assert isinstance(play(), OpenStates)
    play.expect(error, Report(error), Connection(State.STALE, "connection lost", error), Fetch(None, at(1), track))
    play.expect(fetched(2), Apply(b"document 2", fetched(2).metadata, track), Heard(track))
    play.expect(None, Connection(State.POLLING, "no stream", error), Pause(1.0))
    assert isinstance(play(), OpenStates)
    play.expect(error, Report(error), Pause(2.0))


def test_a_token_that_may_read_nothing_is_told_so_by_the_configs_themselves() -> None:
    """403 for the stream and for the config: the subscription ends with it, and what is kept is erased."""
    track = orders()
    play = Play(track)
    stream, own = ForbiddenError("403 of the stream"), ForbiddenError("403 of the config")
    play()
    play.expect(stream, Report(stream), Connection(State.STALE, "connection lost", stream), Fetch(None, None, track))
    play.expect(own, Forget(track), Report(own, track), Finish(own, track))
    play.expect(None, Connection(State.POLLING, "no stream", stream), Pause(0.0))
    assert play() is None


def test_a_token_that_is_refused_may_be_waited_for() -> None:
    """With no final errors the watch goes on for ever; what is kept for a start is erased all the same."""
    track = orders()
    play = following(track, final=())
    error = UnauthorizedError("401")
    play.expect(Ended(), HangUp())
    while not isinstance(play(), Pause):
        pass
    play()
    play.expect(error, Forget(track), Report(error), Connection(State.STALE, "connection lost", error))
    assert isinstance(play(), Fetch)
    play.expect(error, Forget(track), Connection(State.STALE, "connection lost", error), Pause(1.0))


def test_a_poll_may_find_that_the_token_is_refused() -> None:
    """Behind a proxy that blocks streams the GETs tell it, and what is kept is erased as ever."""
    track = orders()
    play = polling(track)
    error = UnauthorizedError("401")
    assert isinstance(play(), Fetch)
    play.expect(error, Forget(track), Report(error), Finish(error, track), over(error))
    assert play() is None


def test_a_service_that_asks_not_to_be_watched_is_not_watched() -> None:
    """204: reported, and every subscription ends."""
    track = orders()
    play = Play(track)
    error = InvalidResponseError("204")
    play()
    play.expect(Halted(error), Report(error), Finish(error, track), over(error))
    assert play() is None


# The set of configs


def test_a_subscription_joins_while_the_stream_lives() -> None:
    """Woken, the watch reopens at once with the new list: no pause, no report, and the others stay LIVE."""
    track, other = orders(), Track("billing", None, None)
    play = following(track)
    play.watch.add(other)
    held = (Held("orders", None, None, at(1)), Held("billing"))
    play.expect(Woken(), HangUp(), OpenStates(held))
    play.expect(opened(), Read())
    state = running(4, "billing")
    play.expect(stated(state), Unseal(other, state))
    play.expect(unsealed(state), applied(state, other), Read())
    play.expect(synced(4), LIVE, Read())


def test_a_subscription_that_has_left_is_not_served_any_more() -> None:
    """Its events are passed over at once, and the next opening does not name it."""
    track, other = orders(), Track("billing", None, None)
    play = following(track)
    play.watch.add(other)
    play.expect(Woken(), HangUp())
    play()
    play.expect(opened(), Read())
    play.watch.remove(track)
    play.expect(changed(running(2)), Read())
    play.lost(Ended(), None)
    play.looked_for_in_vain(Fetch(None, None, other), 0.0)
    assert play() == OpenStates((Held("billing"),))


def test_without_subscriptions_the_watch_ends() -> None:
    """The stream is closed and nothing runs on for nobody."""
    track = orders()
    play = following(track)
    play.watch.remove(track)
    play.expect(Woken(), HangUp())
    assert play() is None
    assert Play()() is None


def test_a_subscription_that_joins_while_values_are_polled_for_is_looked_at_at_once() -> None:
    """It waits for its first value, which no stream will bring, and not for its turn."""
    track, other = orders(), Track("billing", None, None)
    play = polling(track)
    assert isinstance(play(), Fetch)
    play.expect(NotModified(), Connection(State.POLLING, "no stream", DOWN), Pause(1.0))
    play.watch.add(other)
    assert isinstance(play(Woken()), OpenStates)
    play.expect(DOWN, Report(DOWN), Fetch(None, at(1), track))
    assert play(NotModified()) == Fetch(None, None, other)


def test_what_leaves_during_a_poll_is_not_touched() -> None:
    """The answer for it is dropped."""
    track, other = orders(), Track("billing", None, None)
    play = Play(track, other)
    play()
    play.expect(DOWN, Report(DOWN), Connection(State.STALE, "connection lost", DOWN), Fetch(None, None, track))
    play.watch.remove(track)
    assert play(fetched(1)) == Fetch(None, None, other)


# A service that speaks the base protocol only


def test_a_service_without_the_route_is_watched_by_base_streams_and_asked_again_now_and_then() -> None:
    """The configs are delegated for about a minute at a time, also while probing meets errors; then called back."""
    track = orders()
    play = Play(track, uniform=lambda low, high: low)
    play()
    assert play(Unsupported()) == Delegate(PROBE_SECONDS / 2)
    for probe in (Unsupported(), DOWN, UnauthorizedError("401"), Halted(InvalidResponseError("204"))):
        assert isinstance(play(), OpenStates)
        assert play(probe) == Delegate(PROBE_SECONDS / 2)
    assert isinstance(play(), OpenStates)
    play.expect(opened(), Recall(), Read())
    play.expect(synced(), LIVE, Read())
    assert isinstance(play.lost(DOWN, None), ConnectionError)


def test_a_subscription_that_joins_base_streams_gets_one_of_its_own() -> None:
    """Woken, the watch asks the service once, and delegates the new config too."""
    track = orders()
    play = Play(track)
    play()
    assert isinstance(play(Unsupported()), Delegate)
    play.watch.add(Track("billing", None, None))
    assert play(Woken()) == OpenStates((Held("orders"), Held("billing")))
    assert isinstance(play(Unsupported()), Delegate)
