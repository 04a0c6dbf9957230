"""Changed paths: what counts as a place, what counts as changed, and that no value can break the comparison."""

from __future__ import annotations

import copy
import json
import pickle
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from config_client.errors import ConfigClientError
from config_client.snapshot import Change


def paths(old: object, new: object) -> set[str]:
    """Return the changed paths, which are the same in both directions."""
    found = set(Change(old, new).paths)
    if old is not None and new is not None:
        assert set(Change(new, old).paths) == found
    return found


@dataclass
class Database:
    """A nested class."""

    host: str
    port: int = 5432


@dataclass
class Plain:
    """A dataclass with one in it, and with state of its own."""

    db: Database
    names: tuple[str, ...] = ()
    cache: object = field(default_factory=object, compare=False)


class Inner(BaseModel):
    """A nested model."""

    host: str
    port: int = Field(5432, alias="Port")


class Model(BaseModel):
    """A model that keeps what it does not know."""

    model_config = ConfigDict(extra="allow")
    db: Inner
    tags: list[str] = []


class Hosts(RootModel[dict[str, int]]):
    """A model that is its one value."""


@pydantic_dataclass
class Typed:
    """A dataclass of pydantic's."""

    port: int


class Colour(Enum):
    """Keys of a mapping."""

    RED = "red"
    BLUE = "blue"


# --- what is a place


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, set()),
        ({"a": 1}, {"a": 2}, {"a"}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b"}),
        ({"db": {"host": "x", "port": 1}}, {"db": {"host": "y", "port": 1}}, {"db.host"}),
        ({}, {"db": {"host": "x", "tls": {"on": True}}}, {"db.host", "db.tls.on"}),
        ({"a": {}}, {}, {"a"}),
        ({"a": []}, {"a": {}}, {"a"}),
        ({"a": {}}, {"a": {"b": 1}}, {"a.b"}),
        ({"a": {"b": 1}}, {"a": 1}, {"a", "a.b"}),
        ({"a": {"b": 1}}, {"a": None}, {"a", "a.b"}),
        ({"a": {"0": 1}}, {"a": [1]}, {"a.0"}),
        ([{"port": 1}, {"port": 2}], [{"port": 1}, {"port": 3}], {"1.port"}),
        ([1, 2], [1, 2, 3, 4], {"2", "3"}),
        ([1, 2, 3], [2, 3], {"0", "1", "2"}),
        ((1, 2), (1, 3), {"1"}),
        ((1, 2), [1, 2], {"0", "1"}),
        (1, 2, {""}),
        ({"a": 1}, 5, {"", "a"}),
        ({}, [], {""}),
        ({}, {}, set()),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), set()),
        ({"a": 1}, MappingProxyType({"a": 2}), {"a"}),
        ({Colour.RED: 1, Colour.BLUE: 1}, {Colour.RED: 2, Colour.BLUE: 1}, {"red"}),
        ({1: "a", None: "b"}, {1: "b", None: "c"}, {"1", "None"}),
    ],
    ids=lambda part: str(sorted(part) if isinstance(part, set) else part),
)
def test_the_deepest_changed_places_are_named(old: object, new: object, expected: set[str]) -> None:
    """Added and removed parts by all their deepest places, a part replaced by another kind by those of both."""
    assert paths(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, True),
        (1, 1.0),
        (0, False),
        ("1", 1),
        (b"a", "a"),
        (None, 0),
        (datetime(2024, 1, 1, tzinfo=timezone.utc), datetime(2024, 1, 2, tzinfo=timezone.utc)),
        (PurePosixPath("/a"), PurePosixPath("/b")),
        ({1, 2}, {1, 3}),
        (frozenset({1}), frozenset()),
        (Colour.RED, Colour.BLUE),
    ],
    ids=repr,
)
def test_what_json_tells_apart_is_told_apart(old: object, new: object) -> None:
    """``1``, ``1.0`` and ``true`` are equal in Python, but a document that changes from one to another has changed."""
    assert paths({"a": old}, {"a": new}) == {"a"}
    assert paths({"a": old}, {"a": copy.copy(old)}) == set()


