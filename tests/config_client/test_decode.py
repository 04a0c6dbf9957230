"""decode: which targets there are, how classes are filled, and that no refusal repeats the document."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Literal, Protocol

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from config_client.decode import decode, decoder
from config_client.errors import UnmarshalError

CANARY = "s3cr3t-canary-71"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything that is reachable from it as cause or context."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None and each not in seen:
            seen.append(each)
            pending += [each.__cause__, each.__context__]
            yield each


def refusal(document: object, target: Any) -> str:
    """Return the text of the UnmarshalError for ``document``, once nothing in its chain repeats the document.

    ``document`` is bytes or something to dump as JSON, and has the canary wherever the caller wants it.
    """
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(UnmarshalError) as caught:
        decode(raw, target)
    assert list(chain(caught.value)) == [caught.value], "an error of decode has neither cause nor context"
    for each in chain(caught.value):
        assert CANARY not in f"{each} {each!r} {each.args} {vars(each)} {getattr(each, '__notes__', '')}"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def decoded(document: object, target: Any) -> Any:
    """Return ``document``, dumped as JSON, decoded into ``target``."""
    return decode(json.dumps(document).encode(), target)


@dataclass
class Database:
    """A required, a defaulted and a generated field."""

    host: str
    port: int = 5432
    replicas: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """A class within a class."""

    database: Database
    debug: bool = False
    ratio: float = 0.5
    backup: Database | None = None


# --- targets


def test_a_dict_is_the_object_itself() -> None:
    """Every kind of JSON value arrives as Python's json would give it."""
    document = {"a": 1, "b": [1.5, None, True, "x"], "c": {"d": 9007199254740993}}
    assert decoded(document, dict) == document


def test_a_parametrised_dict_checks_its_values() -> None:
    """``dict[str, int]`` is a target too."""
    assert decoded({"a": 1}, dict[str, int]) == {"a": 1}
    message = refusal({"a": CANARY}, dict[str, int])
    assert message == "Document does not fit dict[str, int]: /a: expected int, got string"


class Shape(Protocol):
    """Not something that can be built."""

    side: int


class Plain:
    """Neither a dataclass nor a model."""


class Colour(Enum):
    """An enumeration is a type of fields, not of documents."""

    RED = "red"


@pytest.mark.parametrize(
    "target",
    [
        int,
        str,
        list,
        list[int],
        tuple,
        set,
        object,
        Any,
        None,
        type(None),
        bytes,
        Shape,
        Plain,
        Colour,
        Database | None,
        Literal["a"],
        Database("host"),
        {"a": 1},
        "Database",
        lambda: 1,
        7,
    ],
    # Without addresses, so that every process names the tests alike.
    ids=lambda target: str(target).partition(" at 0x")[0],
)
def test_other_targets_are_refused_before_the_document_is_looked_at(target: object) -> None:
    """The type is the fault here, so that is what the error names, whatever the document is."""
    message = refusal(b"\xff not JSON " + CANARY.encode(), target)
    assert message.startswith("Unsupported target_type ")
    assert "use dict, a dataclass or a pydantic v2 model" in message


def test_an_instance_in_place_of_a_class_is_not_shown() -> None:
    """A filled object given by mistake does not end up in the error."""
    assert "Unsupported target_type an instance of Database" in refusal({}, Database(CANARY))


def test_a_decoder_can_be_had_before_the_document() -> None:
    """It refuses an unsupported type at once, and is compiled once per class."""
    assert decoder(Database) is decoder(Database)
    assert decoder(Database)(b'{"host":"pg"}') == Database("pg")
    with pytest.raises(UnmarshalError, match="Unsupported target_type int"):
        decoder(int)


# --- documents


