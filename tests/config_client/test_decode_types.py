"""decode: what each annotation takes and refuses, and how annotations are resolved."""

# ruff: noqa: UP006, UP007, UP045 - the old spellings of types must work too
from __future__ import annotations

import collections.abc
import json
import sys
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from pathlib import Path, PurePath, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, ForwardRef, Generic, Literal, NewType, Optional, TypeVar, Union
from uuid import UUID

import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.decode import decode
from config_client.errors import UnmarshalError

if TYPE_CHECKING:
    from fractions import Fraction

CANARY = "s3cr3t-canary-71"
T = TypeVar("T")
U = TypeVar("U")
Bounded = TypeVar("Bounded", bound=int)
Limited = TypeVar("Limited", int, str)
UserId = NewType("UserId", int)


class Colour(Enum):
    """Text values, one of them under two names."""

    RED = "red"
    CRIMSON = "red"  # noqa: PIE796 - an alias on purpose
    BLUE = "blue"


class Level(IntEnum):
    """Integer values."""

    LOW = 1
    HIGH = 2


class Ratio(Enum):
    """Fractions, null and a pair: whatever an Enum may hold."""

    HALF = 0.5
    WHOLE = 1.0
    NONE = None
    PAIR = (1, 2)


class Lenient(str, Enum):
    """Knows more spellings than its members."""

    ON = "on"

    @classmethod
    def _missing_(cls, value: object) -> Lenient | None:
        return cls.ON if str(value).lower() == "on" else None


class Access(Flag):
    """Single flags by value; no combinations."""

    READ = 1
    WRITE = 2


class Empty(Enum):
    """Nothing can be one of these."""


@dataclass
class Item:
    """Something to nest."""

    name: str


@dataclass(frozen=True)
class Hashable:
    """Something for sets."""

    name: str


class Movie(typing.TypedDict):
    """A dict with known keys."""

    title: str
    year: typing_extensions.NotRequired[int]


class Loose(typing.TypedDict, total=False):
    """A dict of which little is required."""

    title: typing_extensions.Required[str]
    year: int


class Extended(typing_extensions.TypedDict):
    """The other library's kind of TypedDict."""

    title: str


def holder(annotation: object) -> Any:
    """Return a dataclass with the one field ``value`` of the type ``annotation``."""
    return make_dataclass("Holder", [("value", annotation)])


def fill(annotation: object, value: object) -> Any:
    """Return ``value``, sent through JSON, as a field of the type ``annotation``."""
    return decode(json.dumps({"value": value}).encode(), holder(annotation)).value


