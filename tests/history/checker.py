"""Judges a recorded history: what a service of record promised its clients, held against what they were told.

Knows records only. Every promise is a function that yields what breaks it, in words, with the moment and the numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final

from .records import Event, History, Kept, Key, Publish


def check(history: History) -> list[str]:
    """Return everything that breaks a promise; empty for a sound history."""
    return [f"{promise.__name__}: {fault}" for promise in PROMISES for fault in promise(history)]


def nothing_acknowledged_is_lost(history: History) -> Iterator[str]:
    """Every acknowledged publish is there in the end: its version, with its revision and its document."""
    kept = {(one.key, one.version): one for one in history.kept}
    for publish in _acknowledged(history):
        found = kept.get((publish.key, publish.version or 0))
        if found is None:
            yield f"{publish} is not among the versions that are kept"
        elif (found.revision, found.number) != (publish.revision, publish.number):
            yield f"{publish} is kept as {found}"


def nothing_comes_from_nowhere(history: History) -> Iterator[str]:
    """What is kept was published once, and what was read or told is what is kept."""
    asked = {(publish.key, publish.number) for publish in history.publishes}
    counted = Counter((one.key, one.number) for one in history.kept)
    for one in history.kept:
        if (one.key, one.number) not in asked:
            yield f"{one} was never published"
        elif counted[one.key, one.number] > 1:
            yield f"{one} was published once and is kept {counted[one.key, one.number]} times"
    kept = {(one.key, one.number): one.version for one in history.kept}
    for event in history.events:
        if kept.get((event.key, event.number)) != event.version:
            yield f"{event}, but what is kept is version {kept.get((event.key, event.number))}"
    for read in history.reads:
        if (read.key, read.number) not in kept:
            yield f"{read}, which is not kept"


def versions_have_no_gaps(history: History) -> Iterator[str]:
    """The versions of a key are 1, 2, 3 …, and their revisions grow with them."""
    for key, kept in _by_key(history.kept).items():
        versions = [one.version for one in kept]
        if versions != list(range(1, len(kept) + 1)):
            yield f"{key} has the versions {versions}"
        for before, after in pairwise(kept):
            if before.revision >= after.revision:
                yield f"{after} follows {before}"


def revisions_are_in_commit_order(history: History) -> Iterator[str]:
    """No two changes share a revision; and a publish that was asked for when another was answered has a greater one."""
    for revision, count in Counter(one.revision for one in history.kept).items():
        if count > 1:
            yield f"revision {revision} was given {count} times"
    answered = sorted(_acknowledged(history), key=lambda publish: publish.answered or 0.0)
    asked = sorted(_acknowledged(history), key=lambda publish: publish.asked)
    greatest: Publish | None = None
    ended = iter(answered)
    pending = next(ended, None)
    for publish in asked:
        while pending is not None and (pending.answered or 0.0) < publish.asked:
            if greatest is None or (pending.revision or 0) > (greatest.revision or 0):
                greatest = pending
            pending = next(ended, None)
        if greatest is not None and (publish.revision or 0) <= (greatest.revision or 0):
            yield f"{publish} was asked for after {greatest} was answered"


def no_read_is_older_than_what_its_client_was_told(history: History) -> Iterator[str]:
    """Once a client's watch has told a change, that client reads it or a newer one, whichever replica it asks."""
    versions = {(one.key, one.number): one.version for one in history.kept}
    reads = defaultdict(list)
    for read in history.reads:
        reads[read.client, read.key].append(read)
    for place, events in _by_client(history.events).items():
        for read in reads[place]:
            newest = max((event.version for event in events if event.seen < read.asked), default=0)
            if versions.get((read.key, read.number), 0) < newest:
                yield f"{read} after its watch had told version {newest}"


def no_watch_goes_backwards(history: History) -> Iterator[str]:
    """Each watch tells a key's changes in the order of their versions, none twice."""
    for events in _by_client(history.events).values():
        for before, after in pairwise(events):
            if before.version >= after.version:
                yield f"{after} was told after {before}"


def every_watch_ends_on_the_newest(history: History) -> Iterator[str]:
    """When all is quiet, every watch holds the newest version of its key."""
    newest = {key: kept[-1].version for key, kept in _by_key(history.kept).items()}
    for (client, key), version in history.held.items():
        if version != newest.get(key):
            yield f"{client} holds version {version} of {key}, the newest is {newest.get(key)}"


PROMISES: Final[tuple[Callable[[History], Iterator[str]], ...]] = (
    nothing_acknowledged_is_lost,
    nothing_comes_from_nowhere,
    versions_have_no_gaps,
    revisions_are_in_commit_order,
    no_read_is_older_than_what_its_client_was_told,
    no_watch_goes_backwards,
    every_watch_ends_on_the_newest,
)


def _acknowledged(history: History) -> list[Publish]:
    return [publish for publish in history.publishes if publish.acknowledged]


def _by_key(kept: Iterable[Kept]) -> dict[Key, list[Kept]]:
    found: defaultdict[Key, list[Kept]] = defaultdict(list)
    for one in sorted(kept, key=lambda one: one.version):
        found[one.key].append(one)
    return found


def _by_client(events: Iterable[Event]) -> dict[tuple[str, Key], list[Event]]:
    found: defaultdict[tuple[str, Key], list[Event]] = defaultdict(list)
    for event in events:
        found[event.client, event.key].append(event)
    return found