@pytest.mark.parametrize("target", [dict, Database, RootModel[dict[str, object]]])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" + CANARY.encode(),
        CANARY.encode(),
        f'["{CANARY}"]'.encode(),
        f'"{CANARY}"'.encode(),
        b"null",
        f'{{"host": "{CANARY}", "x": NaN}}'.encode(),
        f'{{"host": "{CANARY}"'.encode(),
        f'{{"host": "{CANARY}"}} {{}}'.encode(),
        f'{{"host": "{CANARY}", "x": '.encode() + b"[" * 100_000,
        f'{{"host": "{CANARY}", "x": '.encode() + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: repr(raw[:20]) if isinstance(raw, bytes) else None,
)
def test_what_is_not_a_json_object_is_refused(raw: bytes, target: type) -> None:
    """The same rules hold for every kind of target, pydantic's own parser notwithstanding."""
    assert refusal(raw, target)


@pytest.mark.parametrize("target", [dict, Database, RootModel[dict[str, object]]])
def test_a_byte_order_mark_is_skipped_and_the_last_of_equal_keys_counts(target: type) -> None:
    """The SDK reads what any service published."""
    document: Any = decode(b'\xef\xbb\xbf{"host": "a", "host": "b"}', target)
    assert document in ({"host": "b"}, Database("b"), RootModel[dict[str, object]]({"host": "b"}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_any_object_decodes_to_what_was_dumped(document: dict[str, object]) -> None:
    """Nothing is lost or bent on the way to a dict."""
    assert decoded(document, dict) == document


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["database", "debug", "ratio", "backup"]), json_values))
def test_any_object_fits_or_is_refused_with_an_unmarshal_error(document: dict[str, object]) -> None:
    """No other exception leaves decode, and what it returns is of the type."""
    try:
        value = decoded(document, Settings)
    except UnmarshalError as error:
        assert str(error).startswith("Dataclass construction failed for Settings: /")  # noqa: PT017 - either is right
    else:
        assert isinstance(value, Settings)


# --- dataclasses


def test_a_dataclass_is_filled_with_defaults_for_what_is_missing() -> None:
    """Nested classes, defaults and factories; each instance gets a list of its own."""
    first = decoded({"database": {"host": "pg"}}, Settings)
    assert first == Settings(Database("pg", 5432, []), debug=False, ratio=0.5, backup=None)
    assert first.database.replicas is not decoded({"database": {"host": "pg"}}, Settings).database.replicas


def test_a_dataclass_is_filled_from_the_document() -> None:
    """What the document says wins over every default."""
    document = {
        "database": {"host": "pg", "port": 1, "replicas": ["a"]},
        "debug": True,
        "ratio": 2,
        "backup": {"host": "b"},
    }
    value = decoded(document, Settings)
    assert value == Settings(Database("pg", 1, ["a"]), debug=True, ratio=2.0, backup=Database("b"))
    assert isinstance(value.ratio, float)


def test_unknown_fields_are_ignored() -> None:
    """A document may grow before the programs that read it do."""
    assert decoded({"host": "pg", "new": {"any": "thing"}, "": 1}, Database) == Database("pg")


def test_every_fault_is_named_with_its_place_and_the_expected_type() -> None:
    """One look at the error is enough to repair the document."""
    document = {
        "database": {"port": CANARY, "replicas": ["a", 1, None]},
        "debug": 1,
        "ratio": CANARY,
        "backup": {"host": 5},
    }
    assert refusal(document, Settings) == (
        "Dataclass construction failed for Settings: "
        "/database/host: missing, expected str; "
        "/database/port: expected int, got string; "
        "/database/replicas/1: expected str, got integer; "
        "/database/replicas/2: expected str, got null; "
        "/debug: expected bool, got integer; "
        "/ratio: expected float, got string; "
        "/backup/host: expected str, got integer"
    )


def test_a_long_list_of_faults_is_cut() -> None:
    """Ten are told, the rest is a count."""
    message = refusal({"host": "x", "replicas": [1] * 25}, Database)
    assert message.count("expected str") == 10
    assert message.endswith("; and 15 more")


def test_keys_are_shown_escaped_and_shortened() -> None:
    """A key is part of the place, but cannot forge a line of a log nor flood it."""
    message = refusal({"a/b~c\nd": CANARY, "k" * 5000: CANARY}, dict[str, int])
    assert "/a~1b~0c\\nd: expected int" in message
    assert len(message) < 500


