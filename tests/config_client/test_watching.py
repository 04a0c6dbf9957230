"""The rules of the watches, driven by hand: commands out, outcomes in, no I/O and no time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from httpx_sse import ServerSentEvent

from config_client import (
    ConfigChangeEvent,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
    UnmarshalError,
)
from config_client._rounds import HEALTHY_SECONDS, MIN_BASE_DELAY, Policy, limited
from config_client._steps import (
    Apply,
    Clear,
    Command,
    Connection,
    Ended,
    Fetch,
    Fetched,
    Forget,
    Halted,
    HangUp,
    Heard,
    Notify,
    NotModified,
    Open,
    Opened,
    Outcome,
    Pause,
    Read,
    Report,
    Trouble,
)
from config_client._tracks import Track
from config_client.backoff import Backoff
from config_client.options import DEFAULT_FINAL_ERRORS
from config_client.protocol import Metadata, Position, dump_change_event
from config_client.watching import EventWatch, ValueWatch

EPOCH = "0192f3a4b5c6d7e8f9a0b1c2"
LATER_EPOCH = "0192f3a4b5c700000000000a"
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
DOWN = ConnectionError("down")


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
    """A watch on a stage: call it with an outcome and it returns the next command."""

    def __init__(self, watch: ValueWatch | EventWatch) -> None:
        self._steps = watch.run()
        self.told: list[Command] = []
        """What the watch said of its state on the way."""

    def __call__(self, outcome: Outcome = None) -> Command:
        command = self._steps.send(outcome)
        while isinstance(command, Connection | Trouble | Clear | Forget):
            self.told.append(command)
            command = self._steps.send(None)
        return command

    def through(self, *exchanges: tuple[Command, Outcome], outcome: Outcome = None) -> Outcome:
        """Expect each command, sending ``outcome`` for the first and then what was answered; return the last answer."""
        for command, answer in exchanges:
            assert self(outcome) == command
            outcome = answer
        return outcome


def policy(
    final: tuple[type[ConfigClientError], ...] = DEFAULT_FINAL_ERRORS, clock: Callable[[], float] | None = None
) -> Policy:
    return Policy(Counting(1.0), final, clock or Clock())


def at(revision: int, epoch: str = EPOCH) -> Position:
    return Position(epoch, revision)


def metadata(revision: int, epoch: str = EPOCH, **changes: Any) -> Metadata:
    """What our own service tells of a config that was published at ``revision``."""
    told = {
        "version": revision,
        "position": at(revision, epoch),
        "environment": "default",
        "label": "main",
        "changed_by": 3,
        "timestamp": NOON,
        "etag": f'"{epoch}-{revision}-k-1"',
        **changes,
    }
    return Metadata(**told)


def fetched(revision: int, epoch: str = EPOCH, **changes: Any) -> Fetched:
    return Fetched(metadata(revision, epoch, **changes), b"document %d" % revision)


def sealed_elsewhere(revision: int | None = None, **changes: Any) -> Fetched:
    """A payload that does not open."""
    told = Metadata(**changes) if revision is None else metadata(revision, **changes)
    return Fetched(told, fault=DecryptionError("does not open"))


def change(revision: int | None = None, epoch: str = EPOCH, **changes: Any) -> ConfigChangeEvent:
    """A change as our own service tells it; without a revision, as a foreign one does."""
    own = {"environment": "default", "label": "main", "epoch": epoch, "revision": revision} if revision else {}
    told = {"config_name": "orders", "version": revision or 9, "changed_by": 3, "timestamp": NOON, **own, **changes}
    return ConfigChangeEvent(**told)


def sse(event: ConfigChangeEvent) -> ServerSentEvent:
    return ServerSentEvent("config_changed", dump_change_event(event))


def following(*, position: Position | None = None, revision: int = 1) -> Play:
    """A value watch of our own service that has loaded ``revision`` and reads the stream."""
    play = Play(ValueWatch(policy()))
    first = fetched(revision)
    last = play.through(
        (Fetch(), first),
        (Apply(first.document, first.metadata), None),
        (Open(), Opened(position)),
        (Fetch(first.metadata.etag, position), NotModified()),
    )
    assert play(last) == Read()
    return play


def following_foreign(document: bytes = b"one", etag: str | None = None) -> Play:
    """A value watch of a service that tells nothing, loaded and reading."""
    play = Play(ValueWatch(policy()))
    told = Metadata(etag=etag)
    assert play() == Fetch()
    assert play(Fetched(told, document)) == Apply(document, told)
    assert play() == Open()
    assert play(Opened()) == Fetch(etag)
    assert play(NotModified() if etag else Fetched(told, document)) == Read()
    return play


def hung_up(play: Play, outcome: Outcome) -> ConfigClientError:
    """Expect that ``outcome`` ends the stream; return the error that is reported, having paused."""
    assert play(outcome) == HangUp()
    report = play()
    assert isinstance(report, Report)
    assert isinstance(play(), Pause)
    return report.error


# The rounds


def test_a_value_watch_loads_then_subscribes_then_fetches_then_reads() -> None:
    """The snapshot fills before any stream is open, and the fetch after the opening closes the gap between them."""
    play = Play(ValueWatch(policy()))
    assert play() == Fetch()
    assert play(fetched(1)) == Apply(b"document 1", metadata(1))
    assert play() == Open()
    assert play(Opened(at(4))) == Fetch(metadata(1).etag, at(4))
    assert play(NotModified()) == Read()


def test_a_change_between_loading_and_opening_is_fetched() -> None:
    """What was published before the subscription cannot be an event of it; the fetch after it finds it."""
    play = Play(ValueWatch(policy()))
    assert play() == Fetch()
    assert play(fetched(1)) == Apply(b"document 1", metadata(1))
    assert play() == Open()
    assert play(Opened(at(2))) == Fetch(metadata(1).etag, at(2))
    assert play(fetched(2)) == Apply(b"document 2", metadata(2))
    assert play() == Heard()
    assert play() == Read()


def test_an_event_is_fetched_and_applied_and_heard_of() -> None:
    """A change on the stream leads to one fetch, one store and one call of on_change."""
    play = following()
    assert play(sse(change(2))) == Fetch(metadata(1).etag, at(2))
    assert play(fetched(2)) == Apply(b"document 2", metadata(2))
    assert play() == Heard()
    assert play() == Read()


def test_every_event_is_heard_of_though_one_fetch_may_serve_several() -> None:
    """Events that an earlier fetch has overtaken are told to on_change, but neither fetched nor applied again."""
    play = following()
    assert play(sse(change(2))) == Fetch(metadata(1).etag, at(2))
    assert play(fetched(3)) == Apply(b"document 3", metadata(3))
    assert play() == Heard()
    assert play() == Read()
    assert play(sse(change(3))) == Heard()
    assert play() == Read()


def test_a_change_during_reconnect_is_delivered() -> None:
    """After a cut the next stream is opened first and the config fetched second, without any new publish."""
    play = following()
    assert isinstance(hung_up(play, DOWN), ConnectionError)
    assert play() == Open()
    assert play(Opened(at(5))) == Fetch(metadata(1).etag, at(5))
    assert play(fetched(4)) == Apply(b"document 4", metadata(4))
    assert play() == Heard()
    assert play() == Read()


def test_a_clean_end_of_the_stream_backs_off_too() -> None:
    """A service that ends every stream at once is not hammered: the pauses grow."""
    play = following()
    outcome: Outcome = Ended()
    for expected in (0.0, 1.0, 2.0):
        assert play(outcome) == HangUp()
        report = play()
        assert isinstance(report, Report)
        assert isinstance(report.error, ConnectionError)
        assert play() == Pause(expected)
        assert play() == Open()
        assert play(Opened()) == Fetch(metadata(1).etag)
        assert play(NotModified()) == Read()


def test_the_pauses_are_short_again_only_after_a_healthy_minute() -> None:
    """A stream that lived 59.9 s counts as one more failure; one that lived 60 s starts the backoff anew."""
    clock = Clock()
    play = Play(ValueWatch(policy(clock=clock)))
    play.through((Fetch(), fetched(1)), (Apply(b"document 1", metadata(1)), None))
    for lived, pause in ((0.0, 0.0), (59.9, 1.0), (HEALTHY_SECONDS, 0.0), (1.0, 1.0), (0.0, 2.0), (1000.0, 0.0)):
        assert play() == Open()
        assert play(Opened()) == Fetch(metadata(1).etag)
        assert play(NotModified()) == Read()
        clock.now += lived
        assert play(Ended()) == HangUp()
        assert isinstance(play(), Report)
        assert play() == Pause(pause)


def test_time_without_a_stream_is_not_health() -> None:
    """Minutes of failed attempts do not reset the backoff."""
    clock = Clock()
    play = Play(ValueWatch(policy(clock=clock)))
    assert play() == Fetch()
    for pause in (0.0, 1.0, 2.0, 3.0):
        clock.now += 600
        assert play(DOWN) == Report(DOWN)
        assert play() == Pause(pause)
        assert play() == Fetch()


def test_no_setting_makes_a_hot_loop() -> None:
    """Base and cap of the backoff have a floor, however small the options are."""
    bounded = limited(Backoff(0.0, cap=1e-9))
    assert (bounded.base, bounded.cap) == (MIN_BASE_DELAY, MIN_BASE_DELAY)
    assert limited(Backoff(2.0, cap=9.0)) == Backoff(2.0, cap=9.0)


def test_loading_goes_on_while_the_service_is_down() -> None:
    """Network errors and 5xx at the start are reported and retried for ever; the first success is applied."""
    play = Play(ValueWatch(policy()))
    assert play() == Fetch()
    for pause in range(50):
        assert play(DOWN) == Report(DOWN)
        assert play() == Pause(float(pause))
        assert play() == Fetch()
    assert play(fetched(1)) == Apply(b"document 1", metadata(1))
    assert play() == Open()


def test_a_value_stays_current_while_streams_are_blocked() -> None:
    """A proxy that lets no stream through leaves polling: every round without a stream begins with a fetch."""
    play = Play(ValueWatch(policy()))
    play.through((Fetch(), fetched(1)), (Apply(b"document 1", metadata(1)), None))
    blocked = InvalidResponseError("text/html")
    assert play() == Open()
    assert play(blocked) == Report(blocked)
    assert isinstance(play(), Pause)
    assert play() == Fetch(metadata(1).etag)
    assert play(NotModified()) == Open()
    assert play(DOWN) == Report(DOWN)
    assert isinstance(play(), Pause)
    assert play() == Fetch(metadata(1).etag)
    assert play(fetched(2)) == Apply(b"document 2", metadata(2))
    assert play() == Heard()
    assert play() == Open()


def test_a_service_that_is_down_is_asked_once_per_round() -> None:
    """While fetching fails no stream is tried, so that an outage costs one request per pause."""
    play = following()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(DOWN) == Report(DOWN)
    assert isinstance(play(), Pause)
    for _ in range(3):
        assert play() == Fetch(metadata(1).etag)
        assert play(DOWN) == Report(DOWN)
        assert isinstance(play(), Pause)


def test_a_stream_whose_gap_cannot_be_closed_is_given_up() -> None:
    """If the fetch after the opening fails, the watch cannot know what it missed: it hangs up and tries again."""
    play = following()
    hung_up(play, Ended())
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(1).etag)
    assert hung_up(play, DOWN) is DOWN
    assert play() == Fetch(metadata(1).etag)
    assert play(fetched(2)) == Apply(b"document 2", metadata(2))
    assert play() == Heard()
    assert play() == Open()


def test_a_driver_that_answers_nonsense_is_a_defect() -> None:
    """An outcome that does not belong to the command raises TypeError instead of being taken for success."""
    play = Play(ValueWatch(policy()))
    assert play() == Fetch()
    with pytest.raises(TypeError, match="Ended"):
        play(Ended())


# Never backwards


@pytest.mark.parametrize("older", [fetched(4), fetched(5), fetched(900, "0192f3a4b5c600000000000a")])
def test_an_older_or_equal_state_is_not_applied(older: Fetched) -> None:
    """Neither an older revision, nor the same, nor any revision of an earlier epoch replaces the value."""
    play = following(revision=5)
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(5).etag)
    assert play(older) == Read()


def test_a_later_epoch_is_newer_whatever_its_revision() -> None:
    """After a restore from a backup revisions start over in a later epoch, and are taken."""
    play = following(revision=5)
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened(at(2, LATER_EPOCH))) == Fetch(metadata(5).etag, at(2, LATER_EPOCH))
    assert play(fetched(2, LATER_EPOCH)) == Apply(b"document 2", metadata(2, LATER_EPOCH))
    assert play() == Heard()
    assert play() == Read()
    assert play(sse(change(6))) == Heard()
    assert play() == Read()


def test_a_replica_that_is_behind_its_event_is_an_error_until_it_has_caught_up() -> None:
    """A fetch that shows less than the event announced is not believed, also not after a reconnect or by 304."""
    play = following()
    assert play(sse(change(5))) == Fetch(metadata(1).etag, at(5))
    assert play(fetched(3)) == Apply(b"document 3", metadata(3))
    assert play() == Heard()
    assert isinstance(hung_up(play, None), ConnectionError)
    assert play() == Open()
    assert play(Opened(at(4))) == Fetch(metadata(3).etag, at(5))
    assert "replica" in str(hung_up(play, NotModified()))
    assert play() == Fetch(metadata(3).etag, at(5))
    assert play(fetched(5)) == Apply(b"document 5", metadata(5))
    assert play() == Heard()
    assert play() == Open()


def test_the_fetch_after_an_opening_asks_for_no_less_than_the_stream_began_with() -> None:
    """With replicas the stream may come from one and the answer from another, which must have come as far."""
    play = following(position=at(7))
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened(at(12))) == Fetch(metadata(1).etag, at(12))


def test_an_older_answer_does_not_replace_what_is_remembered() -> None:
    """After a replica answered with an older state, the next request still names the newest one seen."""
    play = following(revision=5)
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(5).etag)
    assert play(fetched(3)) == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(5).etag)


def test_an_answer_without_a_position_does_not_open_the_way_back() -> None:
    """A login page in between is reported, and an older revision after it is still known as older."""
    play = following(revision=5)
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(5).etag)
    page = sealed_elsewhere()
    assert page.fault is not None
    assert play(page) == Report(page.fault)
    assert play() == Heard()
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(None)
    assert play(fetched(4)) == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(None)
    assert play(fetched(5)) == Read()
    assert play(sse(change(6))) == Fetch(metadata(5).etag, at(6))


def test_a_foreign_epoch_without_order_does_not_hide_a_change() -> None:
    """An event whose epoch is not one of ours has no position: it is fetched, not compared as text."""
    play = following(revision=5)
    assert play(sse(change(1, "AAAA"))) == Fetch(metadata(5).etag)
    assert play(fetched(6)) == Apply(b"document 6", metadata(6))


# What cannot be used


def test_a_document_that_does_not_decode_is_reported_once_and_not_applied_again() -> None:
    """The old value stays; the next fetches are conditional on the bad version, and its return is no news."""
    play = following()
    error = UnmarshalError("does not fit")
    assert play(sse(change(2))) == Fetch(metadata(1).etag, at(2))
    assert play(fetched(2)) == Apply(b"document 2", metadata(2))
    assert play(error) == Report(error)
    assert play() == Heard()
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(2).etag, at(2))
    assert play(fetched(2)) == Read()
    assert play(sse(change(3))) == Fetch(metadata(2).etag, at(3))
    assert play(fetched(3)) == Apply(b"document 3", metadata(3))


def test_a_payload_that_does_not_open_is_reported_once() -> None:
    """A foreign service that tells neither version nor entity tag answers with other bytes each time; still once."""
    play = following_foreign()
    bad = sealed_elsewhere()
    assert bad.fault is not None
    assert play(sse(change())) == Fetch()
    assert play(bad) == Report(bad.fault)
    assert play() == Heard()
    assert play() == Read()
    for _ in range(3):
        assert play(sse(change())) == Fetch()
        assert play(sealed_elsewhere()) == Heard()
        assert play() == Read()


def test_another_version_that_does_not_open_is_reported_too() -> None:
    """Entity tags tell two payloads apart that both stay closed; what stayed closed is asked for as a whole."""
    play = following_foreign(etag='"a"')
    for etag, last in (('"b"', '"a"'), ('"c"', None)):
        bad = sealed_elsewhere(etag=etag)
        assert bad.fault is not None
        assert play(sse(change())) == Fetch(last)
        assert play(bad) == Report(bad.fault)
        assert play() == Heard()
        assert play() == Read()


def test_a_version_that_is_sealed_anew_under_a_known_key_is_applied() -> None:
    """The newest version counts as acceptable as soon as it opens, though its revision and tag are the same."""
    play = following()
    bad = sealed_elsewhere(2)
    assert bad.fault is not None
    assert play(sse(change(2))) == Fetch(metadata(1).etag, at(2))
    assert play(bad) == Report(bad.fault)
    assert play() == Heard()
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch(None, at(2))
    again = fetched(2, etag='"other-key"')
    assert play(again) == Apply(b"document 2", again.metadata)
    assert play() == Heard()
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch('"other-key"', at(2))
    assert play(sealed_elsewhere(2)) == Read()


def test_a_payload_that_does_not_open_is_asked_for_again_now_and_then() -> None:
    """Keys may come without a change: heartbeats of an open stream give the occasion, once per interval."""
    clock = Clock()
    play = Play(ValueWatch(policy(clock=clock)))
    bad = sealed_elsewhere(1)
    assert bad.fault is not None
    last = play.through(
        (Fetch(), bad), (Report(bad.fault), None), (Open(), Opened()), (Fetch(), sealed_elsewhere(1)), (Read(), None)
    )
    for _ in range(2):
        assert play(last) == Read()
        clock.now += 29.9
        assert play() == Read()
        clock.now += 0.2
        assert play() == Fetch()
        assert play(sealed_elsewhere(1)) == Read()
    clock.now += 31
    assert play() == Fetch()
    assert play(fetched(1)) == Apply(b"document 1", metadata(1))
    assert play() == Heard()
    assert play() == Read()
    clock.now += 31
    assert play() == Read()


def test_a_config_that_is_back_as_it_was_has_the_trouble_it_had() -> None:
    """A 404 that passes leaves a misfit a misfit, and a good value a good one, with and without entity tags."""
    for etag in ('"a"', None):
        play = following_foreign(etag=etag)
        gone = NotFoundError("404")
        error = UnmarshalError("does not fit")
        for fault in (None, error):
            if fault is not None:
                assert play(sse(change())) == Fetch(etag)
                assert play(Fetched(Metadata(etag=etag), b"two")) == Apply(b"two", Metadata(etag=etag))
                assert play(fault) == Report(fault)
                assert play() == Heard()
                assert play() == Read()
            play.told.clear()
            assert play(sse(change())) == Fetch(etag)
            assert play(gone) == Report(gone)
            assert play() == Heard()
            assert play() == Read()
            assert play(sse(change())) == Fetch(etag)
            same = Fetched(Metadata(), b"two" if fault else b"one")
            assert play(NotModified() if etag else same) == Heard()
            assert play() == Read()
            back = Clear() if fault is None else Trouble("does not decode", fault)
            assert play.told == [Forget(), Trouble("deleted", gone), back]


def test_the_same_document_is_not_applied_twice() -> None:
    """A foreign service without entity tags answers 200 to every fetch; only another document is applied."""
    play = following_foreign(b"one")
    assert play(sse(change())) == Fetch()
    assert play(Fetched(Metadata(), b"one")) == Heard()
    assert play() == Read()
    assert play(sse(change())) == Fetch()
    assert play(Fetched(Metadata(), b"two")) == Apply(b"two", Metadata())
    assert play() == Heard()
    assert play() == Read()
    assert play(sse(change())) == Fetch()
    assert play(Fetched(Metadata(), b"one")) == Apply(b"one", Metadata())


def test_an_event_that_cannot_be_read_is_reported_and_fetched() -> None:
    """Something changed, even if the event does not say what; the fetch tells."""
    play = following()
    report = play(ServerSentEvent("config_changed", "not json"))
    assert isinstance(report, Report)
    assert isinstance(report.error, InvalidResponseError)
    assert play() == Fetch(metadata(1).etag)
    assert play(fetched(2)) == Apply(b"document 2", metadata(2))
    assert play() == Heard()
    assert play() == Read()


@pytest.mark.parametrize(
    "other", [ServerSentEvent("message", "{}"), ServerSentEvent("config_changed", ""), ServerSentEvent("ping", "x")]
)
def test_events_that_are_no_change_are_ignored(other: ServerSentEvent) -> None:
    """Empty events, as some servers make of heartbeats, and events of other types lead to nothing."""
    assert following()(other) == Read()


def test_a_reset_makes_the_watch_fetch_unless_it_just_did() -> None:
    """A stream that cannot tell what was missed leaves it to a fetch: at its start to the one after the opening."""
    play = following()
    assert play(ServerSentEvent("reset", "{}")) == Read()
    assert play(ServerSentEvent("reset", "{}")) == Fetch(metadata(1).etag)
    assert play(NotModified()) == Read()


@pytest.mark.parametrize(
    "elsewhere",
    [
        change(9, environment="prod"),
        change(9, label="feature/x"),
        change(environment="prod"),
        change(9, environment="prod", deleted=True),
    ],
)
def test_changes_of_other_environments_and_labels_are_not_fetched(elsewhere: ConfigChangeEvent) -> None:
    """A stream without an environment carries them all; this watch keeps one value."""
    assert following()(sse(elsewhere)) == Read()


def test_a_change_that_does_not_name_its_environment_is_fetched_and_not_held_against_the_answer() -> None:
    """It may have happened elsewhere, so an unchanged answer is no sign of a replica that is behind."""
    play = following()
    assert play(sse(change(9, environment=None, label=None))) == Fetch(metadata(1).etag)
    assert play(NotModified()) == Heard()
    assert play() == Read()


# Deletion


def test_a_deletion_keeps_the_value_and_is_reported_once() -> None:
    """Told on the stream, found by fetches, answered to openings: it is one deletion, and one report."""
    play = following()
    report = play(sse(change(2, deleted=True)))
    assert isinstance(report, Report)
    assert isinstance(report.error, NotFoundError)
    assert play() == Heard()
    assert play() == Read()
    gone = NotFoundError("404")
    hung_up(play, Ended())
    assert play() == Open()
    assert play(Opened(at(2))) == Fetch(metadata(1).etag, at(2))
    assert play(gone) == Read()
    hung_up(play, Ended())
    assert play() == Open()
    assert isinstance(play(gone), Pause)
    assert play() == Fetch(metadata(1).etag, at(2))
    assert play(gone) == Open()
    assert isinstance(play(gone), Pause)


def test_a_config_that_is_created_again_is_applied_and_may_be_deleted_again() -> None:
    """After a deletion the next version replaces the kept value, and the next deletion is reported as well."""
    play = following()
    assert isinstance(play(sse(change(2, deleted=True))), Report)
    assert play() == Heard()
    assert play() == Read()
    assert play(sse(change(3))) == Fetch(metadata(1).etag, at(3))
    assert play(fetched(3)) == Apply(b"document 3", metadata(3))
    assert play() == Heard()
    assert play() == Read()
    assert isinstance(play(sse(change(4, deleted=True))), Report)


def test_a_deletion_found_by_a_fetch_is_reported_once_and_heard_of() -> None:
    """A foreign service's event does not say that it is a deletion; the 404 does, and the stream is read on."""
    play = following_foreign()
    gone = NotFoundError("404")
    assert play(sse(change())) == Fetch()
    assert play(gone) == Report(gone)
    assert play() == Heard()
    assert play() == Read()
    assert play(sse(change())) == Fetch()
    assert play(gone) == Heard()
    assert play() == Read()
    assert play(sse(change())) == Fetch()
    assert play(Fetched(Metadata(), b"two")) == Apply(b"two", Metadata())