def test_not_a_number_has_not_changed_into_itself() -> None:
    """NaN differs from itself, yet a new document with the same NaN is no change."""
    assert paths({"a": float("nan")}, {"a": float("nan")}) == set()
    assert paths({"a": float("nan")}, {"a": 1.0}) == {"a"}


def test_a_dataclass_is_looked_into_by_its_fields() -> None:
    """Nested too; a field that the class leaves out of comparisons is left out here."""
    old = Plain(Database("x"), ("a",))
    assert paths(old, Plain(Database("x"), ("a",))) == set()
    assert paths(old, Plain(Database("y", 1), ("a", "b"))) == {"db.host", "db.port", "names.1"}
    slotted = make_dataclass("Slotted", [("a", int)], slots=True)
    assert paths(slotted(1), slotted(2)) == {"a"}
    assert paths(Typed(1), Typed(2)) == {"port"}


def test_a_field_that_was_never_set_is_no_place() -> None:
    """A declared field may lack a value; the comparison does without."""

    @dataclass
    class Lazy:
        host: str
        connection: object = field(init=False)

    connected = Lazy("a")
    connected.connection = 7
    assert paths(Lazy("a"), Lazy("b")) == {"host"}
    assert paths(Lazy("a"), connected) == {"connection"}


def test_a_model_is_looked_into_by_its_fields() -> None:
    """By their names in Python, whatever their aliases; extra fields count, and a root model is its one value."""
    old = Model.model_validate({"db": {"host": "x", "Port": 1}, "tags": ["a"], "more": 1})
    new = Model.model_validate({"db": {"host": "x", "Port": 2}, "tags": ["a"], "more": {"deep": 2}})
    assert paths(old, new) == {"db.port", "more", "more.deep"}
    assert paths(old, old.model_copy(deep=True)) == set()
    assert paths(Hosts({"a": 1, "b": 2}), Hosts({"a": 1, "b": 3})) == {"b"}


def test_an_object_of_another_class_is_another_place() -> None:
    """A union may change its member: then all fields of both changed, even those that are equal."""
    other = make_dataclass("Other", [("host", str), ("url", str)])
    assert paths({"db": Database("x")}, {"db": other("x", "u")}) == {"db.host", "db.port", "db.url"}


@pytest.mark.parametrize(
    ("key", "path"),
    [("a.b", "a~1b"), ("~", "~0"), ("~1", "~01"), ("", "~2"), ("a b", "a b"), ("é\n", "é\n"), (".", "~1")],
)
def test_keys_that_look_like_paths_are_escaped(key: str, path: str) -> None:
    """No two keys share a path, and each path finds exactly its key."""
    change = Change({key: {"x": 1}, "a": {"b": 1}}, {key: {"x": 2}, "a": {"b": 1}})
    assert change.paths == {f"{path}.x"}
    assert change.changed(path)
    assert change.changed(f"{path}.x")
    assert not change.changed("a.b")


def test_keys_that_are_written_alike_do_not_hide_one_another() -> None:
    """``1`` and ``"1"`` have the same path, so a mapping with both counts as one place."""
    assert paths({"m": {1: "a", "1": "b"}}, {"m": {1: "x", "1": "b"}}) == {"m"}


# --- what counts as changed


def test_a_place_changes_with_what_is_in_it_and_with_what_it_is_in() -> None:
    """Below, at and above a changed place; beside it nothing, not even where the text begins alike."""
    change = Change({"db": {"host": "a", "pool": {"size": 1}}, "d": 1}, {"db": {"host": "b", "pool": 5}, "d": 1})
    assert change.paths == {"db.host", "db.pool", "db.pool.size"}
    for path in ("", "db", "db.host", "db.pool", "db.pool.size", "db.pool.timeout", "db.pool.size.unit"):
        assert change.changed(path), path
    for path in ("d", "db.hos", "db.hosts", "db.port", "d.b", "host"):
        assert not change.changed(path), path


def test_a_removed_part_changes_what_was_in_it() -> None:
    """Its places existed before; a place that existed on neither side did not change."""
    change = Change({"db": {"host": "a"}, "x": 1}, {"x": 1})
    assert change.changed("db.host")
    assert change.changed("db")
    assert not change.changed("db.port")


