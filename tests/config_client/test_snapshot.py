"""Snapshot: swaps that readers never see half of, waiting, and callbacks in the order of the stores."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.errors import ConfigClientError
from config_client.snapshot import Change, Snapshot

CANARY = "s3cr3t-canary"
DEADLINE = 10.0
"""Seconds that a thread may take before a test calls it hung."""


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Start ``work`` on a daemon thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], object]) -> None:
    """Return as soon as ``condition`` holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0)


def test_a_new_snapshot_is_empty() -> None:
    """Before the first store there is no value, no version and no time."""
    snapshot = Snapshot[str]()
    assert snapshot.load() is None
    assert snapshot.version is None
    assert snapshot.updated_at is None
    assert repr(snapshot) == "<Snapshot empty>"


def test_a_stored_value_is_loaded_as_the_same_object() -> None:
    """Nothing is copied on the way, and the last store wins."""
    first, second = {"a": 1}, {"a": 2}
    snapshot = Snapshot[dict[str, int]]()
    snapshot.store(first)
    assert snapshot.load() is first
    snapshot.store(second, version=7)
    assert snapshot.load() is second
    assert snapshot.version == 7


def test_a_store_without_a_version_forgets_the_old_one() -> None:
    """Value and version belong together: an unknown version does not inherit the one before."""
    snapshot = Snapshot[int]()
    snapshot.store(1, version=1)
    snapshot.store(2)
    assert snapshot.version is None


def test_the_time_of_a_store_is_now_in_utc() -> None:
    """Without a given time the snapshot takes its own."""
    snapshot = Snapshot[int]()
    before = datetime.now(timezone.utc)
    snapshot.store(1)
    assert snapshot.updated_at is not None
    assert before <= snapshot.updated_at <= datetime.now(timezone.utc)
    assert snapshot.updated_at.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "given_time",
    [
        datetime(2024, 1, 1, 12, tzinfo=timezone.utc),
        datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        datetime(2024, 1, 1, 12),  # noqa: DTZ001 - naive on purpose
    ],
)
def test_a_given_time_is_kept_in_utc(given_time: datetime) -> None:
    """Another offset is converted, and a naive time counts as UTC."""
    snapshot = Snapshot[int]()
    snapshot.store(1, updated_at=given_time)
    assert snapshot.updated_at == datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
    assert snapshot.updated_at is not None
    assert snapshot.updated_at.utcoffset() == timedelta(0)


def test_no_repr_shows_a_value() -> None:
    """Neither the snapshot, its state nor a change puts configuration into a log."""
    snapshot = Snapshot[str]()
    changes: list[Change[str]] = []
    snapshot.on_change(changes.append)
    snapshot.store(CANARY, version=1, updated_at=datetime(2024, 1, 1, tzinfo=timezone.utc))
    snapshot.store(CANARY + "2", version=3, updated_at=datetime(2024, 1, 1, tzinfo=timezone.utc))
    assert repr(snapshot) == "<Snapshot version=3 updated_at=2024-01-01T00:00:00+00:00>"
    assert repr(changes[1]) == "Change(version=3, old_version=1)"
    assert CANARY not in f"{snapshot} {snapshot._state!r} {changes}"


def test_a_snapshot_takes_no_other_attributes() -> None:
    """A misspelled attribute is an error; the snapshot has slots."""
    snapshot = Snapshot[int]()
    with pytest.raises(AttributeError):
        snapshot.verison = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        snapshot.version = 3  # type: ignore[misc]


def test_a_change_cannot_be_altered() -> None:
    """One callback cannot change what the next one is told."""
    change = Change(old=1, new=2, version=3, old_version=2)
    with pytest.raises(FrozenInstanceError):
        change.new = 5  # type: ignore[misc]


def test_readers_never_see_half_a_change() -> None:
    """Under a storm of stores a reader sees value and version only as they were stored together, and in order."""
    snapshot = Snapshot[tuple[int, int]]()
    snapshot.store((0, 0), version=0)
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        last = 0
        while not done.is_set():
            state = snapshot._state
            value = state.value
            if value is None or value[0] != value[1] or value[0] != state.version or value[0] < last:
                torn.append(state)
                return
            last = value[0]

    readers = [in_thread(read) for _ in range(3)]
    for number in range(1, 3000):
        snapshot.store((number, number), version=number)
    done.set()
    for reader in readers:
        reader.join(DEADLINE)
    assert torn == []
    assert snapshot.load() == (2999, 2999)