def test_a_deletion_while_the_connection_was_down_is_reported_and_heard_of() -> None:
    """The fetch after the reconnect finds it; the value stays."""
    play = following()
    hung_up(play, DOWN)
    gone = NotFoundError("404")
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(1).etag)
    assert play(gone) == Report(gone)
    assert play() == Heard()
    assert play() == Read()


def test_a_deletion_without_a_position_is_looked_up() -> None:
    """An event that may be older than what is known does not declare the value gone; the fetch decides."""
    play = following_foreign()
    assert play(sse(change(deleted=True))) == Fetch()
    assert play(Fetched(Metadata(), b"one")) == Heard()
    assert play() == Read()


def test_a_stale_replica_does_not_undo_a_deletion() -> None:
    """After a deletion was told, an answer from before it is an older state than announced."""
    play = following()
    assert isinstance(play(sse(change(2, deleted=True))), Report)
    assert play() == Heard()
    assert play() == Read()
    hung_up(play, Ended())
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(1).etag, at(2))
    assert "replica" in str(hung_up(play, fetched(1)))


# Final errors


@pytest.mark.parametrize("error", [UnauthorizedError("401"), ForbiddenError("403"), NotFoundError("404")])
def test_a_refusal_at_the_start_is_reported_and_raised(error: ConfigClientError) -> None:
    """401, 403 and a first 404 end the watch with the error itself."""
    play = Play(ValueWatch(policy()))
    assert play() == Fetch()
    assert play(error) == Report(error)
    with pytest.raises(type(error)) as caught:
        play()
    assert caught.value is error
    assert caught.value.__context__ is None


