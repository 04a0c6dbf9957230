"""One kept snapshot: what is taken, what is refused, and which status follows."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from config_client import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    NotFoundError,
    RefusedError,
    Snapshot,
    State,
    Status,
    UnmarshalError,
)
from config_client import _keeper as keeper_module
from config_client._keeper import Keeper
from config_client._tracks import Track
from config_client.decode import decoder
from config_client.protocol import Metadata, Position

EPOCH = "0192f3a4b5c6d7e8f9a0b1c2"
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
SECRET = "canary-of-the-document"
DOWN = ConnectionError("down")


class Stage:
    """A keeper and all that it said."""

    def __init__(self, pre_apply: Callable[[dict[str, Any]], object] | None = None) -> None:
        self.statuses: list[Status] = []
        self.news = threading.Event()
        self.snapshot: Snapshot[dict[str, Any]] = Snapshot()
        self.keeper: Keeper[dict[str, Any]] = Keeper(
            Track("orders", None, None),
            self.snapshot,
            decoder(dict),
            pre_apply,
            self.news,
            lambda keeper, status: self.statuses.append(status),
        )

    def apply(self, revision: int, document: bytes | None = None, **age: float) -> ConfigClientError | None:
        told = Metadata(version=revision, position=Position(EPOCH, revision), timestamp=NOON)
        outcome = self.keeper.apply(b'{"n": %d}' % revision if document is None else document, told, **age)
        assert not inspect.isawaitable(outcome)
        return outcome

    @property
    def state(self) -> tuple[State, str, ConfigClientError | None]:
        status = self.keeper.status
        return status.state, status.reason, status.error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is moved by hand: the keeper's ``time.monotonic``."""
    now = [1000.0]
    monkeypatch.setattr(keeper_module.time, "monotonic", lambda: now[0])
    return now


# Values


def test_a_document_is_decoded_and_swapped_in_with_its_version_and_time() -> None:
    """The first one makes the status LIVE at once: what the service has just told is current."""
    stage = Stage()
    assert stage.state == (State.INITIALIZING, "", None)
    assert stage.apply(3) is None
    assert stage.snapshot.load() == {"n": 3}
    assert (stage.snapshot.version, stage.snapshot.updated_at) == (3, NOON)
    assert stage.state == (State.LIVE, "", None)
    assert stage.keeper.filled
    assert stage.news.is_set()


def test_a_value_is_in_place_before_its_position_is_noted() -> None:
    """A child that is forked between the two is told of the value again, and takes it."""
    stage = Stage()
    stage.apply(1)
    noted: list[tuple[object, Position | None]] = []
    stage.snapshot.on_change(lambda change: noted.append((change.new, stage.keeper.position)))
    stage.apply(2)
    assert noted == [({"n": 2}, Position(EPOCH, 1))]
    assert stage.keeper.position == Position(EPOCH, 2)


@pytest.mark.parametrize("revision", [2, 3])
def test_what_is_older_or_the_same_is_not_swapped_in(revision: int) -> None:
    """Whoever brings it: a base stream that was called back may still be at work while the shared one goes on."""
    stage = Stage()
    stage.apply(3)
    changes: list[object] = []
    stage.snapshot.on_change(changes.append)
    assert stage.apply(revision) is None
    assert stage.snapshot.load() == {"n": 3}
    assert changes == []


def test_without_positions_the_order_of_arrival_counts() -> None:
    """A foreign service tells none."""
    stage = Stage()
    for number in (2, 1):
        assert stage.keeper.apply(b'{"n": %d}' % number, Metadata()) is None
        assert stage.snapshot.load() == {"n": number}
    assert stage.snapshot.version is None


@pytest.mark.parametrize("document", [b"not json", b"[1]", b'{"a": ' + SECRET.encode()])
def test_what_does_not_decode_is_returned_as_an_error_without_its_text(
    document: bytes, leaks: Callable[..., list[str]]
) -> None:
    """The old value stays; neither error nor traceback holds the document."""
    stage = Stage()
    stage.apply(1)
    error = stage.apply(2, document)
    assert isinstance(error, UnmarshalError)
    assert error.__traceback__ is None
    assert leaks(error, secrets=(SECRET,)) == []
    assert stage.snapshot.load() == {"n": 1}


def test_after_the_end_nothing_is_swapped_in() -> None:
    """A closed subscription stays as it is, whatever is still under way."""
    stage = Stage()
    stage.apply(1)
    stage.keeper.stop(None)
    assert stage.apply(2) is None
    assert stage.snapshot.load() == {"n": 1}
    assert stage.state == (State.STOPPED, "closed", None)


# pre_apply


@pytest.mark.parametrize("accepted", [True, None, 0, "", []])
def test_pre_apply_refuses_by_false_alone(accepted: object) -> None:
    """Whoever proves a value and returns nothing has accepted it; so has one that returns something empty."""
    stage = Stage(lambda value: accepted)
    assert stage.apply(1) is None
    assert stage.snapshot.load() == {"n": 1}


