"""The desk of the shared stream: callbacks, metrics, the cache and statuses, without a stream."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from config_client import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the SDK's
    Options,
    State,
    UnauthorizedError,
    UnmarshalError,
)
from config_client import _session as session_module
from config_client._delegates import DelegateDesk
from config_client._first_value import Terms, first_value
from config_client._horizon import Horizon
from config_client._keeper import Keeper
from config_client._opening import Opener
from config_client._session import Session, cache_of, defect
from config_client._steps import Apply, Clear, Connection, Finish, Forget, Heard, LocalCommand, Report, Trouble
from config_client.cache import CachedValue
from config_client.crypto import Keyring
from config_client.protocol import Metadata, Position
from config_client.status import Status

KEY = "c0ffee" * 10 + "abcd"
EPOCH = "0192f3a4b5c6d7e8f9a0b1c2"
SECRET = "canary-of-a-callback"
DOWN = ConnectionError("down")


class Idle(Session):
    """A session whose stream is the test."""

    def __init__(self, **options: Any) -> None:
        keyring = Keyring([bytes.fromhex(KEY)])
        settings = Options("http://config.test", "cst_token", KEY, **{"cache": False, **options})
        self.horizon = Horizon()
        opener = Opener(keyring, require_bound=False)
        super().__init__(settings, opener, cache_of(settings, keyring), self.horizon, 1)
        self.wakes = 0
        self.on_base_streams = False

    def _go_on(self) -> None:
        self.wakes += 1

    def _dismiss(self, keeper: Keeper[Any]) -> None:
        """Nothing is delegated."""

    def _delegated(self) -> bool:
        return self.on_base_streams

    def delegate(self) -> None:
        """Nothing is delegated."""

    def recall(self) -> None:
        """Nothing is delegated."""

    def keeper(self, name: str = "orders", pre_apply: Callable[[Any], object] | None = None) -> Keeper[dict[str, Any]]:
        keeper = self.keep(name, {}, dict, None, pre_apply, patient=False)
        self.add(keeper)
        return keeper

    def tell(self, keeper: Keeper[Any], revision: int) -> object:
        told = Metadata(revision, Position(EPOCH, revision), "default", "main", 3, datetime.now(timezone.utc))
        return self.perform(Apply(b'{"n": %d}' % revision, told, keeper.track))


class Measured:
    """Metrics that remember what they were told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def applied(self, config_name: str, version: int | None, delay: float | None) -> None:
        self.told.append(("applied", config_name, version, delay is not None))

    def failed(self, config_name: str, error: ConfigClientError) -> None:
        self.told.append(("failed", config_name, type(error)))

    def status(self, config_name: str, status: Status) -> None:
        self.told.append(("status", config_name, status.state))

    def connected(self, up: bool) -> None:
        self.told.append(("connected", up))


class Raising:
    """Metrics that fail, whatever they are told."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError(SECRET)

        return fail


# The set of subscriptions


def test_subscriptions_reach_the_watch_between_two_steps() -> None:
    """Adding and removing only leaves a note, which the watching thread takes up; the watch has no lock."""
    session = Idle()
    keeper = session.keeper()
    assert session.wakes == 1
    assert list(session._watch._tracks) == []
    session.drain()
    assert list(session._watch._tracks) == [keeper.track]
    session.remove(keeper)
    assert keeper.stopped
    assert session.wakes == 2
    session.drain()
    assert list(session._watch._tracks) == []
    session.remove(keeper)


def test_a_subscription_that_ends_on_its_own_error_leaves_the_watch_too() -> None:
    """Otherwise the stream would go on for nobody."""
    session = Idle()
    keeper = session.keeper()
    error = ConfigClientError("final")
    session.end(keeper, error)
    session.drain()
    assert list(session._watch._tracks) == []
    assert keeper.status.error is error


def test_a_closed_session_takes_no_more() -> None:
    """Every subscription has stopped, and another one is refused."""
    session = Idle()
    keeper = session.keeper()
    session.close()
    assert keeper.status.state is session.status.state is State.STOPPED
    with pytest.raises(ClosedError):
        session.keeper()


def test_a_subscription_that_cannot_be_started_is_not_kept() -> None:
    """Neither by the session nor by the watch: the next one is served alone."""

    class Limited(Idle):
        limited = True

        def _go_on(self) -> None:
            if self.limited:
                raise ConfigClientError("no thread can be started")

    session = Limited()
    with pytest.raises(ConfigClientError, match="no thread"):
        session.keeper()
    session.limited = False
    keeper = session.keeper("billing")
    session.drain()
    assert list(session._watch._tracks) == list(session._keepers) == [keeper.track]


def test_there_is_a_bound_on_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service has one; a client that would pass it is told so at once."""
    monkeypatch.setattr(session_module, "MAX_WATCHED", 2)
    session = Idle()
    session.keeper()
    session.keeper()
    with pytest.raises(ConfigClientError, match="up to 2"):
        session.keeper()