@pytest.mark.parametrize("error", [UnauthorizedError("401"), ForbiddenError("403"), NotFoundError("404")])
@pytest.mark.parametrize("final", [DEFAULT_FINAL_ERRORS, ()])
def test_what_may_not_be_had_is_forgotten_before_it_is_told_of(
    error: ConfigClientError, final: tuple[type[ConfigClientError], ...]
) -> None:
    """A 401, a 403 and a first 404 erase what an earlier process has kept, whether or not they end the watch."""
    play = Play(ValueWatch(policy(final)))
    assert play() == Fetch()
    assert play(error) == Report(error)
    assert Forget() in play.told


@pytest.mark.parametrize("error", [UnauthorizedError("401"), ForbiddenError("403")])
def test_a_stream_that_is_refused_makes_a_value_watch_forget_too(error: ConfigClientError) -> None:
    """A token that was revoked while the stream was open meets its 401 at the next opening."""
    play = following()
    hung_up(play, Ended())
    assert play() == Open()
    assert play(error) == Report(error)
    assert Forget() in play.told


def test_an_outage_makes_nothing_forgotten() -> None:
    """It is what the kept value is for."""
    play = Play(ValueWatch(policy()))
    assert play() == Fetch()
    assert play(DOWN) == Report(DOWN)
    assert play() == Pause(0.0)
    assert play() == Fetch()
    assert Forget() not in play.told