def test_what_pre_apply_refuses_keeps_the_old_value() -> None:
    """By False or by raising; it is asked before the swap, and with the decoded value."""
    seen: list[tuple[object, object]] = []

    def proof(value: dict[str, Any]) -> object:
        seen.append((value, stage.snapshot.load()))
        if value["n"] == 3:
            raise OSError(SECRET)
        return value["n"] != 2

    stage = Stage(proof)
    assert stage.apply(1) is None
    for revision, why in ((2, "returned False"), (3, "raised OSError")):
        error = stage.apply(revision)
        assert isinstance(error, RefusedError)
        assert why in str(error)
        assert SECRET not in f"{error!r}{error.__cause__!r}{error.__context__!r}"
        assert stage.snapshot.load() == {"n": 1}
    assert stage.apply(4) is None
    assert [value for value, _ in seen] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
    assert [before for _, before in seen] == [None, {"n": 1}, {"n": 1}, {"n": 1}]


@pytest.mark.parametrize(
    ("verdict", "taken"), [(None, True), (True, True), (False, False), (ValueError(SECRET), False)]
)
def test_pre_apply_may_be_asynchronous(verdict: object, taken: bool) -> None:
    """The swap waits for its verdict."""

    async def proof(value: dict[str, Any]) -> object:
        await asyncio.sleep(0)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def run() -> ConfigClientError | None:
        outcome = stage.keeper.apply(b'{"n": 1}', Metadata())
        assert inspect.isawaitable(outcome)
        assert stage.snapshot.load() is None
        return await outcome

    stage = Stage(proof)
    error = asyncio.run(run())
    assert (error is None) is taken
    assert (stage.snapshot.load() is not None) is taken
    assert SECRET not in repr(error)


def test_a_value_that_was_proved_too_late_does_not_replace_a_newer_one() -> None:
    """While the proof of one version was awaited, a later one has come into place."""

    async def run() -> None:
        proved = asyncio.Event()

        async def proof(value: dict[str, Any]) -> None:
            if value["n"] == 1:
                await proved.wait()

        stage = Stage(proof)

        async def apply(revision: int) -> None:
            told = Metadata(version=revision, position=Position(EPOCH, revision))
            outcome = stage.keeper.apply(b'{"n": %d}' % revision, told)
            assert isinstance(outcome, Awaitable)
            assert await outcome is None

        first = asyncio.create_task(apply(1))
        await apply(2)
        proved.set()
        await first
        assert stage.snapshot.load() == {"n": 2}

    asyncio.run(run())


# Statuses


def test_the_status_follows_the_connection() -> None:
    """LIVE, STALE with its reason and error, POLLING, LIVE again: and each is told once, with the time it began."""
    stage = Stage()
    stage.apply(1)
    stage.keeper.connection(State.LIVE, "", None)
    stage.keeper.connection(State.STALE, "connection lost", DOWN)
    assert stage.state == (State.STALE, "connection lost", DOWN)
    since = stage.keeper.status.since
    stage.keeper.connection(State.STALE, "connection lost", ConnectionError("still down"))
    assert stage.keeper.status.since == since
    assert str(stage.keeper.status.error) == "still down"
    stage.keeper.connection(State.POLLING, "no stream", DOWN)
    assert stage.state == (State.POLLING, "no stream", DOWN)
    stage.keeper.connection(State.LIVE, "", None)
    assert stage.state == (State.LIVE, "", None)
    assert stage.keeper.failure is None
    assert [status.state for status in stage.statuses] == [State.LIVE, State.STALE, State.POLLING, State.LIVE]
    assert all(status.since.tzinfo is not None for status in stage.statuses)


def test_without_a_value_it_is_initializing_whatever_the_connection() -> None:
    """A stream that is open is no value; the error says what is waited for."""
    stage = Stage()
    stage.keeper.connection(State.STALE, "connection lost", DOWN)
    assert stage.state[0] is State.INITIALIZING
    assert stage.keeper.status.error is DOWN
    stage.keeper.connection(State.LIVE, "", None)
    assert stage.state[0] is State.INITIALIZING
    missing = NotFoundError("404")
    stage.keeper.trouble("missing", missing)
    assert stage.keeper.status.error is missing
    assert stage.keeper.troubled


def test_trouble_outlasts_the_connection_and_ends_with_a_value_or_when_it_is_cleared() -> None:
    """A deleted config is STALE on the best of streams."""
    stage = Stage()
    stage.apply(1)
    gone = NotFoundError("deleted")
    stage.keeper.connection(State.LIVE, "", None)
    for end in ("value", "clear"):
        stage.keeper.trouble("deleted", gone)
        assert stage.state == (State.STALE, "deleted", gone)
        stage.keeper.connection(State.STALE, "connection lost", DOWN)
        assert stage.state[:2] == (State.STALE, "deleted")
        stage.keeper.connection(State.LIVE, "", None)
        assert stage.state == (State.STALE, "deleted", gone)
        if end == "value":
            stage.apply(2)
        else:
            stage.keeper.clear()
        assert stage.state == (State.LIVE, "", None)
        assert stage.keeper.failure is None