def test_loading_takes_no_lock() -> None:
    """A reader gets through even while a writer holds the lock."""
    snapshot = Snapshot[int]()
    snapshot.store(1, version=4)
    seen: list[object] = []
    with snapshot._lock:
        in_thread(lambda: seen.append((snapshot.load(), snapshot.version, repr(snapshot)))).join(DEADLINE)
    assert len(seen) == 1


# --- wait_for


def test_waiting_for_any_value_returns_at_once_when_there_is_one() -> None:
    """With nothing to wait for no time passes, not even with a timeout of zero."""
    snapshot = Snapshot[None]()
    assert not snapshot.wait_for(timeout=0)
    snapshot.store(None)
    assert snapshot.wait_for(timeout=0)
    assert snapshot.wait_for()


@pytest.mark.parametrize(("version", "expected"), [(None, True), (2, True), (3, True), (4, False)])
def test_waiting_for_a_version_is_satisfied_by_it_or_a_later_one(version: int | None, *, expected: bool) -> None:
    """``wait_for(2)`` does not miss a snapshot that is at 3 already."""
    snapshot = Snapshot[int]()
    snapshot.store(1, version=3)
    assert snapshot.wait_for(version, timeout=0) is expected


def test_an_unknown_version_satisfies_no_number() -> None:
    """A foreign service tells no version: its values answer ``wait_for()`` and nothing more precise."""
    snapshot = Snapshot[int]()
    snapshot.store(1)
    assert snapshot.wait_for(timeout=0)
    assert not snapshot.wait_for(0, timeout=0)


def test_waiting_ends_after_the_timeout() -> None:
    """False comes after the given seconds, not before, and the waiter leaves nothing behind."""
    snapshot = Snapshot[int]()
    snapshot.store(1, version=1)
    started = time.monotonic()
    assert snapshot.wait_for(2, timeout=0.05) is False
    assert time.monotonic() - started >= 0.05
    assert snapshot._waiters == []