@pytest.mark.parametrize("error", [UnauthorizedError("401"), ForbiddenError("403")])
@pytest.mark.parametrize("where", ["open", "gap", "event", "read"])
def test_a_refusal_later_is_final_too_and_the_stream_is_hung_up_first(error: ConfigClientError, where: str) -> None:
    """A revoked token ends the watch wherever it shows, without leaving the stream open."""
    play = following()
    if where in {"open", "gap"}:
        hung_up(play, DOWN)
        assert play() == Open()
        if where == "gap":
            assert isinstance(play(Opened()), Fetch)
    elif where == "event":
        assert isinstance(play(sse(change(2))), Fetch)
    command = play(error)
    if where == "event":
        assert command == Heard()
        command = play()
    if where != "open":
        assert command == HangUp()
        command = play()
    assert command == Report(error)
    with pytest.raises(type(error)):
        play()


def test_which_errors_are_final_is_an_option() -> None:
    """Without NotFoundError among them, the watch waits for the config to be created."""
    play = Play(ValueWatch(policy((UnauthorizedError,))))
    assert play() == Fetch()
    for error in (NotFoundError("404"), ForbiddenError("403")):
        assert play(error) == Report(error)
        assert isinstance(play(), Pause)
        assert play() == Fetch()
    assert play(fetched(1)) == Apply(b"document 1", metadata(1))


