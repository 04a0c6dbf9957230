"""Changing documents by patches: the examples of both RFCs, and what hostile patches meet."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config_service.domain.errors import (
    DocumentTooLargeError,
    InvalidDocumentError,
    InvalidPatchError,
    PatchConflictError,
    ServiceError,
)
from config_service.domain.json_values import same
from config_service.domain.patches import PatchKind, apply_operations, merge, patch_document

LIMIT = 4096
CANARY = "canary-7b1c"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, "", "a", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)
# How long an example takes says nothing where many tests share a processor.
relaxed = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

# RFC 7396, appendix A: the whole table.
MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

# RFC 6902, appendix A, by section; None: the patch is refused.
OPERATIONS: dict[str, tuple[Any, list[dict[str, Any]], Any]] = {
    "A.1": ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    "A.2": (
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    "A.3": ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    "A.4": ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    "A.5": (
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    "A.6": (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    "A.7": (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "A.8": (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    "A.9": ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], None),
    "A.10": (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    "A.11": (
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
        {"foo": "bar", "baz": "qux"},
    ),
    "A.12": ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], None),
    "A.14": ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    "A.15": ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], None),
    "A.16": (
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
}


def patched(document: Any, patch: Any, kind: PatchKind = PatchKind.OPERATIONS, limit: int = LIMIT) -> bytes:
    raw = patch if isinstance(patch, bytes) else json.dumps(patch).encode()
    return patch_document(json.dumps(document).encode(), raw, kind, limit)


@pytest.mark.parametrize(("target", "patch", "expected"), MERGES)
def test_a_merge_patch_does_what_the_table_of_its_rfc_says(target: Any, patch: Any, expected: Any) -> None:
    """RFC 7396, appendix A, row by row, as given and inside a document."""
    assert same(merge(target, patch), expected)
    if patch is not None:
        inside = json.loads(patched({"x": target}, {"x": patch}, PatchKind.MERGE))
        assert same(inside, {"x": expected})


@relaxed
@given(VALUES, VALUES)
def test_a_merge_patch_applied_again_changes_nothing_more(target: object, patch: object) -> None:
    """It is idempotent, and changes neither of its arguments."""
    before = json.dumps([target, patch])
    once = merge(target, patch)
    assert same(merge(once, patch), once)
    assert json.dumps([target, patch]) == before


@pytest.mark.parametrize("section", OPERATIONS)
def test_a_json_patch_does_what_the_examples_of_its_rfc_say(section: str) -> None:
    """RFC 6902, appendix A, but for A.13: a key given twice is no document here."""
    document, operations, expected = OPERATIONS[section]
    if expected is None:
        with pytest.raises(PatchConflictError, match="operation 1"):
            patched(document, operations)
    else:
        assert same(json.loads(patched(document, operations)), expected)


def test_a_key_given_twice_makes_no_patch() -> None:
    """RFC 6902, A.13: which of the two was meant, nobody knows."""
    with pytest.raises(InvalidPatchError):
        patched({"foo": "bar"}, b'[{"op": "add", "path": "/baz", "value": "qux", "op": "remove"}]')


@pytest.mark.parametrize("value", [True, 1.5, "1", [1], {"a": 1}, None])
def test_a_test_does_not_take_one_type_for_another(value: object) -> None:
    """RFC 6902, 4.6: only a number equals the number 1."""
    with pytest.raises(PatchConflictError):
        patched({"a": 1}, [{"op": "test", "path": "/a", "value": value}])


def test_a_patched_document_is_compact_with_characters_as_themselves() -> None:
    """But for what UTF-8 cannot spell."""
    assert patched({"a": 1}, {"b": "é", "c": [1, 2.5]}, PatchKind.MERGE) == '{"a":1,"b":"é","c":[1,2.5]}'.encode()
    assert patched({"a": 1}, b'{"a": "\\ud800"}', PatchKind.MERGE) == b'{"a":"\\ud800"}'


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        (b"", InvalidPatchError),
        (b"\xff", InvalidPatchError),
        (b'{"op": "add"}', InvalidPatchError),
        (b"[1]", InvalidPatchError),
        (b'[], "other": []', InvalidPatchError),
        (b"[NaN]", InvalidPatchError),
        ([{}], InvalidPatchError),
        ([{"op": ["add"], "path": "/a"}], InvalidPatchError),
        ([{"op": "increment", "path": "/a", "value": CANARY}], InvalidPatchError),
        ([{"op": "add", "value": CANARY}], InvalidPatchError),
        ([{"op": "add", "path": 7, "value": CANARY}], InvalidPatchError),
        ([{"op": "add", "path": None, "value": CANARY}], InvalidPatchError),
        ([{"op": "move", "path": "/b"}], InvalidPatchError),
        ([{"op": "copy", "path": "/b"}], InvalidPatchError),
        ([{"op": "copy", "from": CANARY, "path": "/b"}], (PatchConflictError, InvalidPatchError)),
        ([{"op": "copy", "from": f"/{CANARY}", "path": "/b"}], PatchConflictError),
        ([{"op": "replace", "path": "/b", "value": CANARY}], PatchConflictError),
        ([{"op": "remove", "path": "/list/01"}], (PatchConflictError, InvalidPatchError)),
        ([{"op": "remove", "path": "/list/9"}], PatchConflictError),
        ([{"op": "add", "path": "/list/9", "value": CANARY}], PatchConflictError),
        ([{"op": "add", "path": "/a/b", "value": CANARY}], (PatchConflictError, InvalidPatchError)),
        ([{"op": "test", "path": "/a", "value": f"{CANARY}!"}], PatchConflictError),
        ([{"op": "remove", "path": ""}], (InvalidDocumentError, PatchConflictError, InvalidPatchError)),
        ([{"op": "replace", "path": "", "value": [CANARY]}], InvalidDocumentError),
        ([{"op": "add", "path": "/b", "value": "x" * LIMIT}], DocumentTooLargeError),
    ],
)
def test_a_patch_that_cannot_be_applied_is_refused_without_its_values(patch: Any, error: Any) -> None:
    """Each fault has its error; neither it nor its chain holds what was in the patch or the document."""
    with pytest.raises(ServiceError) as caught:
        patched({"a": CANARY, "list": [CANARY]}, patch)
    assert isinstance(caught.value, error), repr(caught.value)
    assert CANARY not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__context__ is None


def test_copies_that_double_a_document_are_stopped_early() -> None:
    """Forty operations would make a terabyte; what is copied counts before it is copied."""
    operations = [{"op": "copy", "from": "", "path": f"/copy{number}"} for number in range(40)]
    with pytest.raises(DocumentTooLargeError, match="copies more than 4096 bytes"):
        apply_operations({"a": "x" * 50}, operations, LIMIT)


def test_copies_that_nest_a_document_are_refused() -> None:
    """A document is published with at most 100 levels, however it came to them."""
    operations = [{"op": "move", "from": "/a", "path": "/b"}, {"op": "add", "path": "/a", "value": {}}]
    operations += [{"op": "copy", "from": "", "path": "/a"}] * 8
    with pytest.raises(ServiceError) as caught:
        patched({"a": {}}, operations * 20, limit=10**6)
    assert isinstance(caught.value, InvalidDocumentError | DocumentTooLargeError)


@pytest.mark.parametrize("kind", PatchKind)
def test_a_patch_is_refused_beyond_the_depth_of_documents(kind: PatchKind) -> None:
    """What is nested too deeply is refused while it is read."""
    deep = b'{"a":' * 120 + b"1" + b"}" * 120
    raw = deep if kind is PatchKind.MERGE else b'[{"op": "add", "path": "/a", "value": ' + deep + b"}]"
    with pytest.raises(InvalidPatchError):
        patched({"a": 1}, raw, kind)