def refusal(annotation: object, value: object) -> str:
    """Return why ``value`` does not fit ``annotation``, once the error is known not to repeat it."""
    with pytest.raises(UnmarshalError, match="Dataclass construction failed") as caught:
        fill(annotation, value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in repr(caught.value)
    return str(caught.value)


def unsupported(target: Any) -> str:
    """Return why ``target`` is not supported."""
    with pytest.raises(UnmarshalError, match="Unsupported target_type") as caught:
        decode(b"not looked at", target)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def new_module(monkeypatch: pytest.MonkeyPatch, source: str, **names: object) -> dict[str, Any]:
    """Return the contents of a new module that knows ``names`` and runs ``source``, without this file's imports."""
    module = ModuleType("elsewhere")
    module.__dict__.update(names)
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    exec(compile(textwrap.dedent(source), "elsewhere", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


# --- what fits

FITS: list[tuple[object, object, object]] = [
    (int, 1, 1),
    (int, 9007199254740993, 9007199254740993),
    (float, 1.5, 1.5),
    (float, 1, 1.0),
    (bool, True, True),
    (str, "", ""),
    (None, None, None),
    (type(None), None, None),
    (Any, [1, {"a": None}], [1, {"a": None}]),
    (object, "x", "x"),
    (UserId, 5, 5),
    (Annotated[int, "ignored"], 5, 5),
    (Final[int], 5, 5),
    (Final, 5, 5),
    (Optional[int], None, None),
    (Optional[int], 5, 5),
    (int | None, None, None),
    (Union[int, str], "1", "1"),
    (Union[float, int], 1, 1),
    (float | int, 1.0, 1.0),
    (Union[str, datetime], "2024-01-01", "2024-01-01"),
    (Union[datetime, str], "2024-01-01", datetime(2024, 1, 1)),  # noqa: DTZ001
    (Union[datetime, str], "soon", "soon"),
    (Union[Item, dict[str, int], list[int], None], {"name": "a"}, Item("a")),
    (Union[Item, dict[str, int], list[int], None], {"other": 1}, {"other": 1}),
    (Union[Item, dict[str, int], list[int], None], [1], [1]),
    (Literal["a", 1, None, Colour.RED], "a", "a"),
    (Literal["a", 1, None, Colour.RED], 1, 1),
    (Literal["a", 1, None, Colour.RED], None, None),
    (Literal["a", 1, None, Colour.RED], "red", Colour.RED),
    (Literal[True], True, True),
    (Colour, "red", Colour.RED),
    (Level, 2, Level.HIGH),
    (Ratio, 0.5, Ratio.HALF),
    (Ratio, 1, Ratio.WHOLE),
    (Ratio, None, Ratio.NONE),
    (Lenient, "ON", Lenient.ON),
    (Access, 2, Access.WRITE),
    (list[int], [1, 2], [1, 2]),
    (list, [1, "a"], [1, "a"]),
    (typing.List[int], [1], [1]),
    (typing.List, [1], [1]),
    (list[Item], [{"name": "a"}], [Item("a")]),
    (Sequence[int], [1], [1]),
    (typing.Sequence[int], [1], [1]),
    (collections.abc.Iterable[int], [1], [1]),
    (tuple, [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (set[int], [1, 1, 2], {1, 2}),
    (set[Hashable], [{"name": "a"}], {Hashable("a")}),
    (frozenset[str], ["a"], frozenset({"a"})),
    (collections.abc.Set[str], ["a"], frozenset({"a"})),
    (collections.abc.MutableSet[str], ["a"], {"a"}),
    (dict, {"a": [1]}, {"a": [1]}),
    (dict[str, Item], {"a": {"name": "b"}}, {"a": Item("b")}),
    (dict[Any, int], {"a": 1}, {"a": 1}),
    (dict[Colour, int], {"blue": 1}, {Colour.BLUE: 1}),
    (dict[Literal["a", "b"], int], {"b": 1}, {"b": 1}),
    (Mapping[str, int], {"a": 1}, {"a": 1}),
    (typing.Dict[str, int], {"a": 1}, {"a": 1}),
    (typing.Mapping, {"a": 1}, {"a": 1}),
    (Movie, {"title": "a"}, {"title": "a"}),
    (Movie, {"title": "a", "year": 1, "more": 2}, {"title": "a", "year": 1}),
    (Loose, {"title": "a"}, {"title": "a"}),
    (Extended, {"title": "a"}, {"title": "a"}),
    (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
    (Path, "/etc/app.conf", Path("/etc/app.conf")),
    (PurePath, "a/b", PurePath("a/b")),
    (PurePosixPath, "a/b", PurePosixPath("a/b")),
    (Decimal, 1, Decimal(1)),
    (Decimal, 1.1, Decimal("1.1")),
    (Decimal, "1.10", Decimal("1.10")),
    (date, "2024-02-29", date(2024, 2, 29)),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), FITS, ids=lambda part: str(part)[:40])
def test_a_value_that_fits_is_converted(annotation: object, value: object, expected: object) -> None:
    """Value and type are as expected: ``1`` and ``True`` and ``1.0`` are told apart."""
    filled = fill(annotation, value)
    assert filled == expected
    assert type(filled) is type(expected)


def test_windows_paths_are_pure() -> None:
    """A path of another system can be held, though not opened."""
    from pathlib import PureWindowsPath

    assert fill(PureWindowsPath, "C:\\a") == PureWindowsPath("C:\\a")


# --- what does not

MISFITS: list[tuple[object, object, str]] = [
    (int, CANARY, "/value: expected int, got string"),
    (int, "1", "/value: expected int, got string"),
    (int, True, "/value: expected int, got boolean"),
    (int, 1.0, "/value: expected int, got number"),
    (int, None, "/value: expected int, got null"),
    (int, [CANARY], "/value: expected int, got array"),
    (int, {CANARY: 1}, "/value: expected int, got object"),
    (float, "1.5", "/value: expected float, got string"),
    (float, True, "/value: expected float, got boolean"),
    (float, 10**400, "/value: expected float, got an integer beyond its range"),
    (bool, 1, "/value: expected bool, got integer"),
    (bool, "true", "/value: expected bool, got string"),
    (str, 1, "/value: expected str, got integer"),
    (None, CANARY, "/value: expected None, got string"),
    (Optional[int], CANARY, "/value: expected int | None, got string"),
    (Union[int, str], 1.5, "/value: expected int | str, got number"),
    (Optional[Item], {"name": 1}, "/value/name: expected str, got integer"),
    (Union[str, Item], {}, "/value/name: missing, expected str"),
    (Union[Item, Hashable], {}, "/value: expected Item | Hashable, got object"),
    (Union[list[int], str], [CANARY], "/value/0: expected int, got string"),
    (Literal["a", 1], CANARY, "/value: expected Literal['a', 1], got another value"),
    (Literal[1], True, "/value: expected Literal[1], got another value"),
    (Literal[1], 1.0, "/value: expected Literal[1], got another value"),
    (Literal[True], 1, "/value: expected Literal[True], got another value"),
    (Literal["a"], ["a"], "/value: expected Literal['a'], got another value"),
    (Colour, CANARY, "/value: expected a value of Colour, got another one"),
    (Colour, "RED", "/value: expected a value of Colour, got another one"),
    (Colour, ["red"], "/value: expected a value of Colour, got another one"),
    (Level, "1", "/value: expected a value of Level, got another one"),
    (Level, True, "/value: expected a value of Level, got another one"),
    (Level, 1.0, "/value: expected a value of Level, got another one"),
    (Ratio, [1, 2], "/value: expected a value of Ratio, got another one"),
    (Ratio, True, "/value: expected a value of Ratio, got another one"),
    (Lenient, CANARY, "/value: expected a value of Lenient, got another one"),
    (Access, 3, "/value: expected a value of Access, got another one"),
    (list[Annotated[int, "ignored"]], CANARY, "/value: expected list[int], got string"),
    (list[int], {"a": CANARY}, "/value: expected list[int], got object"),
    (list[int], [1, CANARY, 2, CANARY], "/value/1: expected int, got string; /value/3: expected int, got string"),
    (tuple[int, ...], ["a"], "/value/0: expected int, got string"),
    (tuple[int, str], [1], "/value: expected tuple[int, str], got 1 items"),
    (tuple[int, str], [1, 2], "/value/1: expected str, got integer"),
    (tuple[int, str], CANARY, "/value: expected tuple[int, str], got string"),
    (set[int], CANARY, "/value: expected set[int], got string"),
    (set[Any], [[CANARY]], "/value: expected set[Any], got items that cannot be members of a set"),
    (set[Item], [{"name": CANARY}], "/value: expected set[Item], got items that cannot be members of a set"),
    (dict[str, int], [CANARY], "/value: expected dict[str, int] (an object), got array"),
    (dict[str, int], {"a": CANARY, "b": 1}, "/value/a: expected int, got string"),
    (dict[Colour, int], {"green": 1}, "/value/green: expected a value of Colour, got another one"),
    (Movie, {"year": CANARY}, "/value/title: missing, expected str; /value/year: expected int, got string"),
    (Movie, CANARY, "/value: expected Movie (an object), got string"),
    (Loose, {"year": 1}, "/value/title: missing, expected str"),
    (UUID, CANARY, "/value: expected UUID, got text that does not spell one"),
    (UUID, 5, "/value: expected UUID (text), got integer"),
    (Path, 5, "/value: expected Path (text), got integer"),
    (Decimal, CANARY, "/value: expected Decimal, got text that does not spell a finite number"),
    (Decimal, "NaN", "/value: expected Decimal, got text that does not spell a finite number"),
    (Decimal, "Infinity", "/value: expected Decimal, got text that does not spell a finite number"),
    (Decimal, True, "/value: expected Decimal, got boolean"),
    (date, "2024-02-30", "/value: expected date, got text that does not spell one"),
    (date, "2024-01-01T00:00:00", "/value: expected date, got text that does not spell one"),
    (date, "20240101", "/value: expected date, got text that does not spell one"),
    (datetime, CANARY, "/value: expected datetime, got text that does not spell one"),
    (datetime, 1704067200, "/value: expected datetime (text), got integer"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), MISFITS, ids=lambda part: str(part)[:40])
def test_a_value_that_does_not_fit_is_refused(annotation: object, value: object, expected: str) -> None:
    """Nothing is coerced; the error names place and expected type, and tells of the value its kind alone."""
    assert refusal(annotation, value) == f"Dataclass construction failed for Holder: {expected}"


# --- times

PLUS_TWO = timezone(timedelta(hours=2))


def minutes_east(minutes: int) -> timezone:
    """Return the time zone that many minutes east of Greenwich."""
    return timezone(timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("2024-01-02t03:04:05z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("2024-01-02 03:04:05+00:00", datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)),
        ("2024-01-02T03:04:05.1+02:00", datetime(2024, 1, 2, 3, 4, 5, 100_000, tzinfo=PLUS_TWO)),
        ("2024-01-02T03:04:05,123456789+0200", datetime(2024, 1, 2, 3, 4, 5, 123_456, tzinfo=PLUS_TWO)),
        ("2024-01-02T03:04:05+02", datetime(2024, 1, 2, 3, 4, 5, tzinfo=PLUS_TWO)),
        ("2024-01-02T03:04Z", datetime(2024, 1, 2, 3, 4, tzinfo=timezone.utc)),
        ("2024-01-02T03:04:05.5", datetime(2024, 1, 2, 3, 4, 5, 500_000)),  # noqa: DTZ001
        ("2024-01-02", datetime(2024, 1, 2)),  # noqa: DTZ001
    ],
)
def test_a_time_is_read_from_iso_text_alike_on_every_python(text: str, expected: datetime) -> None:
    """``Z``, offsets with and without colon, any number of fraction digits; without an offset it stays naive."""
    value = fill(datetime, text)
    assert value == expected
    assert value.utcoffset() == expected.utcoffset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024-13-01T00:00:00Z",
        "2024-01-01T25:00:00Z",
        "2024-01-01T00:00:00+25:00",
        "2024-01-01T00:00:00Z ",
        "2024-01-01T00:00:00Z\n",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T",
        "2024-01-01Z",
        "2024-W01-1",
        "20240101T000000",
        "٢٠٢٤-01-01T00:00:00Z",
    ],
)
def test_other_text_is_no_time(text: str) -> None:
    """Also the forms that only newer Pythons read, so that all of them agree."""
    assert "/value: expected datetime, got text" in refusal(datetime, text)


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.none() | st.integers(-1439, 1439).map(minutes_east)))
def test_every_time_survives_its_iso_form(moment: datetime) -> None:
    """What ``isoformat`` writes is read back as the same moment with the same offset."""
    value = fill(datetime, moment.isoformat())
    assert value == moment
    assert value.utcoffset() == moment.utcoffset()


@settings(max_examples=100, deadline=None)
@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_becomes_the_decimal_of_its_shortest_text(number: float) -> None:
    """Not the binary expansion of the float: 1.1 is 1.1."""
    assert fill(Decimal, number) == Decimal(str(number))


# --- types that JSON cannot fill


@pytest.mark.parametrize(
    ("annotation", "fragment"),
    [
        (bytes, "Holder.value: no JSON value becomes bytes"),
        (timedelta, "Holder.value: no JSON value becomes timedelta"),
        (complex, "complex"),
        (Optional[bytes], "bytes"),
        (list[bytes], "bytes"),
        (dict[str, timedelta], "timedelta"),
        (dict[int, str], "Holder.value: keys of a JSON object are text; they do not become int"),
        (dict[UUID, str], "UUID"),
        (Callable[[int], str], "Callable"),
        (type[int], "type[int]"),
        (Literal[b"x"], "Literal[b'x']"),
        (Empty, "Empty has no members"),
        (object(), "an instance of object"),
    ],
    ids=lambda part: str(part).partition(" at 0x")[0][:40],
)
def test_a_field_that_json_cannot_fill_makes_the_target_unsupported(annotation: object, fragment: str) -> None:
    """Found when the type is first used, not when a document first has the field; named with class and field."""
    message = unsupported(holder(annotation))
    assert message.startswith("Unsupported target_type Holder: ")
    assert fragment in message


def test_a_field_that_json_cannot_fill_may_stay_out_of_init() -> None:
    """Such a field is the program's own, whatever its type."""

    @dataclass
    class WithCache:
        host: str
        cache: dict[int, Callable[[], bytes]] = field(init=False, default_factory=dict)
        lost: Fraction = field(init=False)

    assert decode(b'{"host":"a"}', WithCache).cache == {}


@pytest.mark.parametrize(
    ("annotation", "fragment"),
    [
        (timedelta, "Defaulted.value: no JSON value becomes timedelta"),
        (Optional[Callable[[int], str]], "Callable"),
        (list[bytes], "bytes"),
        (dict[int, str], "keys of a JSON object are text"),
        (Literal[b"x"], "Literal[b'x']"),
        ("Fraction", "the annotation 'Fraction' of Defaulted.value cannot be resolved"),
        (holder(bytes), "Holder.value: no JSON value becomes bytes"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_defaulted_field_that_json_cannot_fill_must_only_stay_out_of_the_document(
    annotation: object, fragment: str
) -> None:
    """The class is usable with the default; a document that sets the field is refused by its name and the reason."""
    defaulted = make_dataclass("Defaulted", [("host", str), ("value", annotation, field(default=None))])
    assert decode(b'{"host":"a"}', defaulted) == defaulted("a")
    for given_value in (b"null", b"1", f'"{CANARY}"'.encode()):
        with pytest.raises(UnmarshalError) as caught:
            decode(b'{"host":"a","value":' + given_value + b"}", defaulted)
        message = str(caught.value)
        assert message.startswith("Dataclass construction failed for Defaulted: /value: ")
        assert fragment in message
        assert "leave this field out of the document" in message
        assert CANARY not in message


def test_a_key_that_a_typed_dict_does_not_require_is_treated_like_a_defaulted_field() -> None:
    """Both may stay out, so both refuse only the documents that set them."""

    class Partly(typing.TypedDict, total=False):
        host: str
        window: timedelta

    assert decode(b'{"host":"a"}', Partly) == {"host": "a"}
    with pytest.raises(UnmarshalError, match=r"/window: Partly\.window: no JSON value becomes timedelta"):
        decode(b'{"window":"1h"}', Partly)


@dataclass
class Broken:
    """Cannot be filled, and is reached on two ways: by a field with a default, and through a class that needs it."""

    through: Optional["Through"]  # noqa: UP037 - defined below
    token: bytes


@dataclass
class Through:
    """Refers back to the class that cannot be filled."""

    broken: list[Broken]


@dataclass
class Around:
    """Leaves the broken class out, but needs one that contains it."""

    broken: Optional[Broken] = None
    through: Optional[Through] = None


@dataclass
class Needing:
    """Like Around, with the second way required."""

    through: Through
    broken: Optional[Broken] = None


@dataclass
class NeedingLast:
    """The broken class is met first, inside a field that may stay out."""

    broken: Optional[Broken] = field(default=None, kw_only=True)
    through: Through = field(kw_only=True)


def test_a_class_that_cannot_be_filled_leaves_nothing_half_compiled_behind() -> None:
    """Whichever way it is met first, every other way to it is refused for its own reason, not by an accident."""
    assert decode(b"{}", Around) == Around()
    for name in ("broken", "through"):
        with pytest.raises(UnmarshalError, match=r"Broken\.token: no JSON value becomes bytes"):
            decode(json.dumps({name: {"broken": [{}]}}).encode(), Around)
    for target in (Needing, NeedingLast):
        assert "Broken.token: no JSON value becomes bytes" in unsupported(target)


def test_a_class_that_cannot_be_read_is_unsupported() -> None:
    """Whatever a foreign class raises when it is looked at, the error is ours and silent about its text."""

    class Meta(type):
        def __hash__(cls) -> int:
            raise RuntimeError(CANARY)

    hostile = Meta("Hostile", (), {})
    message = unsupported(holder(hostile))
    assert message == "Unsupported target_type Holder: RuntimeError while reading its annotations"


# --- how annotations are resolved


@dataclass
class Nested:
    """Annotations that refer to a class in its own body and to one that comes later."""

    @dataclass
    class Inner:
        """In the body."""

        depth: int

    inner: Inner
    later: list[Later]
    maybe: Optional["Later"] = None  # noqa: UP037 - a string within a string


@dataclass
class Later:
    """Defined after the class that uses it."""

    name: str


@dataclass
class Shadow:
    """Fields called like their types."""

    date: date | None = None
    Path: Path | None = None


def test_annotations_are_resolved_where_the_class_stands() -> None:
    """In the module, also below, and in the body of the class."""
    value = decode(b'{"inner":{"depth":1},"later":[{"name":"a"}],"maybe":{"name":"b"}}', Nested)
    assert value == Nested(Nested.Inner(1), [Later("a")], Later("b"))


def test_a_field_may_be_called_like_its_type() -> None:
    """The default in the body of the class does not hide the type."""
    assert decode(b'{"date":"2024-01-01","Path":"x"}', Shadow) == Shadow(date(2024, 1, 1), Path("x"))


def test_classes_of_a_running_function_find_each_other() -> None:
    """A function that defines its types and decodes into them needs no module level."""

    @dataclass
    class Leaf:
        value: int
        tree: Tree | None = None

    @dataclass
    class Tree:
        leaves: list[Leaf]

    value = decode(b'{"leaves":[{"value":1,"tree":{"leaves":[]}}]}', Tree)
    assert value == Tree([Leaf(1, Tree([]))])


def returned_class() -> type:
    """Return a class whose annotation names a class that only this function knew."""

    @dataclass
    class Hidden:
        value: int

    @dataclass
    class Visible:
        hidden: Hidden
        again: Visible | None = None

    return Visible


def test_a_name_that_nobody_knows_any_more_is_told_clearly() -> None:
    """The error names the annotation, the field, and what to do."""
    message = unsupported(returned_class())
    assert "the annotation 'Hidden' of Visible.hidden cannot be resolved (NameError)" in message
    assert "at module level" in message


def test_a_name_that_only_the_type_checker_knows_is_told_clearly() -> None:
    """An import under TYPE_CHECKING is not there at run time."""

    @dataclass
    class Checked:
        part: Fraction

    assert "'Fraction' of Checked.part" in unsupported(Checked)


def test_a_class_of_a_finished_function_may_still_contain_itself() -> None:
    """Its own name is known without the function."""

    def make() -> Any:
        @dataclass
        class Node:
            next: Node | None = None

        return Node

    node = make()
    assert decode(b'{"next":{}}', node) == node(node())


@pytest.mark.parametrize("annotation", ["1 +", "Missing.part", "undefined[int]", ForwardRef("Missing")])
def test_an_annotation_that_is_no_type_is_told_clearly(annotation: object) -> None:
    """Syntax errors and unknown names alike."""
    assert "Holder.value cannot be resolved" in unsupported(holder(annotation))


@dataclass
class Box(Generic[T]):
    """A generic class."""

    value: T
    more: list[T] = field(default_factory=list)
    next: Box[T] | None = None


@dataclass
class Pair(Box[U], Generic[T, U]):
    """Passes its second argument to its base, whose variable has the name of its own first."""

    other: T | None = None


@dataclass
class Ints(Box[int]):
    """Binds its base's variable."""


@dataclass
class Odd(Generic[Bounded, Limited]):
    """Variables that say something even unbound."""

    bounded: Bounded
    limited: Limited


def test_generic_classes_check_their_arguments() -> None:
    """Given directly, passed on to a base, or bound by a subclass; nobody's variable is anybody else's."""
    assert decode(b'{"value":1,"next":{"value":2}}', Box[int]) == Box(1, [], Box(2))
    assert decode(b'{"value":{"value":1}}', Box[Box[int]]) == Box(Box(1))
    assert decode(b'{"value":1,"other":"a"}', Pair[str, int]) == Pair(1, other="a")
    assert decode(b'{"value":1,"more":[1]}', Ints) == Ints(1, [1])
    for target, raw, fragment in [
        (Box[int], b'{"value":"1"}', "/value: expected int"),
        (Box[int], b'{"value":1,"next":{"value":"2"}}', "/next/value: expected int"),
        (Pair[str, int], b'{"value":"1"}', "/value: expected int"),
        (Ints, b'{"value":1,"more":["1"]}', "/more/0: expected int"),
    ]:
        with pytest.raises(UnmarshalError, match=fragment):
            decode(raw, target)


def test_an_unbound_variable_is_its_bound_its_constraints_or_anything() -> None:
    """What can be checked is checked."""
    assert decode(b'{"value":[null]}', Box) == Box([None])
    assert decode(b'{"bounded":1,"limited":"a"}', Odd) == Odd(1, "a")
    with pytest.raises(UnmarshalError, match=r"/bounded: expected int.*/limited: expected int \| str"):
        decode(b'{"bounded":"1","limited":null}', Odd)


def test_the_default_of_a_variable_counts() -> None:
    """PEP 696, of ``typing`` or of ``typing_extensions``."""
    variable = typing_extensions.TypeVar("variable", default=int)
    assert fill(variable, 1) == 1
    assert "expected int, got string" in refusal(variable, "1")


@dataclass
class Uses:
    """Types of this module, for a class of another one to inherit."""

    item: Item


def test_a_field_is_resolved_in_the_module_of_the_class_that_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inherited annotation means what it meant in its own module; in the other one ``Item`` is something else."""
    module = new_module(
        monkeypatch,
        """
        from __future__ import annotations
        from dataclasses import dataclass
        class Item: pass
        @dataclass
        class Inherits(Base):
            name: str = ""
        """,
        Base=Uses,
    )
    assert decode(b'{"item":{"name":"a"},"name":"b"}', module["Inherits"]).item == Item("a")


def test_a_class_without_a_module_is_read_all_the_same() -> None:
    """A class of a module that is not loaded any more knows at least itself and the built-in names."""
    node: Any = make_dataclass("Node", [("size", "int"), ("next", "Node | None", None)])
    node.__module__ = "nowhere"
    assert decode(b'{"size":1,"next":{"size":2}}', node).next.size == 2


def test_init_vars_are_resolved_however_they_are_written() -> None:
    """As text, as a type, and bare."""

    @dataclass
    class Written:
        text: InitVar[list[int]]
        bare: InitVar  # type: ignore[type-arg]
        size: int = field(init=False)

        def __post_init__(self, text: list[int], bare: object) -> None:
            self.size = len(text) if bare else 0

    assert decode(b'{"text":[1,2],"bare":true}', Written).size == 2
    with pytest.raises(UnmarshalError, match="/text/0: expected int"):
        decode(b'{"text":["1"],"bare":null}', Written)
    made = make_dataclass("Made", [("value", InitVar[int]), ("bare", InitVar, 1)])
    with pytest.raises(UnmarshalError, match="/value: expected int"):
        decode(b'{"value":"1"}', made)


def test_type_aliases_are_what_they_stand_for() -> None:
    """PEP 695: plain, with arguments, and containing themselves."""
    plain = typing_extensions.TypeAliasType("plain", list[int])
    assert fill(plain, [1]) == [1]
    assert "/value/0: expected int" in refusal(plain, ["1"])
    paired = typing_extensions.TypeAliasType("paired", dict[str, tuple[T, U]], type_params=(U, T))
    assert fill(paired[int, str], {"a": ["x", 1]}) == {"a": ("x", 1)}
    assert "/value/a/0: expected str" in refusal(paired[int, str], {"a": [1, "x"]})


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with Python 3.12")
@pytest.mark.parametrize("first_line", ["", "from __future__ import annotations"])
def test_the_statement_forms_of_generics_and_aliases_work(monkeypatch: pytest.MonkeyPatch, first_line: str) -> None:
    """``class Box[T]`` and ``type Json = …``, which may contain itself, with annotations evaluated or postponed."""
    module = new_module(
        monkeypatch,
        f"""
        {first_line}
        from dataclasses import dataclass
        type Json = int | list[Json] | dict[str, Json]
        type Few[T] = tuple[T, T]
        @dataclass
        class Case[T]:
            value: T
            text: "T | None" = None
        @dataclass
        class Doc:
            json: Json
            few: Few[int]
        """,
    )
    case, doc = module["Case"], module["Doc"]
    assert decode(b'{"value":1,"text":2}', case[int]) == case(1, 2)
    assert decode(b'{"json":[1,{"a":[2]}],"few":[1,2]}', doc) == doc([1, {"a": [2]}], (1, 2))
    for target, raw in [(case[int], b'{"value":1,"text":"2"}'), (doc, b'{"json":[1,{"a":["x"]}],"few":[1,2]}')]:
        with pytest.raises(UnmarshalError, match="Dataclass construction failed"):
            decode(raw, target)


# --- unions of classes


@dataclass
class And:
    """One of two classes that only their tag tells apart."""

    kind: Literal["and"]
    parts: list[And | Or | Word]


@dataclass
class Or:
    """The other."""

    kind: Literal["or"]
    parts: list[And | Or | Word]


@dataclass
class Word:
    """A leaf without a tag."""

    text: str


def test_a_tag_selects_the_class_and_the_errors() -> None:
    """What is wrong is told inside of the class that the tag names."""
    value = decode(b'{"kind":"and","parts":[{"kind":"or","parts":[{"text":"a"}]}]}', And)
    assert value == And("and", [Or("or", [Word("a")])])
    with pytest.raises(UnmarshalError) as caught:
        decode(b'{"kind":"and","parts":[{"kind":"or","parts":[{"text":1}]}]}', And)
    assert str(caught.value).endswith("failed for And: /parts/0/parts/0/text: expected str, got integer")
    with pytest.raises(UnmarshalError, match=r"/parts/0: expected And \| Or \| Word, got object"):
        decode(b'{"kind":"and","parts":[{"kind":"xor","parts":[]}]}', And)


@pytest.mark.timeout(120)
def test_deep_unions_take_linear_time() -> None:
    """Forty levels of a union that contains itself are not tried two to the fortieth times."""
    for leaf in (b'{"text":"a"}', b'{"text":1}'):
        raw = leaf
        for _ in range(40):
            raw = b'{"kind":"or","parts":[' + raw + b"]}"
        try:
            decode(raw, Or)
        except UnmarshalError as error:
            assert "/text: expected str" in str(error)  # noqa: PT017 - only one of the two is refused
            assert leaf.endswith(b"1}")