def test_an_unusable_document_is_final_for_who_asks_for_it() -> None:
    """With UnmarshalError and InvalidResponseError among the final errors they end the watch, reported once."""
    play = Play(ValueWatch(policy((UnmarshalError, InvalidResponseError))))
    error = UnmarshalError("does not fit")
    assert play() == Fetch()
    assert play(fetched(1)) == Apply(b"document 1", metadata(1))
    assert play(error) == Report(error)
    with pytest.raises(UnmarshalError):
        play()
    play = Play(ValueWatch(policy((InvalidResponseError,))))
    play.through((Fetch(), fetched(1)), (Apply(b"document 1", metadata(1)), None))
    assert play() == Open()
    assert play(Opened()) == Fetch(metadata(1).etag)
    assert play(NotModified()) == Read()
    assert play(ServerSentEvent("config_changed", "not json")) == HangUp()
    assert isinstance(play(), Report)
    with pytest.raises(InvalidResponseError):
        play()


def test_a_service_that_asks_not_to_be_watched_is_obeyed() -> None:
    """204 instead of a stream ends the watch for good, as the standard has it."""
    play = following()
    hung_up(play, Ended())
    refusal = InvalidResponseError("204")
    assert play() == Open()
    assert play(Halted(refusal)) == Report(refusal)
    with pytest.raises(InvalidResponseError):
        play()