def test_nothing_changed_between_equal_values() -> None:
    """Not even the whole."""
    change = Change({"a": [1]}, {"a": [1]}, version=2, old_version=1)
    assert change.paths == frozenset()
    assert not change.changed("")
    assert not change.changed("a")


def test_of_a_first_value_everything_changed() -> None:
    """All its places are named, and every path counts: whoever waits for one learns of the value."""
    change = Change(None, {"a": 1, "b": {"c": 2}, "e": []})
    assert change.paths == {"a", "b.c", "e"}
    for path in ("", "a", "b", "b.c", "e", "nowhere", "b.d"):
        assert change.changed(path)
    assert Change(None, {}).paths == {""}
    assert Change(None, 5).paths == {""}


def test_a_whole_that_was_replaced_changed_everywhere() -> None:
    """A value of another kind leaves no place as it was."""
    assert Change({"a": 1}, 5).changed("b.c")


@pytest.mark.parametrize("path", [".", "a.", ".a", "a..b", "~", "a~", "~3", "a.~2b", "~2~2", "a~2"])
def test_what_is_no_path_is_refused(path: str) -> None:
    """A mistyped path would never be told of; the error says how paths are written."""
    with pytest.raises(ConfigClientError, match="a path joins keys with dots"):
        Change(None, {}).changed(path)


def test_a_path_must_be_text() -> None:
    """A tuple of keys is no path."""
    with pytest.raises(ConfigClientError, match="a path joins keys with dots"):
        Change(1, 2).changed(("a", "b"))  # type: ignore[arg-type]


# --- once, and not before it is asked for