def test_a_store_wakes_exactly_those_it_satisfies() -> None:
    """Waiters for different versions wake one after the other as the versions come."""
    snapshot = Snapshot[int]()
    woken: dict[int | None, threading.Event] = {version: threading.Event() for version in (None, 1, 2, 3)}

    def wait(version: int | None) -> None:
        assert snapshot.wait_for(version, timeout=DEADLINE)
        woken[version].set()

    threads = [in_thread(lambda version=version: wait(version)) for version in woken]  # type: ignore[misc]
    until(lambda: len(snapshot._waiters) == 4)
    snapshot.store(10, version=2)
    for version in (None, 1, 2):
        assert woken[version].wait(DEADLINE)
    assert not woken[3].is_set()
    snapshot.store(11, version=3)
    assert woken[3].wait(DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
    assert snapshot._waiters == []


def test_a_version_that_was_there_for_a_moment_is_not_missed() -> None:
    """A store that satisfies counts, even when a lower version replaces it before the waiter runs."""
    snapshot = Snapshot[int]()
    results: list[bool] = []
    waiter = in_thread(lambda: results.append(snapshot.wait_for(5, timeout=DEADLINE)))
    until(lambda: snapshot._waiters)
    snapshot.store(5, version=5)
    snapshot.store(1, version=1)
    waiter.join(DEADLINE)
    assert results == [True]


# --- on_change


def test_a_callback_gets_old_and_new_after_the_swap_on_the_storing_thread() -> None:
    """One Change per store; inside the callback the snapshot already has the new value."""
    snapshot = Snapshot[str]()
    seen: list[tuple[Change[str], str | None, int]] = []
    snapshot.on_change(lambda change: seen.append((change, snapshot.load(), threading.get_ident())))
    snapshot.store("a")
    snapshot.store("b", version=2)
    snapshot.store("c", version=3)
    here = threading.get_ident()
    assert seen == [
        (Change(None, "a", None, None), "a", here),
        (Change("a", "b", 2, None), "b", here),
        (Change("b", "c", 3, 2), "c", here),
    ]


def test_callbacks_run_in_the_order_of_registration() -> None:
    """First come, first told; the same callback registered twice is told twice."""
    snapshot = Snapshot[int]()
    calls: list[str] = []

    def twice(_: Change[int]) -> None:
        calls.append("twice")

    snapshot.on_change(lambda _: calls.append("first"))
    snapshot.on_change(twice)
    end = snapshot.on_change(twice)
    snapshot.store(1)
    assert calls == ["first", "twice", "twice"]
    end()
    snapshot.store(2)
    assert calls[3:] == ["first", "twice"]


def test_registering_does_not_tell_of_what_is_already_there() -> None:
    """A callback hears of changes, and the value that was there before is none."""
    snapshot = Snapshot[int]()
    snapshot.store(1)
    changes: list[Change[int]] = []
    snapshot.on_change(changes.append)
    assert changes == []


def test_an_ended_callback_is_not_called_again() -> None:
    """The returned function ends it, may be called twice, and touches no other registration."""
    snapshot = Snapshot[int]()
    ended: list[int] = []
    other: list[int] = []
    end = snapshot.on_change(lambda change: ended.append(change.new))
    snapshot.on_change(lambda change: other.append(change.new))
    snapshot.store(1)
    end()
    end()
    snapshot.store(2)
    assert ended == [1]
    assert other == [1, 2]


def test_a_callback_may_end_itself_and_others_of_the_same_change() -> None:
    """Ending takes effect at once: a later callback of the very change under way is not called."""
    snapshot = Snapshot[int]()
    calls: list[str] = []

    def first(_: Change[int]) -> None:
        calls.append("first")
        end_first()
        end_second()

    end_first = snapshot.on_change(first)
    end_second = snapshot.on_change(lambda _: calls.append("second"))
    snapshot.store(1)
    snapshot.store(2)
    assert calls == ["first"]


def test_a_callback_that_raises_is_logged_by_type_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    """Its text and its traceback stay out of the log: they may hold the configuration."""
    snapshot = Snapshot[str]()
    told: list[str] = []

    def fail(change: Change[str]) -> None:
        raise LookupError(change.new)

    snapshot.on_change(fail)
    snapshot.on_change(lambda change: told.append(change.new))
    with caplog.at_level(logging.DEBUG):
        snapshot.store(CANARY)
    assert told == [CANARY]
    assert snapshot.load() == CANARY
    (record,) = caplog.records
    assert record.name == "config_client.snapshot"
    assert record.levelno == logging.ERROR
    assert "LookupError" in record.getMessage()
    assert record.exc_info is None
    assert CANARY not in caplog.text
    assert CANARY not in str(vars(record))


def test_a_callback_may_store() -> None:
    """Its change is told after the one under way has reached every callback, so all see the same order."""
    snapshot = Snapshot[int]()
    first: list[int] = []
    second: list[tuple[int, int | None]] = []

    def correct(change: Change[int]) -> None:
        first.append(change.new)
        if change.new < 3:
            snapshot.store(change.new + 1)

    snapshot.on_change(correct)
    snapshot.on_change(lambda change: second.append((change.new, change.old)))
    snapshot.store(1)
    assert first == [1, 2, 3]
    assert second == [(1, None), (2, 1), (3, 2)]
    assert snapshot.load() == 3


def test_a_thousand_stores_from_callbacks_do_not_exhaust_the_stack() -> None:
    """Telling is a loop, not a recursion."""
    snapshot = Snapshot[int]()
    snapshot.on_change(lambda change: snapshot.store(change.new + 1) if change.new < 5000 else None)
    snapshot.store(0)
    assert snapshot.load() == 5000


def test_a_callback_may_register_another() -> None:
    """The new one hears of stores after its registration, not of the change under way."""
    snapshot = Snapshot[int]()
    late: list[int] = []
    ends: list[Callable[[], None]] = []

    def register(_: Change[int]) -> None:
        if not ends:
            ends.append(snapshot.on_change(lambda change: late.append(change.new)))

    snapshot.on_change(register)
    snapshot.store(1)
    assert late == []
    snapshot.store(2)
    assert late == [2]


def test_a_store_does_not_wait_for_the_callbacks_of_another_thread() -> None:
    """The swap is at once and the store returns; the thread that is telling goes on to the later change."""
    snapshot = Snapshot[str]()
    told: list[tuple[str, str]] = []
    busy, release = threading.Event(), threading.Event()

    def slow(change: Change[str]) -> None:
        told.append((change.new, threading.current_thread().name))
        if change.new == "a":
            busy.set()
            assert release.wait(DEADLINE)

    snapshot.on_change(slow)
    teller = threading.Thread(target=lambda: snapshot.store("a"), name="teller", daemon=True)
    teller.start()
    assert busy.wait(DEADLINE)
    snapshot.store("b")
    assert snapshot.load() == "b"
    assert [new for new, _ in told] == ["a"]
    release.set()
    teller.join(DEADLINE)
    assert told == [("a", "teller"), ("b", "teller")]


def test_a_callback_may_wait_for_another_thread_that_stores() -> None:
    """No lock is held while a callback runs, so this does not deadlock."""
    snapshot = Snapshot[int]()
    finished: list[bool] = []

    def join(change: Change[int]) -> None:
        if change.new == 1:
            thread = in_thread(lambda: snapshot.store(2))
            thread.join(DEADLINE)
            finished.append(not thread.is_alive())

    snapshot.on_change(join)
    snapshot.store(1)
    assert finished == [True]
    assert snapshot.load() == 2


def test_an_interrupt_in_a_callback_is_not_swallowed_and_breaks_nothing() -> None:
    """Ctrl-C goes up; what was not told yet is told at the next store, in order."""
    snapshot = Snapshot[int]()
    told: list[int] = []

    def interrupt(change: Change[int]) -> None:
        if change.new == 1:
            raise KeyboardInterrupt

    snapshot.on_change(interrupt)
    snapshot.on_change(lambda change: told.append(change.new))
    with pytest.raises(KeyboardInterrupt):
        snapshot.store(1)
    assert told == []
    snapshot.store(2)
    assert told == [1, 2]


def test_concurrent_stores_are_told_completely_and_in_order() -> None:
    """From four threads at once: the changes form one unbroken chain that ends at the current value."""
    snapshot = Snapshot[tuple[int, int]]()
    changes: list[Change[tuple[int, int]]] = []
    inside = threading.Lock()

    def record(change: Change[tuple[int, int]]) -> None:
        assert inside.acquire(blocking=False), "two callbacks at once"
        changes.append(change)
        inside.release()

    snapshot.on_change(record)
    start = threading.Barrier(4)

    def store_many(writer: int) -> None:
        start.wait(DEADLINE)
        for number in range(300):
            snapshot.store((writer, number))

    threads = [in_thread(lambda writer=writer: store_many(writer)) for writer in range(4)]  # type: ignore[misc]
    for thread in threads:
        thread.join(DEADLINE)
    assert len(changes) == 1200
    assert [change.old for change in changes] == [None, *(change.new for change in changes[:-1])]
    assert changes[-1].new == snapshot.load()
    for writer in range(4):
        assert [number for who, number in (change.new for change in changes) if who == writer] == list(range(300))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(), st.none() | st.integers(0, 5)), max_size=12))