# Telling of events


def telling(*, everywhere: bool = True, position: Position | None = None, revision: int = 4) -> Play:
    """An event watch of our own service that reads the stream; the config stands at ``revision``."""
    play = Play(EventWatch(policy(), "orders", everywhere=everywhere))
    assert play() == Fetch()
    assert play(fetched(revision)) == Open()
    assert play(Opened(position or at(revision))) == Read()
    return play


def telling_foreign(document: bytes = b"one", *, etag: str | None = None) -> Play:
    """An event watch of a service that tells nothing."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(Fetched(Metadata(etag=etag), document)) == Open()
    assert play(Opened()) == Fetch(etag)
    assert play(NotModified() if etag else Fetched(Metadata(), document)) == Read()
    return play


def tells(play: Play, event: ConfigChangeEvent) -> None:
    """Expect that ``event`` on the stream is told, heard of, and nothing else."""
    assert play(sse(event)) == Notify(event)
    assert play() == Heard()
    assert play() == Read()


def notified(command: Command, play: Play) -> ConfigChangeEvent:
    """Expect that ``command`` tells an event made from a fetch; return the event."""
    assert isinstance(command, Notify)
    assert play() == Heard()
    return command.event


def test_every_event_of_the_stream_is_told_once_and_costs_no_fetch() -> None:
    """Changes of all environments, deletions and repeated documents are told in the order of the stream."""
    play = telling()
    for event in (
        change(5),
        change(6, environment="prod"),
        change(7, deleted=True),
        change(8),
        change(9, label="feature/x"),
    ):
        tells(play, event)


def test_an_event_watch_fetches_once_before_the_stream_of_our_own_service() -> None:
    """What is compared later is fetched before the opening; from there on the stream tells all, and no fetch is due."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(fetched(4)) == Open()
    assert play(Opened(at(6))) == Read()
    tells(play, change(7))


def test_a_change_between_the_first_fetch_and_the_opening_of_a_foreign_stream_is_told() -> None:
    """The fetch after the opening differs from the one before it."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(Fetched(Metadata(), b"one")) == Open()
    assert play(Opened()) == Fetch()
    notified(play(Fetched(Metadata(), b"two")), play)
    assert play() == Read()


def test_a_state_from_after_the_opening_is_not_taken_for_told() -> None:
    """A first fetch that failed is made up for later; if what it shows is cut off from the stream, it is told then."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(DOWN) == Open()
    assert play(Opened(at(4))) == Fetch(None, at(4))
    assert play(fetched(5)) == Read()
    hung_up(play, DOWN)
    assert play() == Open(str(at(4)))
    assert play(Opened(at(2, LATER_EPOCH))) == Fetch(None, at(2, LATER_EPOCH))
    assert notified(play(fetched(5)), play).revision == 5
    assert play() == Read()


def test_an_exact_replay_needs_no_fetch_and_tells_each_change_once() -> None:
    """A reconnect names the last position told; what follows on the stream is exactly what was missed."""
    play = telling()
    tells(play, change(5))
    hung_up(play, DOWN)
    assert play() == Open(str(at(5)))
    assert play(Opened(at(7), replays=True)) == Read()
    tells(play, change(6))
    tells(play, change(7))


def test_the_stream_is_resumed_from_its_opening_when_it_told_nothing() -> None:
    """The position at the opening stands in for a last event, so that the very first change cannot be missed."""
    play = telling(position=at(9))
    hung_up(play, DOWN)
    assert play() == Open(str(at(9)))
    assert play(Opened(at(10), replays=True)) == Read()
    tells(play, change(10))


def test_a_change_of_one_environment_does_not_hide_one_of_another() -> None:
    """Positions are compared per environment and label: the same revision twice is a duplicate only there."""
    play = telling()
    tells(play, change(6, environment="prod"))
    tells(play, change(5))
    assert play(sse(change(6, environment="prod"))) == Read()
    assert play(sse(change(5))) == Read()


def test_after_a_reset_the_newest_state_is_told_once() -> None:
    """History is gone: the fetch shows what stands now, and neither the reset event nor the stream tells it again."""
    play = telling()
    hung_up(play, DOWN)
    assert play() == Open(str(at(4)))
    assert play(Opened(at(50_000))) == Fetch(metadata(4).etag, at(50_000))
    event = notified(play(fetched(49_000)), play)
    assert (event.version, event.revision, event.environment, event.changed_by) == (49_000, 49_000, "default", 3)
    assert event.timestamp == NOON
    assert play() == Read()
    assert play(ServerSentEvent("reset", "{}")) == Read()
    tells(play, change(50_001))
    assert play(ServerSentEvent("reset", "{}")) == Fetch(metadata(49_000).etag)
    assert play(fetched(50_001)) == Read()


def test_after_a_reset_the_stream_is_resumed_from_the_new_opening() -> None:
    """A history that was told to be lost is not asked for again at every reconnect."""
    play = telling()
    hung_up(play, DOWN)
    assert play() == Open(str(at(4)))
    assert play(Opened(at(1, LATER_EPOCH))) == Fetch(metadata(4).etag, at(1, LATER_EPOCH))
    assert play(NotModified()) == Read()
    hung_up(play, DOWN)
    assert play() == Open(str(at(1, LATER_EPOCH)))


def test_a_reset_whose_fetch_failed_is_not_forgotten() -> None:
    """The position moves on only once the gap is closed; until then the old one is named again."""
    play = telling()
    hung_up(play, DOWN)
    assert play() == Open(str(at(4)))
    assert play(Opened(at(50))) == Fetch(metadata(4).etag, at(50))
    assert hung_up(play, DOWN) is DOWN
    assert play() == Open(str(at(4)))
    assert play(Opened(at(51), replays=True)) == Read()
    tells(play, change(49))