def test_paths_are_worked_out_when_first_asked_for_and_then_kept() -> None:
    """A change that nobody asks compares nothing."""
    looked: list[str] = []

    class Telling(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            looked.append(key)
            return 1

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    change: Change[Any] = Change({"a": 2}, Telling())
    assert repr(change) == "Change(version=None, old_version=None)"
    assert looked == []
    assert change.paths is change.paths
    assert change.changed("a")
    assert looked == ["a"]


def test_a_change_is_copied_pickled_and_compared_as_before() -> None:
    """Having worked out its paths makes a change no other one, and neither makes lacking them."""
    change = Change({"a": 1}, {"a": 2}, 3, 2)
    assert change.paths == {"a"}
    for other in (copy.deepcopy(change), pickle.loads(pickle.dumps(change)), replace(change), Change(*_four(change))):
        assert other == change
        assert other.paths == {"a"}
    assert replace(change, new={"a": 1}).paths == frozenset()


def _four(change: Change[Any]) -> tuple[Any, Any, int | None, int | None]:
    return change.old, change.new, change.version, change.old_version


# --- values that are out to break it


class Hostile:
    """Raises whatever is done with it."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError

    __hash__ = None  # type: ignore[assignment]


class Undecided:
    """Compares to something that is neither true nor false, as arrays do."""

    def __eq__(self, other: object) -> Any:
        return Hopeless()

    __hash__ = None  # type: ignore[assignment]


class Hopeless:
    """Has no truth value."""

    def __bool__(self) -> bool:
        raise ValueError


class Broken(Mapping[str, int]):
    """A mapping that has a length and no items."""

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError

    def __len__(self) -> int:
        return 1


class Reclusive:
    """Says that it is a dataclass, and is none."""

    __dataclass_fields__ = 5


@pytest.mark.parametrize("make", [Hostile, Undecided, Broken, Reclusive, object, lambda: len])
def test_no_object_makes_the_comparison_raise(make: Any) -> None:
    """What cannot be compared counts as changed, and the rest is compared as ever."""
    one, other = make(), make()
    expected = set() if one is other else {"odd"}
    assert paths({"odd": one, "same": 1, "a": 1}, {"odd": other, "same": 1, "a": 2}) == {"a", *expected}
    assert paths({"odd": one}, {"odd": 1}) == {"odd"}
    assert paths(None, {"odd": one}) == {"odd"}
    assert paths({"odd": one}, {"odd": one}) == set()


def test_keys_that_cannot_be_written_make_one_place() -> None:
    """A key without a text has no path."""

    class Key:
        def __str__(self) -> str:
            raise RuntimeError

    key = Key()
    assert paths({"m": {key: 1}}, {"m": {key: 2}}) == {"m"}


def nested(depth: int, leaf: object) -> object:
    """Return ``leaf`` inside that many objects."""
    for _ in range(depth):
        leaf = {"k": leaf}
    return leaf


def test_depth_costs_no_stack() -> None:
    """Far below what recursion reaches, a change is found where it is."""
    (path,) = Change(nested(50_000, 1), nested(50_000, 2)).paths
    assert path == ".".join(["k"] * 50_000)


def test_a_value_that_contains_itself_is_compared_in_finite_time() -> None:
    """Equal circles have not changed; a circle that opens, appears or goes has."""
    circle: list[object] = [1]
    circle.append(circle)
    same: list[object] = [1]
    same.append(same)
    other: list[object] = [2]
    other.append(other)
    assert paths({"c": circle}, {"c": same}) == set()
    assert paths({"c": circle}, {"c": other}) == {"c.0"}
    assert paths({"c": circle}, {"c": 1}) >= {"c", "c.0"}
    bare: list[object] = []
    bare.append(bare)
    assert Change({"c": bare, "a": 1}, {"a": 1}).changed("c")
    assert Change(None, bare).paths


def test_one_object_in_two_places_changes_in_both() -> None:
    """Only what contains itself is cut short, not what is merely shared."""
    old, new = {"x": 1}, {"x": 2}
    assert paths({"a": old, "b": old}, {"a": new, "b": new}) == {"a.x", "b.x"}


def test_a_named_tuple_is_a_tuple() -> None:
    """Its places go by index."""
    point = namedtuple("point", "x y")
    assert paths(point(1, 2), point(1, 3)) == {"1"}


# --- against a model that is plain to see


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", ".", "~", "~1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "a", "b.c", "~0", "0"]), inner),
    max_leaves=12,
)


def places(value: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return every deepest place of a JSON value with what stands there, told apart as JSON does."""
    if isinstance(value, dict) and value:
        return {p: v for key, part in value.items() for p, v in places(part, (*path, f"k{key}")).items()}
    if isinstance(value, list) and value:
        return {p: v for index, part in enumerate(value) for p, v in places(part, (*path, f"i{index}")).items()}
    return {path: json.dumps(value)}


def written(path: tuple[str, ...]) -> str:
    """Return how a path is written, by the rules of the module's docstring."""
    steps = [step[1:].replace("~", "~0").replace(".", "~1") or "~2" for step in path]
    return ".".join(steps)


@settings(max_examples=400, deadline=None)
@given(JSON, JSON)
def test_the_paths_are_the_places_whose_contents_differ(old: object, new: object) -> None:
    """For any two JSON values: the deepest places that one side lacks, or fills differently."""
    before, after = places(old), places(new)
    differing = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # An object or list that gained its first entry, or lost its last, is an end no more, and its entries tell of it.
    grown = {
        path
        for path in differing
        if (before.get(path, after.get(path)) in {"{}", "[]"})
        and any(other[: len(path)] == path and other != path for other in differing)
        and _kind(old, path) is _kind(new, path)
    }
    if old is None:
        assert Change(old, new).paths == {written(path) for path in after}
    else:
        assert Change(old, new).paths == {written(path) for path in differing - grown}


def _kind(value: Any, path: tuple[str, ...]) -> type | None:
    for step in path:
        try:
            value = value[step[1:]] if step[0] == "k" else value[int(step[1:])]
        except (KeyError, IndexError, TypeError):
            return None
    return type(value)


@settings(max_examples=200, deadline=None)
@given(JSON, JSON)
def test_a_path_counts_as_changed_exactly_with_a_changed_path_at_above_or_below_it(old: object, new: object) -> None:
    """The look-up agrees with a plain search through all changed paths."""
    change = Change(old, new)
    steps = [path.split(".") if path else [] for path in change.paths]
    asked = {written(path[:end]) for value in (old, new) for path in places(value) for end in range(len(path) + 1)}
    for path in asked | {"zz", "a.zz"}:
        own = path.split(".") if path else []
        meets = any(other[: len(own)] == own or own[: len(other)] == other for other in steps)
        assert change.changed(path) is (old is None or meets)