# Callbacks, log and metrics


def test_errors_are_logged_and_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    """Of one config with its name, of the connection without; both reach every subscription they concern."""
    errors: list[Exception] = []
    session = Idle(on_error=errors.append)
    one, other = session.keeper(), session.keeper("billing")
    misfit = UnmarshalError("misfit")
    session.perform(Report(misfit, one.track))
    assert (one.failure, other.failure) == (misfit, None)
    session.perform(Report(DOWN))
    assert (one.failure, other.failure) == (DOWN, DOWN)
    assert errors == [misfit, DOWN]
    assert [record.getMessage() for record in caplog.records] == ["watch of config 'orders': misfit", "watch: down"]


def test_an_error_of_a_base_stream_is_told_as_well() -> None:
    """A config on a stream of its own reports through the same desk."""
    errors: list[Exception] = []
    session = Idle(on_error=errors.append)
    keeper = session.keeper()
    session.serve(keeper, Report(DOWN))
    assert errors == [DOWN]


def test_an_outage_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt reaches on_error, but the log has one line for all that fail alike."""
    errors: list[Exception] = []
    session = Idle(on_error=errors.append)
    session.keeper()
    for _ in range(3):
        session.perform(Report(DOWN))
        session.perform(Connection(State.STALE, "connection lost", DOWN))
    assert len(errors) == 3
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.WARNING]


def test_an_outage_of_several_hosts_is_one_warning_for_each_that_fails_alike(caplog: pytest.LogCaptureFixture) -> None:
    """Their texts take turns, and are still not said again; the next outage is, after the stream was LIVE."""
    session = Idle()
    session.keeper()
    told = []
    for _ in range(2):
        for error in [DOWN, ConnectionError("the other is down")] * 3:
            session.perform(Report(error))
            session.perform(Connection(State.STALE, "connection lost", error))
        told.append([record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING])
        caplog.clear()
        session.perform(Connection(State.LIVE))
    assert told == [["watch: down", "watch: the other is down"]] * 2


def test_callbacks_and_metrics_that_raise_stop_nothing_and_leave_no_text(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever they raise is logged by type; the value is swapped, and the status follows."""
    caplog.set_level(logging.DEBUG)

    def fail(_: object) -> None:
        raise ValueError(SECRET)

    session = Idle(on_error=fail, on_change=fail, metrics=Raising())
    keeper = session.keeper()
    keeper.snapshot.on_change(fail)
    assert session.tell(keeper, 1) is None
    commands: list[LocalCommand] = [
        Heard(keeper.track),
        Report(DOWN, keeper.track),
        Report(DOWN),
        Connection(State.LIVE),
        Trouble("deleted", DOWN, keeper.track),
        Clear(keeper.track),
        Finish(DOWN, keeper.track),
    ]
    for command in commands:
        assert session.perform(command) is None
    assert keeper.snapshot.load() == {"n": 1}
    assert keeper.stopped
    assert SECRET not in caplog.text
    assert "RuntimeError" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_metrics_are_told_of_values_failures_states_and_the_connection() -> None:
    """A connection is up or down once; a value that was in place before tells no delay."""
    metrics = Measured()
    session = Idle(metrics=metrics)
    keeper = session.keeper()
    session.tell(keeper, 1)
    session.perform(Connection(State.LIVE))
    session.perform(Connection(State.LIVE))
    session.tell(keeper, 2)
    session.perform(Report(DOWN, keeper.track))
    session.perform(Connection(State.STALE, "connection lost", DOWN))
    session.perform(Connection(State.POLLING, "no stream", DOWN))
    session.remove(keeper)
    assert metrics.told == [
        ("status", "orders", State.LIVE),
        ("applied", "orders", 1, False),
        ("connected", True),
        ("applied", "orders", 2, True),
        ("failed", "orders", ConnectionError),
        ("status", "orders", State.STALE),
        ("connected", False),
        ("status", "orders", State.POLLING),
        ("status", "orders", State.STOPPED),
    ]