def test_null_is_not_an_absent_field() -> None:
    """A default stands in for what is missing; null is a value, for types that include None."""
    assert "/port: expected int, got null" in refusal({"host": CANARY, "port": None}, Database)
    assert decoded({"database": {"host": "a"}, "backup": None}, Settings).backup is None


def test_a_value_where_a_class_is_expected_is_refused() -> None:
    """The error says that an object is expected."""
    assert "/database: expected Database (an object), got string" in refusal({"database": CANARY}, Settings)
    assert "/database: expected Database (an object), got array" in refusal({"database": [CANARY]}, Settings)


def test_a_post_init_that_raises_is_told_by_type_only() -> None:
    """Its text, its cause and its attributes may hold the document."""

    class PickyError(Exception):
        pass

    @dataclass
    class Picky:
        password: str

        def __post_init__(self) -> None:
            error = PickyError(f"bad password {self.password}")
            error.value = self.password  # type: ignore[attr-defined]
            raise error from ValueError(self.password)

    message = refusal({"password": CANARY}, Picky)
    assert message == "Dataclass construction failed for Picky: (document): Picky refused its values with PickyError"


def test_a_post_init_of_a_nested_class_is_told_with_its_place() -> None:
    """The path leads to the object that was refused."""
    message = refusal({"parts": [{"size": 1}, {"size": -1}], "name": CANARY}, Assembly)
    assert message == "Dataclass construction failed for Assembly: /parts/1: Part refused its values with ValueError"


@dataclass
class Part:
    """Checks itself."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(CANARY)


@dataclass
class Assembly:
    """Holds classes that check themselves."""

    parts: list[Part]


def test_an_interrupt_is_not_turned_into_an_error() -> None:
    """Ctrl-C within a ``__post_init__`` ends the program."""

    @dataclass
    class Interrupted:
        def __post_init__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(b"{}", Interrupted)


def test_running_out_of_stack_is_an_unmarshal_error() -> None:
    """A ``__post_init__`` that recurses, like a document too deep for the caller's stack, ends in a typed error."""

    @dataclass
    class Endless:
        def __post_init__(self) -> None:
            self.__post_init__()

    assert "RecursionError" in refusal({"x": CANARY}, Endless)


def test_a_document_too_deep_for_the_stack_is_an_unmarshal_error() -> None:
    """Wherever in decode the stack ends, the error is ours."""
    raw = json.dumps({"value": CANARY, "next": None}).encode()
    for _ in range(90):
        raw = b'{"value": "x", "next": ' + raw + b"}"
    outcomes: set[str] = set()

    def descend(room: int) -> None:
        if room:
            descend(room - 1)
            return
        try:
            decode(raw, Chain)
        except UnmarshalError as error:
            assert CANARY not in str(error)  # noqa: PT017 - either is right
            outcomes.add("refused")
        else:
            outcomes.add("decoded")

    for room in range(0, sys.getrecursionlimit() - 150, 20):
        descend(room)
    assert outcomes == {"decoded", "refused"}


@dataclass
class Chain:
    """A class that contains itself."""

    value: str
    next: Chain | None = None


def test_a_class_may_contain_itself() -> None:
    """To any depth that a document may have."""
    assert decoded({"value": "a", "next": {"value": "b"}}, Chain) == Chain("a", Chain("b"))
    assert "/next/next/value: expected str" in refusal(
        {"value": "a", "next": {"value": CANARY, "next": {"value": 1}}}, Chain
    )


@dataclass
class Base:
    """The first half of an inherited class."""

    name: str
    kind: ClassVar[str] = "base"


@dataclass
class Derived(Base):
    """The second half, with keyword-only, derived and construction-only values."""

    _: KW_ONLY
    seed: InitVar[int]
    scale: InitVar[int] = 2
    size: int = 3
    total: int = field(init=False)
    tags: list[str] = field(init=False, default_factory=list)

    def __post_init__(self, seed: int, scale: int) -> None:
        self.total = seed * scale