def test_any_sequence_of_stores_ends_on_its_last(stores: list[tuple[int, int | None]]) -> None:
    """Value, version and the chain of changes agree with a plain list of what was stored."""
    snapshot = Snapshot[int]()
    changes: list[Change[int]] = []
    snapshot.on_change(changes.append)
    for value, version in stores:
        snapshot.store(value, version=version)
    last_value, last_version = stores[-1] if stores else (None, None)
    assert (snapshot.load(), snapshot.version) == (last_value, last_version)
    assert [(change.new, change.version) for change in changes] == stores
    befores: list[tuple[int | None, int | None]] = [(None, None), *stores[:-1]] if stores else []
    assert [(change.old, change.old_version) for change in changes] == befores


# --- on_path


def test_a_path_callback_is_told_only_of_changes_at_below_and_above_its_path() -> None:
    """The first value, changes inside, and the replacement or removal of what the path is part of; nothing else."""
    snapshot = Snapshot[dict[str, object]]()
    told: list[Change[dict[str, object]]] = []
    snapshot.on_path("db.host", told.append)
    stores: list[tuple[dict[str, object], bool]] = [
        ({"db": {"host": "a", "port": 1}, "x": 1}, True),
        ({"db": {"host": "a", "port": 2}, "x": 1}, False),
        ({"db": {"host": "a", "port": 2}, "x": 2}, False),
        ({"db": {"host": "b", "port": 2}, "x": 2}, True),
        ({"db": {"host": {"name": "b"}, "port": 2}, "x": 2}, True),
        ({"db": {"host": {"name": "c"}, "port": 2}, "x": 2}, True),
        ({"db": None, "x": 2}, True),
        ({"x": 2}, True),
        ({"x": 3}, False),
        ({"x": 3, "db": {"host": "b"}}, True),
    ]
    for version, (value, is_told) in enumerate(stores):
        before = len(told)
        snapshot.store(value, version=version)
        assert [change.version for change in told[before:]] == [version] * is_told, value