def test_what_a_fetch_shows_from_after_the_opening_is_left_to_the_stream() -> None:
    """It is on its way as an event, with all that came before it; telling it early would hide those."""
    play = telling()
    hung_up(play, DOWN)
    assert play() == Open(str(at(4)))
    assert play(Opened(at(50))) == Fetch(metadata(4).etag, at(50))
    assert play(fetched(52)) == Read()
    for revision in (51, 52):
        tells(play, change(revision))


def test_a_fetch_does_not_move_the_place_to_resume_from() -> None:
    """What a reset's fetch shows may be ahead of another environment's change that is still on its way."""
    play = telling()
    hung_up(play, DOWN)
    assert play() == Open(str(at(4)))
    assert play(Opened(at(50))) == Fetch(metadata(4).etag, at(50))
    assert play(NotModified()) == Read()
    tells(play, change(51))
    assert play(ServerSentEvent("reset", "{}")) == Fetch(metadata(4).etag)
    event = notified(play(fetched(55)), play)
    assert event.revision == 55
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open(str(at(51)))
    assert play(Opened(at(56), replays=True)) == Read()
    tells(play, change(53, environment="prod"))
    assert play(sse(change(55))) == Read()


def test_what_stood_before_the_watch_began_is_never_told() -> None:
    """Even if no fetch showed it: a state up to the position at the opening is no change."""
    play = Play(EventWatch(policy(), "orders", everywhere=False))
    assert play() == Fetch()
    assert play(DOWN) == Open()
    assert play(Opened(at(10))) == Fetch(None, at(10))
    assert play(DOWN) == Report(DOWN)
    assert play() == Read()
    hung_up(play, Ended())
    assert play() == Open(str(at(10)))
    assert play(Opened(at(12))) == Fetch(None, at(12))
    assert play(fetched(3)) == Read()


def test_a_replica_that_is_behind_repeats_what_was_told_and_needs_no_fetch() -> None:
    """A stream that begins at or before the last position told tells everything after it; repeats are dropped."""
    play = telling()
    tells(play, change(5))
    hung_up(play, DOWN)
    for position in (at(4), at(5)):
        assert play() == Open(str(at(5)))
        assert play(Opened(position)) == Read()
        for revision in (3, 4, 5):
            assert play(sse(change(revision, environment="prod" if revision < 5 else "default"))) == Read()
        hung_up(play, DOWN)


def test_a_deletion_found_after_a_reset_is_told_once() -> None:
    """The config was there at the last look and is not now; if the stream told its deletion, that was enough."""
    for told_by_stream in (False, True):
        play = telling()
        if told_by_stream:
            tells(play, change(5, deleted=True))
        hung_up(play, DOWN)
        assert isinstance(play(), Open)
        assert isinstance(play(Opened(at(50))), Fetch)
        command = play(NotFoundError("404"))
        if not told_by_stream:
            assert notified(command, play).deleted
            command = play()
        assert command == Read()
        assert play(ServerSentEvent("ping", "")) == Read()
        assert isinstance(play(ServerSentEvent("reset", "{}")), Fetch)
        assert play(NotFoundError("404")) == Read()


def test_an_event_that_cannot_be_read_leads_to_the_state_being_told() -> None:
    """Our events are readable, but what is told must not depend on it."""
    play = telling()
    assert isinstance(play(ServerSentEvent("config_changed", "[]")), Report)
    assert play() == Fetch(metadata(4).etag)
    assert notified(play(fetched(5)), play).revision == 5
    assert play() == Read()
    assert play(sse(change(5))) == Read()
    tells(play, change(6))


@pytest.mark.parametrize("refusal", [NotFoundError("404"), ForbiddenError("403")])
def test_a_name_that_exists_only_elsewhere_is_watched_all_the_same(refusal: ConfigClientError) -> None:
    """Without an environment the stream carries all of them; the fetch sees only the token's own, which may be none.

    A foreign service may also open the stream of any name, so there the 404 is reported, once.
    """
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(refusal) == Open()
    for first in (True, False):
        assert play(Opened()) == Fetch()
        command = play(refusal)
        if first and isinstance(refusal, NotFoundError):
            assert command == Report(refusal)
            command = play()
        assert command == Read()
        tells(play, change(environment="prod"))
        hung_up(play, DOWN)
        assert play() == Open()
    own = Play(EventWatch(policy(), "orders", everywhere=True))
    assert own() == Fetch()
    assert own(refusal) == Open()
    command = own(Opened(at(4)))
    assert command == (Read() if isinstance(refusal, NotFoundError) else Fetch(None, at(4)))
    if command != Read():
        assert own(refusal) == Read()
    tells(own, change(5, environment="prod"))
    hung_up(own, DOWN)
    assert own() == Open(str(at(5)))
    assert own(Opened(at(50))) == Fetch(None, at(50))
    assert own(refusal) == Read()


@pytest.mark.parametrize(
    ("position", "error"),
    [
        (None, NotFoundError("404")),
        (None, ForbiddenError("403")),
        (at(4), ForbiddenError("403")),
        (at(4), UnauthorizedError("401")),
    ],
)
def test_a_refusal_in_the_environment_asked_for_is_final(position: Position | None, error: ConfigClientError) -> None:
    """A watch of one environment that may not be read, or of a config that a foreign service does not have, ends."""
    play = Play(EventWatch(policy(), "orders", everywhere=False))
    assert play() == Fetch()
    assert play(error) == Open()
    assert play(Opened(position)) == Fetch(None, position)
    assert play(error) == HangUp()
    assert play() == Report(error)
    with pytest.raises(type(error)):
        play()


def test_a_deleted_config_of_our_own_service_may_be_watched_for_its_return() -> None:
    """Our service opens the stream of a name that has a history; that nothing runs now is no error."""
    play = Play(EventWatch(policy(), "orders", everywhere=False))
    assert play() == Fetch()
    assert play(NotFoundError("404")) == Open()
    assert play(Opened(at(4))) == Read()
    tells(play, change(5))