def test_inherited_keyword_only_derived_and_init_only_fields_are_understood() -> None:
    """What ``__init__`` takes comes from the document; ``init=False`` and ClassVar never do."""
    value = decoded({"name": "a", "seed": 5, "total": 1, "tags": ["x"], "kind": "other"}, Derived)
    assert (value.name, value.size, value.total, value.tags, Derived.kind) == ("a", 3, 10, [], "base")
    assert decoded({"name": "a", "seed": 5, "scale": 4}, Derived).total == 20
    message = refusal({"name": CANARY, "scale": CANARY}, Derived)
    assert message.endswith("/seed: missing, expected int; /scale: expected int, got string")


def test_slots_and_frozen_classes_are_built_like_any_other() -> None:
    """Values go through ``__init__`` only."""

    @dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 2

    assert decoded({"x": 1}, Point) == Point(1, 2)


def test_a_class_with_its_own_init_is_asked_for_what_that_takes() -> None:
    """Fields that ``__init__`` does not take are not given to it."""

    @dataclass(init=False)
    class Own:
        host: str
        derived: str

        def __init__(self, host: str = "default") -> None:
            self.host = host
            self.derived = host.upper()

    assert decoded({"host": "pg", "derived": "no"}, Own).derived == "PG"
    assert decoded({}, Own).host == "default"


def test_an_init_that_wants_more_than_fields_is_a_refusal() -> None:
    """There is nothing in the document to give it."""

    @dataclass(init=False)
    class Greedy:
        host: str

        def __init__(self, host: str, secret: str) -> None:
            raise AssertionError

    assert "Greedy refused its values with TypeError" in refusal({"host": CANARY, "secret": CANARY}, Greedy)


def test_a_made_dataclass_works() -> None:
    """``make_dataclass`` gives real types, without a module that knows them."""
    made = dataclasses.make_dataclass("Made", [("host", str), ("port", int, 5)])
    assert decoded({"host": "a"}, made) == made("a", 5)


def test_threads_may_decode_into_a_new_class_at_once() -> None:
    """Compiling is safe to race."""

    @dataclass
    class Fresh:
        host: str

    barrier = threading.Barrier(8)
    results: list[object] = []

    def work() -> None:
        barrier.wait(60)
        results.append(decode(b'{"host":"a"}', Fresh))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [Fresh("a")] * 8


# --- pydantic


class Strict(BaseModel):
    """Takes no coercion; still reads times and sets from JSON."""

    model_config = ConfigDict(strict=True)

    at: datetime
    tags: set[str] = set()
    price: Decimal = Decimal(0)


class Endpoint(BaseModel):
    """A model with a rule of its own."""

    url: str
    port: int = Field(default=1, ge=1)

    @field_validator("url")
    @classmethod
    def check_url(cls, value: str) -> str:
        """Refuse the canary, and repeat it the way careless validators do."""
        if CANARY in value:
            raise ValueError(f"unreachable: {value}")
        return value


@pydantic.dataclasses.dataclass
class PydanticPoint:
    """A pydantic dataclass is pydantic's to validate."""

    x: int
    y: int = 0


@dataclass
class Outer:
    """Models inside a plain dataclass."""

    endpoint: Endpoint
    strict: Strict | None = None
    points: list[PydanticPoint] = field(default_factory=list)


class Around(BaseModel):
    """A plain dataclass inside a model."""

    database: Database
    parts: list[Part] = []


def test_a_model_is_validated_as_json() -> None:
    """A strict model accepts a time and a set from a document, as it does from any JSON."""
    value = decode(b'{"at":"2024-01-01T00:00:00Z","tags":["a"],"price":1.10}', Strict)
    assert value == Strict(at=datetime(2024, 1, 1, tzinfo=timezone.utc), tags={"a"}, price=Decimal("1.1"))


def test_pydantic_coerces_as_its_own_rules_say() -> None:
    """A lax model stays lax: its author chose so."""
    assert decode(b'{"url":"u","port":"8"}', Endpoint) == Endpoint(url="u", port=8)