def test_a_path_callback_obeys_the_rules_of_every_callback(caplog: pytest.LogCaptureFixture) -> None:
    """Told in the order of registration, ended by the function returned, and logged by type when it raises."""
    snapshot = Snapshot[dict[str, str]]()
    calls: list[str] = []

    def fail(change: Change[dict[str, str]]) -> None:
        raise LookupError(change.new)

    snapshot.on_change(lambda _: calls.append("any"))
    end = snapshot.on_path("a", lambda _: calls.append("a"))
    snapshot.on_path("b", lambda _: calls.append("b"))
    snapshot.on_path("a", fail)
    snapshot.store({"a": CANARY, "b": "1"})
    assert calls == ["any", "a", "b"]
    end()
    snapshot.store({"a": CANARY + "2", "b": "1"})
    assert calls == ["any", "a", "b", "any"]
    assert [record.getMessage() for record in caplog.records] == [
        "a change callback raised LookupError; the new value is in place"
    ] * 2
    assert CANARY not in str([vars(record) for record in caplog.records])


def test_a_mistyped_path_is_refused_at_once() -> None:
    """Not when the first change comes, and nothing is registered."""
    snapshot = Snapshot[int]()
    with pytest.raises(ConfigClientError, match="a path joins keys with dots"):
        snapshot.on_path("db..host", print)
    assert snapshot._listeners == ()


# --- in a forked child


def test_renewed_locks_wait_for_nobody_and_keep_value_and_callbacks() -> None:
    """What a fork leaves of other threads - a held lock, waiters, a callback under way - holds nobody up."""
    snapshot = Snapshot[int]()
    told: list[int] = []
    snapshot.on_change(lambda change: told.append(change.new))
    snapshot.store(1, version=1)
    snapshot._lock.acquire()
    snapshot._teller = threading.get_ident() + 1
    snapshot._renew_locks()
    assert snapshot.load() == 1
    snapshot.store(2, version=2)
    assert told == [1, 2]
    assert snapshot.wait_for(2, timeout=0)


def test_a_callback_that_forks_goes_on_telling_in_the_child() -> None:
    """The thread that lives on is the one that tells: what it has still to tell is told once and in order."""
    snapshot = Snapshot[int]()
    told: list[tuple[str, int]] = []

    def first(change: Change[int]) -> None:
        if change.new == 1:
            snapshot._renew_locks()  # as the child would, inside the callback
            snapshot.store(2)
        told.append(("first", change.new))

    snapshot.on_change(first)
    snapshot.on_change(lambda change: told.append(("second", change.new)))
    snapshot.store(1)
    assert told == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_a_wait_that_was_under_way_in_a_renewed_snapshot_ends_in_good_order() -> None:
    """A handler of a signal may fork while its thread waits; the wait then ends by its timeout, without an error."""
    snapshot = Snapshot[int]()
    results: list[bool] = []
    waiter = in_thread(lambda: results.append(snapshot.wait_for(5, timeout=0.2)))
    until(lambda: snapshot._waiters)
    snapshot._renew_locks()
    waiter.join(DEADLINE)
    assert results == [False]


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork (POSIX)")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_stores_is_not_held_up() -> None:
    """With the lock held and callbacks under way at the fork, the child reads, stores, waits and tells."""
    snapshot = Snapshot[int]()
    busy, release = threading.Event(), threading.Event()

    def slow(change: Change[int]) -> None:
        if change.new == 1:
            busy.set()
            assert release.wait(DEADLINE)

    snapshot.on_change(slow)
    teller = in_thread(lambda: snapshot.store(1, version=1))
    assert busy.wait(DEADLINE)
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with snapshot._lock:
            holding.set()
            assert let_go.wait(DEADLINE)

    holder = in_thread(hold)
    assert holding.wait(DEADLINE)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(int(DEADLINE))
            snapshot._renew_locks()
            told: list[int] = []
            snapshot.on_change(lambda change: told.append(change.new))
            kept = snapshot.load() == 1
            snapshot.store(2, version=2)
            is_well = kept and snapshot.wait_for(2, timeout=0) and told == [2] and snapshot.load() == 2
            os._exit(0 if is_well else 1)
        finally:
            os._exit(2)
    let_go.set()
    release.set()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    teller.join(DEADLINE)
    holder.join(DEADLINE)
    assert snapshot.load() == 1