def test_an_error_is_remembered_until_all_is_well() -> None:
    """Whoever asks for the last error gets it, also before a status follows; a good value on a live stream ends it."""
    stage = Stage()
    stage.apply(1)
    stage.keeper.connection(State.LIVE, "", None)
    error = DecryptionError("does not open")
    stage.keeper.fail(error)
    assert stage.keeper.failure is error
    stage.keeper.trouble("cannot be opened", error)
    assert stage.keeper.status.error is error
    stage.apply(2)
    assert stage.keeper.failure is None


def test_the_end_is_final() -> None:
    """STOPPED with its error; nothing that happens later changes the status, and it is told once."""
    stage = Stage()
    stage.apply(1)
    error = ConfigClientError("final")
    stage.keeper.stop(error)
    assert stage.state == (State.STOPPED, "ended by an error", error)
    stage.keeper.stop(ClosedError("closed"))
    stage.keeper.connection(State.LIVE, "", None)
    stage.keeper.trouble("deleted", NotFoundError("404"))
    stage.keeper.clear()
    assert stage.state == (State.STOPPED, "ended by an error", error)
    assert [status.state for status in stage.statuses] == [State.LIVE, State.STOPPED]


def test_a_closed_client_is_no_error() -> None:
    """The reason tells the two ends apart."""
    stage = Stage()
    stage.keeper.stop(ClosedError("the client is closed"))
    assert stage.state[:2] == (State.STOPPED, "closed")


# From the disk, and defaults


def test_a_value_from_the_disk_is_stale_until_the_service_confirms_it(clock: list[float]) -> None:
    """It is as old as it is, and a stream without a newer one makes it current."""
    stage = Stage()
    assert stage.apply(3, age=3600.0) is None
    assert stage.snapshot.load() == {"n": 3}
    assert stage.state[:2] == (State.STALE, "from the cache")
    assert stage.keeper.age(None) == 3600.0
    stage.keeper.connection(State.STALE, "connection lost", DOWN)
    assert stage.state == (State.STALE, "from the cache", DOWN)
    assert stage.keeper.age(None) == 3600.0
    stage.keeper.connection(State.LIVE, "", None)
    assert stage.state == (State.LIVE, "", None)
    assert stage.keeper.age(None) == 0.0


def test_polling_confirms_a_value_from_the_disk_too() -> None:
    """The service has just been asked."""
    stage = Stage()
    stage.apply(3, age=3600.0)
    stage.keeper.connection(State.POLLING, "no stream", DOWN)
    assert stage.state == (State.POLLING, "no stream", DOWN)


def test_a_value_from_the_disk_never_replaces_one_of_the_service(clock: list[float]) -> None:
    """Nor does it make that one look old: the disk may be read while the stream comes up."""
    stage = Stage()
    stage.apply(3)
    clock[0] += 5.0
    assert stage.apply(2, age=3600.0) is None
    assert stage.snapshot.load() == {"n": 3}
    assert stage.keeper.age(None) == 5.0
    assert stage.state[0] is State.LIVE


def test_an_asynchronous_proof_leaves_a_value_from_the_disk_as_old_as_it_is(clock: list[float]) -> None:
    """The age counts from when the value was current, not from when it was proved."""

    async def proof(value: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    async def run() -> None:
        outcome = stage.keeper.apply(b"{}", Metadata(position=Position(EPOCH, 1)), age=3600.0)
        assert inspect.isawaitable(outcome)
        assert await outcome is None

    stage = Stage(proof)
    asyncio.run(run())
    assert stage.keeper.age(None) == 3600.0


def test_a_default_is_in_place_only_as_long_as_there_is_nothing_better() -> None:
    """It is no value of the service: the status stays INITIALIZING, and the first real one replaces it."""
    stage = Stage()
    stage.keeper.fall_back({"n": 0})
    assert stage.snapshot.load() == {"n": 0}
    assert not stage.keeper.filled
    assert stage.state[0] is State.INITIALIZING
    assert stage.keeper.age(None) is None
    stage.apply(1)
    stage.keeper.fall_back({"n": 0})
    assert stage.snapshot.load() == {"n": 1}


# Age


def test_the_age_counts_from_the_last_word_of_the_service(clock: list[float]) -> None:
    """While LIVE every heartbeat confirms the value; after that it grows."""
    stage = Stage()
    assert stage.keeper.age(1000.0) is None
    stage.apply(1)
    clock[0] += 50.0
    assert stage.keeper.age(None) == 50.0
    assert stage.keeper.age(1045.0) == 5.0
    stage.keeper.lost_contact(1045.0)
    stage.keeper.connection(State.STALE, "connection lost", DOWN)
    clock[0] += 10.0
    assert stage.keeper.age(1059.0) == 15.0


def test_a_value_with_trouble_is_confirmed_by_nothing(clock: list[float]) -> None:
    """The stream says that there is a newer state; what is in place grows old."""
    stage = Stage()
    stage.apply(1)
    stage.keeper.connection(State.LIVE, "", None)
    clock[0] += 7.0
    stage.keeper.trouble("does not decode", UnmarshalError("misfit"))
    clock[0] += 3.0
    stage.keeper.connection(State.LIVE, "", None)
    stage.keeper.lost_contact(clock[0])
    assert stage.keeper.age(clock[0]) == 10.0