def test_root_models_pydantic_dataclasses_and_generics_are_targets() -> None:
    """Everything that pydantic builds from an object."""
    assert decode(b'{"a":1}', RootModel[dict[str, int]]).root == {"a": 1}
    assert decode(b'{"x":1}', PydanticPoint) == PydanticPoint(1, 0)
    assert "Pydantic validation failed" in refusal({"a": CANARY}, RootModel[list[int]])


def test_a_validation_error_names_places_and_kinds_only() -> None:
    """Messages, inputs and contexts of pydantic repeat the document; none of them is shown."""
    assert refusal({"url": CANARY, "port": CANARY}, Endpoint) == (
        "Pydantic validation failed for Endpoint: /url: value_error; /port: int_parsing"
    )
    assert "/port: greater_than_equal" in refusal({"url": "u", "port": 0, "x": CANARY}, Endpoint)
    assert "/at: missing" in refusal({"tags": [CANARY]}, Strict)
    assert "PydanticPoint: /x: missing" in refusal({"y": CANARY}, PydanticPoint)


def test_long_keys_in_a_validation_error_are_shortened() -> None:
    """The place may contain keys of the document, of any length."""
    assert len(refusal({"k" * 9000: CANARY}, RootModel[dict[str, int]])) < 400


def test_a_validator_that_raises_something_else_is_told_by_type() -> None:
    """pydantic lets anything but ValueError and AssertionError through, text and all."""

    class Careless(BaseModel):
        url: str

        @field_validator("url")
        @classmethod
        def look_up(cls, value: str) -> str:
            raise KeyError(value)

    message = refusal({"url": CANARY}, Careless)
    assert message == "Pydantic validation failed for Careless: (document): KeyError while validating"


def test_what_only_pydantics_parser_refuses_is_a_refusal_too() -> None:
    """Half a surrogate pair is JSON to Python and not to pydantic."""
    message = refusal(f'{{"url": "{CANARY}\\ud800"}}'.encode(), Endpoint)
    assert message == "Pydantic validation failed for Endpoint: (document): json_invalid"


def test_a_model_that_pydantic_cannot_build_is_refused() -> None:
    """A name that the model cannot resolve is a fault of the type, told without a crash."""

    class Unfinished(BaseModel):
        other: NotThere  # type: ignore[name-defined]  # noqa: F821

    assert "PydanticUserError" in refusal({"other": CANARY}, Unfinished)


def test_models_nest_in_dataclasses() -> None:
    """Each part follows the rules of its own kind."""
    value = decoded(
        {"endpoint": {"url": "u"}, "strict": {"at": "2024-01-01T00:00:00Z", "tags": ["é"]}, "points": [{"x": 1}]}, Outer
    )
    assert value == Outer(
        Endpoint(url="u"), Strict(at=datetime(2024, 1, 1, tzinfo=timezone.utc), tags={"é"}), [PydanticPoint(1)]
    )
    message = refusal({"endpoint": {"url": CANARY}, "strict": {"tags": [CANARY]}, "points": [{}]}, Outer)
    assert message == (
        "Dataclass construction failed for Outer: /endpoint/url: value_error; /strict/at: missing; /points/0/x: missing"
    )


def test_dataclasses_nest_in_models() -> None:
    """pydantic builds them; what their ``__post_init__`` says stays unsaid."""
    assert decoded({"database": {"host": "a"}}, Around).database == Database("a")
    assert "/database/host: missing" in refusal({"database": {"port": CANARY}}, Around)
    assert "/parts/0: value_error" in refusal({"database": {"host": CANARY}, "parts": [{"size": -1}]}, Around)


def test_pydantic_is_not_imported_for_dicts_and_dataclasses() -> None:
    """Those who use no model do not pay for one."""
    program = (
        "import sys, dataclasses\n"
        "from config_client.decode import decode\n"
        "Point = dataclasses.make_dataclass('Point', [('x', int)])\n"
        "assert decode(b'{\"x\":1}', Point) == Point(1) and decode(b'{}', dict) == {}\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in {'pydantic', 'pydantic_core'}))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