def test_what_concerns_a_subscription_that_has_left_is_dropped() -> None:
    """The stream may still carry its events when it closes."""
    errors: list[Exception] = []
    session = Idle(on_error=errors.append)
    keeper = session.keeper()
    session.remove(keeper)
    assert session.tell(keeper, 1) is None
    session.perform(Report(DOWN, keeper.track))
    assert keeper.snapshot.load() is None
    assert errors == []


def test_a_defect_is_logged_by_type_only(caplog: pytest.LogCaptureFixture) -> None:
    """Its text may hold anything."""
    error = defect(KeyError(SECRET))
    assert "KeyError" in str(error)
    assert "defect of this package" in caplog.text
    assert SECRET not in f"{error}{caplog.text}"
    assert error.__cause__ is error.__context__ is None


# Status


def test_the_status_of_the_client_is_that_of_its_connection() -> None:
    """With the time since when; on base streams it is the worst of the configs'."""
    session = Idle()
    assert session.status.state is State.INITIALIZING
    session.perform(Connection(State.STALE, "connection lost", DOWN))
    since = session.status.since
    session.perform(Connection(State.STALE, "connection lost", ConnectionError("other")))
    assert (session.status.state, session.status.since, str(session.status.error)) == (State.STALE, since, "other")
    session.perform(Connection(State.LIVE))
    assert (session.status.state, session.status.error) == (State.LIVE, None)
    session.on_base_streams = True
    one, other = session.keeper(), session.keeper("billing")
    session.tell(one, 1)
    session.tell(other, 2)
    assert session.status.state is State.LIVE
    session.serve(other, Trouble("deleted", DOWN))
    assert session.status == other.status


def test_what_was_applied_is_the_least_that_a_get_accepts_later() -> None:
    """Whoever has seen a value by subscription never reads an older one."""
    session = Idle()
    keeper = session.keeper()
    session.tell(keeper, 7)
    assert session.horizon.of("orders", None, None) == Position(EPOCH, 7)


def test_on_base_streams_a_value_is_as_old_as_its_own_stream_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another config's stream brings confirms nothing; back on the shared stream its contact counts."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    session = Idle()
    one, other = session.keeper(), session.keeper("billing")
    desks = [DelegateDesk(session, keeper) for keeper in (one, other)]
    for revision, (keeper, desk) in enumerate(zip((one, other), desks, strict=True), 1):
        session.tell(keeper, revision)
        desk.contact()
    now[0] += 10.0
    desks[0].contact()
    assert (session.age(one), session.age(other)) == (0.0, 10.0)
    for keeper, desk in zip((one, other), desks, strict=True):
        desk.hand_over(keeper.track)
    session.contact()
    assert (session.age(one), session.age(other)) == (0.0, 0.0)


# The disk


