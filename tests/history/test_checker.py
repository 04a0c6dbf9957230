"""The judge of histories: a sound one passes, and each promise is seen to be broken by a history that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from .checker import PROMISES, check
from .records import Event, History, Kept, Publish, Read


def sound() -> History:
    """Two publishers, one of which got no answer once, a reader and two watches."""
    return History(
        publishes=[
            Publish("a", 1, asked=1.0, answered=1.1, version=1, revision=10),
            Publish("b", 2, asked=1.05, answered=1.2, version=1, revision=11),
            Publish("a", 3, asked=1.3),
            Publish("a", 4, asked=1.5, answered=1.6, version=3, revision=13),
            Publish("b", 5, asked=1.7),
        ],
        reads=[Read("one", "a", 1.15, 1), Read("one", "a", 1.62, 4)],
        events=[Event("one", "a", 1.4, 2, 3), Event("one", "a", 1.61, 3, 4), Event("two", "a", 1.65, 3, 4)],
        kept=[Kept("a", 1, 10, 1), Kept("b", 1, 11, 2), Kept("a", 2, 12, 3), Kept("a", 3, 13, 4)],
        held={("one", "a"): 3, ("two", "a"): 3, ("two", "b"): 1},
    )


def test_a_sound_history_breaks_no_promise() -> None:
    """An unanswered publish may be there, or not; a watch may leave out what was overtaken."""
    assert check(sound()) == []


def lost(history: History) -> None:
    history.kept.remove(Kept("b", 1, 11, 2))


def swapped(history: History) -> None:
    history.publishes[0] = replace(history.publishes[0], revision=11)
    history.publishes[1] = replace(history.publishes[1], revision=10)


def overwritten(history: History) -> None:
    history.kept[3] = Kept("a", 3, 13, 99)


def twice(history: History) -> None:
    history.kept.append(Kept("b", 2, 14, 2))


def read_from_nowhere(history: History) -> None:
    history.reads.append(Read("one", "b", 1.9, 5))


def gap(history: History) -> None:
    history.kept.remove(Kept("a", 2, 12, 3))


def shared_revision(history: History) -> None:
    history.kept[1] = Kept("b", 1, 10, 2)


def out_of_order(history: History) -> None:
    history.publishes[3] = replace(history.publishes[3], revision=9)
    history.kept[3] = Kept("a", 3, 9, 4)


def older_read(history: History) -> None:
    history.reads.append(Read("one", "a", 1.45, 1))


def backwards(history: History) -> None:
    history.events.append(Event("one", "a", 1.7, 2, 3))


def left_behind(history: History) -> None:
    history.held["two", "a"] = 2


BROKEN: dict[Callable[[History], None], str] = {
    lost: "nothing_acknowledged_is_lost",
    swapped: "nothing_acknowledged_is_lost",
    overwritten: "nothing_comes_from_nowhere",
    twice: "nothing_comes_from_nowhere",
    read_from_nowhere: "nothing_comes_from_nowhere",
    gap: "versions_have_no_gaps",
    shared_revision: "revisions_are_in_commit_order",
    out_of_order: "revisions_are_in_commit_order",
    older_read: "no_read_is_older_than_what_its_client_was_told",
    backwards: "no_watch_goes_backwards",
    left_behind: "every_watch_ends_on_the_newest",
}


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_what_breaks_a_promise_is_found(spoil: Callable[[History], None]) -> None:
    """The fault is told under the name of the promise."""
    history = sound()
    spoil(history)
    assert any(fault.startswith(f"{BROKEN[spoil]}: ") for fault in check(history)), check(history)


def test_every_promise_is_seen_broken() -> None:
    """A promise that no history breaks would be a check that cannot fail."""
    assert set(BROKEN.values()) == {promise.__name__ for promise in PROMISES}
