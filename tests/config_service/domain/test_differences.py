"""What differs between two documents, and that it leads from one to the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonpatch import JsonPatch

from config_service.domain.differences import Change, Difference, differences, pointer
from config_service.domain.json_values import same, serialise

VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 1.0, 0.0, "", "1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=4),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(st.text("ab/~", max_size=2), VALUES, max_size=4)
# How long an example takes says nothing where many tests share a processor.
relaxed = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
OPERATION = {Change.ADDED: "add", Change.REMOVED: "remove", Change.CHANGED: "replace"}


def applied(document: object, changes: list[Difference]) -> object:
    """Return ``document`` with ``changes`` applied in their order, by the library of RFC 6902."""
    operations = [{"op": OPERATION[one.op], "path": one.path, "value": one.new} for one in changes]
    return JsonPatch(operations).apply(document)


@relaxed
@given(DOCUMENTS, DOCUMENTS)
def test_applying_the_difference_gives_the_target(old: object, new: object) -> None:
    """In the order of the list, whatever the documents; and nothing is left to do."""
    reached = applied(old, differences(old, new))
    assert same(reached, new)
    assert differences(reached, new) == []


@relaxed
@given(DOCUMENTS, DOCUMENTS)
def test_a_difference_tells_what_was_there_before(old: object, new: object) -> None:
    """Read backwards, with old and new exchanged, it leads back."""
    opposite = {Change.ADDED: Change.REMOVED, Change.REMOVED: Change.ADDED, Change.CHANGED: Change.CHANGED}
    back = [Difference(opposite[one.op], one.path, one.new, one.old) for one in reversed(differences(old, new))]
    assert same(applied(new, back), old)


@relaxed
@given(DOCUMENTS)
def test_a_document_does_not_differ_from_itself(document: dict[str, object]) -> None:
    """Nor from itself written again with its keys in another order."""
    again = json.loads(serialise(dict(reversed(document.items()))))
    assert differences(document, again) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1.0}, [Difference(Change.CHANGED, "/a", 1, 1.0)]),
        ({"a": True}, {"a": 1}, [Difference(Change.CHANGED, "/a", True, 1)]),
        ({"a": None}, {}, [Difference(Change.REMOVED, "/a", None)]),
        ({}, {"a": None}, [Difference(Change.ADDED, "/a", new=None)]),
        ({"a": {"b": 1}}, {"a": [1]}, [Difference(Change.CHANGED, "/a", {"b": 1}, [1])]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [Difference(Change.CHANGED, "/a/c", 2, 3)]),
        ({"a": [1, 2, 3]}, {"a": [1]}, [Difference(Change.REMOVED, "/a/2", 3), Difference(Change.REMOVED, "/a/1", 2)]),
        ({"a": [1]}, {"a": [1, 2]}, [Difference(Change.ADDED, "/a/1", new=2)]),
        ({"~": {"/": 1}}, {"~": {"/": 2}}, [Difference(Change.CHANGED, "/~0/~1", 1, 2)]),
        ({"": 1}, {}, [Difference(Change.REMOVED, "/", 1)]),
    ],
)
def test_places_are_told_as_few_and_as_deep_as_can_be(old: Any, new: Any, expected: list[Difference]) -> None:
    """Types count, null is a value, arrays grow and shrink at their end, and pointers are escaped."""
    assert differences(old, new) == expected


def test_pointers_are_those_of_the_rfc() -> None:
    """RFC 6901, 5."""
    assert [pointer([]), pointer(["foo", 0]), pointer([""]), pointer(["a/b"]), pointer(["m~n"]), pointer(["~1"])] == [
        "",
        "/foo/0",
        "/",
        "/a~1b",
        "/m~0n",
        "/~01",
    ]


def test_no_repr_of_a_difference_holds_a_value() -> None:
    """It may end up in a log."""
    assert repr(Difference(Change.CHANGED, "/a", "secret", "other")) == "Difference(changed, '/a')"