@pytest.mark.integration
def test_what_is_applied_is_kept_on_disk_and_what_may_not_be_read_is_erased(tmp_path: Path) -> None:
    """A later start finds the last good value; 401, 403 and 404 erase it."""
    session = Idle(cache=True, cache_directory=tmp_path)
    keeper = session.keeper()
    session.tell(keeper, 1)
    cached = session.cached(keeper.track)
    assert cached is not None
    assert (cached.document, cached.position) == (b'{"n": 1}', Position(EPOCH, 1))
    session.perform(Forget(keeper.track))
    assert session.cached(keeper.track) is None


@pytest.mark.integration
def test_what_was_refused_is_not_kept(tmp_path: Path) -> None:
    """The disk holds the last good value, and no later one."""
    session = Idle(cache=True, cache_directory=tmp_path)
    keeper = session.keeper(pre_apply=lambda value: value["n"] == 1)
    session.tell(keeper, 1)
    assert session.tell(keeper, 2) is not None
    cached = session.cached(keeper.track)
    assert cached is not None
    assert cached.document == b'{"n": 1}'


@pytest.mark.integration
def test_a_value_that_stays_current_is_dated_anew(tmp_path: Path) -> None:
    """Its age counts from when it was last confirmed: a config that never changes must not fall out of the cache."""
    session = Idle(cache=True, cache_directory=tmp_path, cache_max_age=80.0)
    keeper = session.keeper()
    session.tell(keeper, 1)
    session.perform(Connection(State.LIVE))
    first = session.cached(keeper.track)
    session._refreshed -= 11.0
    session.contact()
    second = session.cached(keeper.track)
    assert first is not None
    assert second is not None
    assert second.fetched_at > first.fetched_at
    assert second.position == first.position


def cached_value(document: bytes = b'{"n": 5}', hours: float = 1.0) -> CachedValue:
    past = datetime.now(timezone.utc) - timedelta(hours=hours)
    return CachedValue(document, "default", "main", 5, Position(EPOCH, 5), past)


def test_a_value_from_the_disk_is_told_to_the_service_as_held() -> None:
    """So it is not stated again if it is still the newest."""
    session = Idle()
    keeper = session.keeper()
    assert session.restore(keeper, cached_value()) is None
    assert keeper.snapshot.load() == {"n": 5}
    session.drain()
    assert keeper.track.held.position == Position(EPOCH, 5)
    assert keeper.track.found
    age = session.age(keeper)
    assert age is not None
    assert 3600.0 <= age < 3700.0


def test_a_value_from_the_disk_that_cannot_be_used_is_not_held() -> None:
    """A program of another type, or a proof that fails at start, has to be told of the version by the service again."""
    for document, pre_apply in ((b"[]", None), (b"{}", lambda value: False)):
        session = Idle()
        keeper = session.keeper(pre_apply=pre_apply)
        assert isinstance(session.restore(keeper, cached_value(document)), ConfigClientError)
        session.drain()
        assert keeper.track.held.position is None
        assert not keeper.filled


def test_the_disk_waits_for_an_asynchronous_proof() -> None:
    """Held is only what was proved."""

    async def run(accepted: bool) -> Keeper[Any]:
        async def proof(value: object) -> bool:
            await asyncio.sleep(0)
            return accepted

        session = Idle()
        keeper = session.keeper(pre_apply=proof)
        outcome = session.restore(keeper, cached_value())
        assert inspect.isawaitable(outcome)
        session.drain()
        assert keeper.track.held.position is None
        assert (await outcome is None) is accepted
        session.drain()
        return keeper

    assert asyncio.run(run(True)).track.held.position == Position(EPOCH, 5)
    assert asyncio.run(run(False)).track.held.position is None


def test_a_value_from_the_disk_does_not_hide_what_is_known_better() -> None:
    """The stream may have come up while the disk was read."""
    session = Idle()
    keeper = session.keeper()
    session.tell(keeper, 6)
    keeper.track.seen = keeper.track.seen.__class__(Position(EPOCH, 6))
    session.restore(keeper, cached_value())
    session.drain()
    assert keeper.track.held.position == Position(EPOCH, 6)
    assert keeper.snapshot.load() == {"n": 6}


