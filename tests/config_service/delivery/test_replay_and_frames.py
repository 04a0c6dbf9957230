"""The bytes that tell a change, and the history of them that is replayed."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.protocol import ConfigState, Position, Standing, parse_change_event
from config_service.delivery.frames import HEARTBEAT, change_frame, reset_frame, state_frame, synced_frame
from config_service.delivery.replay import ChangeFrame, History
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, LogEntry

EPOCH = "0123456789ab0123456789ab"
KEY = ConfigKey("orders", "prod", "team/next")
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def change(revision: int, name: str = "orders") -> ChangeFrame:
    return ChangeFrame(ConfigKey(name), revision, b"frame %d" % revision)


def test_a_change_is_one_event_on_five_lines() -> None:
    """Id, event name and data, each on one line, then a blank line."""
    entry = LogEntry(17, ChangeKind.PUBLISHED, 4, NOON, KEY, 3)
    lines = change_frame(entry, KEY, 3, EPOCH).decode().split("\n")
    assert lines[0] == f"id: {EPOCH}-17"
    assert lines[1] == "event: config_changed"
    assert lines[3:] == ["", ""]
    fields = json.loads(lines[2].removeprefix("data: "))
    assert fields == {
        "config_name": "orders",
        "version": 3,
        "changed_by": 4,
        "timestamp": "2026-01-31T12:00:00+00:00",
        "environment": "prod",
        "label": "team/next",
        "epoch": EPOCH,
        "revision": 17,
    }


def test_a_deletion_says_so() -> None:
    """A tombstone is an event like any other, marked as deleted, and the client's parser reads it."""
    entry = LogEntry(18, ChangeKind.DELETED, 4, NOON, KEY, 4)
    data = change_frame(entry, KEY, 4, EPOCH).decode().split("\n")[2].removeprefix("data: ")
    assert '"deleted":true' in data
    assert parse_change_event(data).deleted


def test_a_heartbeat_has_no_blank_line() -> None:
    """A comment and a blank line after an id would be an empty event to some decoders."""
    assert HEARTBEAT == b":\n"


def test_a_reset_has_the_present_as_its_id() -> None:
    """Without an id, a reader would name its old position at each reconnect, and be reset again every time."""
    assert reset_frame(Position(EPOCH, 17)) == b"id: %s-17\nevent: reset\ndata: {}\n\n" % EPOCH.encode()


def test_a_state_is_an_event_without_an_id() -> None:
    """Event name and data, each on one line; positions are kept per config, so the stream as a whole has none."""
    state = ConfigState("orders", "prod", "team/next", Standing.MISSING)
    data = b'{"config_name":"orders","environment":"prod","label":"team/next","state":"missing"}'
    assert state_frame("config_state", state) == b"event: config_state\ndata: " + data + b"\n\n"
    assert synced_frame(Position(EPOCH, 17)) == (
        b'event: synced\ndata: {"epoch":"%s","revision":17}\n\n' % EPOCH.encode()
    )


def test_everything_since_a_revision_comes_in_order_and_by_name() -> None:
    """Other names are left out, and so is what was seen."""
    history = History()
    for revision, name in enumerate(["orders", "billing", "orders", "orders"], start=1):
        history.append(change(revision, name))
    assert history.since(0, "orders") == [change(1), change(3), change(4)]
    assert history.since(1, "orders") == [change(3), change(4)]
    assert history.since(4, "orders") == []
    assert history.since(0, "unknown") == []


def test_revisions_without_a_config_move_the_end() -> None:
    """A reader may have seen up to a revision that changed a token."""
    history = History(floor=5)
    history.advance(6)
    assert history.latest == 6
    assert history.since(6, "orders") == []


@pytest.mark.parametrize("revision", [4, 8, 10**17])
def test_what_is_not_all_known_is_none(revision: int) -> None:
    """Below the floor something may be missing; beyond the end lies another history."""
    history = History(floor=5)
    for known in (6, 7):
        history.append(change(known))
    assert history.since(revision, "orders") is None


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=40), st.integers(1, 8), st.integers(0, 45))
@settings(max_examples=100, deadline=None)
def test_a_bounded_history_is_exact_or_says_that_it_is_not(names: list[str], capacity: int, seen: int) -> None:
    """Against a list that forgets nothing: the same changes, or None when one of them has fallen out."""
    history = History(capacity=capacity)
    everything = []
    for revision, name in enumerate(names, start=1):
        if name:
            everything.append(change(revision, name))
            history.append(everything[-1])
        else:
            history.advance(revision)
    kept = everything[-capacity:]
    for name in "abc":
        missed = [one for one in everything if one.revision > seen and one.key.name == name]
        found = history.since(seen, name)
        if found is None:
            assert seen > len(names) or any(one.revision > seen for one in everything if one not in kept)
        else:
            assert found == missed