@pytest.mark.parametrize("error", [UnauthorizedError("401"), ForbiddenError("403"), NotFoundError("404")])
def test_a_refused_stream_is_final_at_first(error: ConfigClientError) -> None:
    """An unknown name, a missing scope or a bad token raises instead of returning in silence."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(error) == Open()
    assert play(error) == Report(error)
    with pytest.raises(type(error)):
        play()


def test_a_service_that_is_down_at_first_is_asked_for_the_stream() -> None:
    """The fetch before the stream is tried once; the events do not wait for it."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(DOWN) == Open()
    for _ in range(3):
        assert play(DOWN) == Report(DOWN)
        assert isinstance(play(), Pause)
        assert play() == Open()


def test_a_stream_that_is_not_found_later_is_reported_once_and_tried_again() -> None:
    """The name was there once, so it may come back."""
    play = telling()
    gone = NotFoundError("404")
    hung_up(play, DOWN)
    assert isinstance(play(), Open)
    assert play(gone) == Report(gone)
    for _ in range(2):
        assert isinstance(play(), Pause)
        assert isinstance(play(), Open)
        assert isinstance(play(gone), Pause)
        assert isinstance(play(), Open)
        assert isinstance(play(DOWN), Report)


# Telling of events of a foreign service


def test_a_change_missed_by_a_foreign_stream_is_told_from_the_fetch() -> None:
    """Another document after the reconnect is a change, of unknown version; the same document is none."""
    play = telling_foreign()
    tells(play, change())
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch()
    event = notified(play(Fetched(Metadata(), b"two")), play)
    assert (event.config_name, event.version, event.changed_by, event.revision) == ("orders", 0, 0, None)
    assert event.timestamp.utcoffset() is not None
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch()
    assert play(Fetched(Metadata(), b"two")) == Read()


def test_entity_tags_tell_of_a_missed_change_of_a_payload_that_does_not_open() -> None:
    """A watch of events needs no key that fits: 304 means unchanged, another tag means a change."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(sealed_elsewhere(etag='"a"')) == Open()
    assert play(Opened()) == Fetch('"a"')
    assert play(NotModified()) == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch('"a"')
    notified(play(sealed_elsewhere(etag='"b"')), play)


def test_a_payload_that_does_not_open_and_has_no_tag_is_told_in_doubt() -> None:
    """Its bytes differ each time, so every reconnect may hide a change; the first opening hides none."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(sealed_elsewhere()) == Open()
    assert play(Opened()) == Fetch()
    assert play(sealed_elsewhere()) == Read()
    for _ in range(2):
        hung_up(play, DOWN)
        assert play() == Open()
        assert play(Opened()) == Fetch()
        notified(play(sealed_elsewhere()), play)
        assert play() == Read()


def test_the_first_fetches_may_fail_without_ending_the_stream() -> None:
    """Nothing can have been missed yet, so the events are told; the next reconnect tells in case of doubt."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(DOWN) == Open()
    assert play(Opened()) == Fetch()
    assert play(DOWN) == Report(DOWN)
    assert play() == Read()
    tells(play, change())
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch()
    assert hung_up(play, DOWN) is DOWN
    assert play() == Open()
    assert play(Opened()) == Fetch()
    notified(play(Fetched(Metadata(), b"one")), play)


def test_a_late_first_fetch_does_not_hide_an_event_that_is_cut_off() -> None:
    """What a foreign service shows after the opening may be the change whose event never came; in doubt it is told."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(DOWN) == Open()
    assert play(Opened()) == Fetch()
    assert play(Fetched(Metadata(), b"one")) == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch()
    notified(play(Fetched(Metadata(), b"one")), play)


def test_a_deletion_and_a_return_that_a_foreign_stream_missed_are_told() -> None:
    """404 after the reconnect is a deletion, told once; the same document after that is a change again."""
    play = telling_foreign(etag='"a"')
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch('"a"')
    assert notified(play(NotFoundError("404")), play).deleted
    assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch()
    assert play(NotFoundError("404")) == Read()
    hung_up(play, DOWN)
    assert play() == Open()
    assert play(Opened()) == Fetch()
    assert not notified(play(Fetched(Metadata(etag='"a"'), b"one")), play).deleted
    assert play() == Read()


def test_an_event_with_a_foreign_epoch_is_told_but_never_sent_back() -> None:
    """What cannot be parsed as a position is neither compared nor put into a header."""
    play = telling_foreign()
    for epoch in ("x\r\nX-Evil: 1", "AAAA", "ü"):
        event = change(5, epoch)
        assert play(sse(event)) == Notify(event)
        assert play() == Heard()
        assert play() == Read()
    hung_up(play, DOWN)
    assert play() == Open("")


def test_a_late_first_fetch_does_not_hide_a_deletion_that_is_cut_off() -> None:
    """Whether a config that is not there was there when the watch began is in doubt, so its absence is told later."""
    play = Play(EventWatch(policy(), "orders", everywhere=True))
    assert play() == Fetch()
    assert play(DOWN) == Open()
    assert play(Opened()) == Fetch()
    assert isinstance(play(NotFoundError("404")), Report)
    assert play() == Read()
    for told in (True, False):
        hung_up(play, DOWN)
        assert play() == Open()
        assert play(Opened()) == Fetch()
        command = play(NotFoundError("404"))
        if told:
            assert notified(command, play).deleted
            command = play()
        assert command == Read()


def test_a_change_of_another_config_moves_nothing() -> None:
    """A stream that tells of a config that nobody asked for announces nothing for this one."""
    play = Play(ValueWatch(policy(), Track("orders", None, None)))
    first = fetched(1)
    last = play.through(
        (Fetch(), first),
        (Apply(first.document, first.metadata), None),
        (Open(), Opened()),
        (Fetch(first.metadata.etag), NotModified()),
    )
    assert play(last) == Read()
    other = ConfigChangeEvent("billing", 9, 1, NOON, "default", "main", EPOCH, 99)
    assert play(sse(other)) == Read()