# The first value


class Disk(Idle):
    """A session with one value on disk."""

    reads = 0

    def cached(self, track: object) -> CachedValue | None:
        self.reads += 1
        return cached_value()


def terms(**changes: Any) -> Terms[dict[str, Any]]:
    return Terms(**{"timeout": 60.0, "required": True, "allow_stale": True, "default": None, **changes})


def test_a_value_that_comes_in_time_ends_the_wait() -> None:
    """News wakes; only a value is enough, and the disk is not asked."""
    session = Disk()
    keeper = session.keeper()
    waiting = first_value(session, keeper, terms())
    for _ in range(3):
        wait = next(waiting)
        assert isinstance(wait, float)
        assert 0 < wait <= 60.0
    session.tell(keeper, 1)
    assert next(waiting, "done") == "done"
    assert session.reads == 0


def test_an_outage_is_reason_enough_to_take_the_disk() -> None:
    """Nobody waits ten seconds for a service that is known to be down when there is a last good value."""
    session = Disk()
    keeper = session.keeper()
    waiting = first_value(session, keeper, terms())
    next(waiting)
    session.perform(Report(DOWN))
    assert next(waiting, "done") == "done"
    assert keeper.snapshot.load() == {"n": 5}
    assert keeper.status.state is State.STALE


@pytest.mark.parametrize("how", ["time", "allow_stale"])
def test_the_disk_is_asked_last_and_only_if_it_may_be(how: str) -> None:
    """When the time is over it serves; without allow_stale the error says what is wrong."""
    session = Disk()
    keeper = session.keeper()
    if how == "time":
        assert next(first_value(session, keeper, terms(timeout=0.0)), "done") == "done"
        assert keeper.snapshot.load() == {"n": 5}
    else:
        session.perform(Report(DOWN))
        with pytest.raises(ConnectionError, match="down"):
            next(first_value(session, keeper, terms(timeout=0.0, allow_stale=False)))
        assert session.reads == 0


def test_without_any_error_the_wait_ends_on_one_that_names_the_remedy() -> None:
    """A host that swallows packets gives no error of its own."""
    session = Idle()
    with pytest.raises(ConnectionError, match="no value within 0 s; is the service up, and host right"):
        next(first_value(session, session.keeper(), terms(timeout=0.0)))


def test_a_default_stands_in_and_nothing_is_needed_if_nothing_is_required() -> None:
    """Neither raises; a default is in the snapshot."""
    for changes, value in (({"default": {"n": 0}}, {"n": 0}), ({"required": False}, None)):
        session = Idle()
        keeper = session.keeper()
        assert next(first_value(session, keeper, terms(timeout=0.0, **changes)), "done") == "done"
        assert keeper.snapshot.load() == value


def test_a_final_error_ends_the_wait_at_once_without_the_disk() -> None:
    """A token that is refused must not be served the last value that it could read."""
    session = Disk()
    keeper = session.keeper()
    waiting = first_value(session, keeper, terms())
    next(waiting)
    error = UnauthorizedError("401")
    session.perform(Report(error))
    session.perform(Finish(error, keeper.track))
    with pytest.raises(UnauthorizedError):
        next(waiting)
    assert session.reads == 0


def test_a_newest_version_that_cannot_be_taken_is_not_waited_for() -> None:
    """More time would mend nothing: the error of the value is raised at once."""
    session = Idle()
    keeper = session.keeper()
    waiting = first_value(session, keeper, terms())
    next(waiting)
    misfit = UnmarshalError("misfit")
    session.perform(Report(misfit, keeper.track))
    session.perform(Trouble("does not decode", misfit, keeper.track))
    with pytest.raises(UnmarshalError, match="misfit"):
        next(waiting)
