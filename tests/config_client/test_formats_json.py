"""Parsing documents: what is a document, what is not, and that no error repeats what it held."""

import copy
import inspect
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.formats import MAX_DEPTH, DocumentError, parse_json_object, render
from config_client.types import Format

CANARY = "s3cr3t-canary"
BOTH = pytest.mark.parametrize("strict", [True, False])

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


def nested(levels: int) -> bytes:
    """Return a document of that many levels, arrays and objects in turn."""
    inner = "1"
    for level in range(levels, 1, -1):
        inner = f"[{inner}]" if level % 2 else f'{{"k":{inner}}}'
    return f'{{"a":{inner}}}'.encode()


def refusal(raw: bytes, *, strict: bool) -> DocumentError:
    """Return the error that parsing ``raw`` raises."""
    with pytest.raises(DocumentError) as caught:
        parse_json_object(raw, strict=strict)
    return caught.value


def attempt(raw: bytes, *, strict: bool) -> tuple[dict[str, object] | None, DocumentError | None]:
    """Return the document that ``raw`` holds, or the error that parsing it raises."""
    try:
        return parse_json_object(raw, strict=strict), None
    except DocumentError as error:
        return None, error


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything that it drags along."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is not None:
            yield current
            waiting += [current.__cause__, current.__context__]


@BOTH
@settings(deadline=None, max_examples=150)
@given(document=objects, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_any_json_object_is_read_as_it_was_written(
    document: dict[str, object], ascii_only: bool, indent: int | None, strict: bool
) -> None:
    """Whatever json writes for an object is accepted in both modes and read back with the same types."""
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert json.dumps(parse_json_object(raw, strict=strict)) == json.dumps(document)


@BOTH
@settings(deadline=None, max_examples=300)
@given(
    raw=st.binary(max_size=40)
    | st.text(alphabet='{}[]",:\\u0d8 \n1e9.-Nanulltrue', max_size=40).map(lambda text: text.encode())
    | st.text(alphabet='[]"\\', max_size=300).map(lambda text: b'{"a":' + text.encode())
)
def test_any_bytes_are_a_document_or_a_document_error(raw: bytes, strict: bool) -> None:
    """No input lets another exception out, and what is accepted is what json reads."""
    document, fault = attempt(raw, strict=strict)
    if fault is None:
        assert document == json.loads(raw.decode("utf-8-sig"))
    else:
        assert list(chain(fault)) == [fault]


@BOTH
@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        (b"{", "a key in double quotes is expected (line 1, column 2)"),
        (b'{"a"}', "a colon is expected (line 1, column 5)"),
        (b'{"a":}', "a value is expected (line 1, column 6)"),
        (b'{"a":1 "b":2}', "a comma or a closing bracket is expected (line 1, column 8)"),
        (b'{"a":1}\n{}', "something follows it (line 2, column 1)"),
        (b'{"a":"x', "does not end (line 1, column 6)"),
        (b'{"a":"x\ny"}', "must be escaped (line 1, column 8)"),
        (b'{"a":"\\x"}', "an escape that JSON does not have (line 1, column 7)"),
        (b'{"a":"\\u12g4"}', "an escape that JSON does not have"),
        (b"{'a':1}", "a key in double quotes is expected"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":\xa0 1}', "not UTF-8: invalid start byte at byte 5"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b"[]", "expected a JSON object, found an array"),
        (b'"x"', "expected a JSON object, found a string"),
        (b"true", "expected a JSON object, found a boolean"),
        (b"null", "expected a JSON object, found null"),
        (b"12", "expected a JSON object, found a number"),
        (b"1.5", "expected a JSON object, found a number"),
    ],
)
def test_what_is_not_one_json_object_is_refused_with_its_fault_and_place(
    raw: bytes, fragment: str, strict: bool
) -> None:
    """The message says what is wrong and where; the path is the whole document."""
    error = refusal(raw, strict=strict)
    assert fragment in str(error)
    assert error.path == ""


@BOTH
@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_outside_json_are_refused_by_path(constant: str, strict: bool) -> None:
    """NaN and the infinities are named, with the JSON Pointer of where they stand."""
    error = refusal(f'{{"a": [0, {{"b/c": {constant}}}], "d": NaN}}'.encode(), strict=strict)
    assert error.path == "/a/1/b~1c"
    assert str(error).startswith(f"/a/1/b~1c: {constant} is not JSON")


def test_a_fault_behind_a_repeated_key_is_refused_all_the_same() -> None:
    """Although the last of equal keys wins for a reader, NaN under the first one is not JSON; the first fault that
    was dropped with it is named."""
    error = refusal(b'{"a": [NaN, Infinity], "a": 1}', strict=False)
    assert error.path == ""
    assert str(error).startswith("NaN is not JSON")


def test_only_strict_parsing_refuses_a_byte_order_mark() -> None:
    """A publisher is told to leave the mark out; a reader skips it, once."""
    raw = b'\xef\xbb\xbf{"a":1}'
    assert "byte-order mark" in str(refusal(raw, strict=True))
    assert parse_json_object(raw, strict=False) == {"a": 1}
    assert "not JSON" in str(refusal(b"\xef\xbb\xbf" + raw, strict=False))


@pytest.mark.parametrize(
    ("raw", "path", "lenient"),
    [
        (b'{"a":1,"b":2,"a":3}', "/a", {"a": 3, "b": 2}),
        (b'{"x":[1,{"y":{"":1,"":2}}]}', "/x/1/y/", {"x": [1, {"y": {"": 2}}]}),
        (b'{"~a/b":{"\\u0041":1,"A":2}}', "/~0a~1b/A", {"~a/b": {"A": 2}}),
    ],
)
def test_only_strict_parsing_refuses_a_repeated_key(raw: bytes, path: str, lenient: object) -> None:
    """A publisher learns which key is repeated, even when its spellings differ; for a reader the last one wins."""
    error = refusal(raw, strict=True)
    assert error.path == path
    assert "given more than once" in str(error)
    assert parse_json_object(raw, strict=False) == lenient


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1.5E+400", "1" + "0" * 400 + ".0"])
def test_only_strict_parsing_refuses_a_number_beyond_a_double(number: str) -> None:
    """A publisher is told where the number is; a reader gets infinity, as from json itself."""
    raw = f'{{"a":{{"b":{number}}}}}'.encode()
    assert refusal(raw, strict=True).path == "/a/b"
    assert math.isinf(parse_json_object(raw, strict=False)["a"]["b"])  # type: ignore[index]


@BOTH
def test_integers_are_exact_up_to_a_fixed_number_of_digits(strict: bool) -> None:
    """4300 digits are read exactly, the sign not counted; one more is refused by path, whatever the interpreter's
    own limit is."""
    largest = "-" + "9" * 4300
    assert str(parse_json_object(f'{{"a":{largest}}}'.encode(), strict=strict)["a"]) == largest
    limit = sys.get_int_max_str_digits()
    try:
        for own_limit in (limit, 0):
            sys.set_int_max_str_digits(own_limit)
            error = refusal(f'{{"a":[{largest}9]}}'.encode(), strict=strict)
            assert error.path == "/a/0"
            assert "more digits" in str(error)
        sys.set_int_max_str_digits(640)
        assert refusal(f'{{"a":{largest}}}'.encode(), strict=strict).path == "/a"
    finally:
        sys.set_int_max_str_digits(limit)


@BOTH
def test_nesting_is_limited_exactly(strict: bool) -> None:
    """MAX_DEPTH levels pass, one more does not, and brackets inside strings and beside each other do not count."""
    assert parse_json_object(nested(MAX_DEPTH), strict=strict)
    error = refusal(nested(MAX_DEPTH + 1), strict=strict)
    assert f"deeper than {MAX_DEPTH} levels" in str(error)
    beside = b'{"b":' + b"[[]," * 60 + b"[]" + b"]" * 60 + b',"c":'
    assert parse_json_object(beside + nested(MAX_DEPTH - 1) + b"}", strict=strict)
    assert "deeper than" in str(refusal(beside + nested(MAX_DEPTH) + b"}", strict=strict))
    wide = json.dumps({"[" * 500: '\\"[{' * 500, "b": [[]] * 500, '\\"\\\\"': "{" * 500})
    assert parse_json_object(wide.encode(), strict=strict) == json.loads(wide)
    for deep in (nested(MAX_DEPTH + 1)[1:-1], b'"\\\\",' + nested(MAX_DEPTH)):
        assert "deeper than" in str(refusal(b'{"a":["\\"",{' + deep + b"}]}", strict=strict))


@BOTH
@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":[' * 100_000 + b"]}" * 100_000])
def test_hostile_nesting_cannot_exhaust_the_stack(raw: bytes, strict: bool) -> None:
    """Not even where the recursion limit was raised so far that the parser would crash the process."""
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(10_000_000)
        assert "deeper than" in str(refusal(raw, strict=strict))
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("unit", ['"', '\\"', "\\", '"\\', '\\"[', "${"])
def test_hostile_strings_take_linear_time(unit: str) -> None:
    """A megabyte of quotes, backslashes or brackets in any arrangement is refused within the test's time limit."""
    raw = ('{"a":[' + "[" * MAX_DEPTH + unit * (1_000_000 // len(unit))).encode()
    assert refusal(raw, strict=True).path == ""


@BOTH
def test_a_caller_close_to_the_recursion_limit_gets_the_document_or_a_document_error(strict: bool) -> None:
    """Whether parsing counts against the caller's stack depends on the interpreter; RecursionError never gets out."""
    limit = sys.getrecursionlimit()
    raw = nested(MAX_DEPTH)
    expected = json.loads(raw)
    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + 60)
        document, fault = attempt(raw, strict=strict)
    finally:
        sys.setrecursionlimit(limit)
    if fault is None:
        assert document == expected
    else:
        assert "the caller's stack" in str(fault)
        assert list(chain(fault)) == [fault]


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        '{{"a": "{0}"',
        '{{"a": {0}}}',
        '{{"a": "{0}" x}}',
        '{{"a": "\\q{0}"}}',
        '{{"a": "\x01{0}"}}',
        '{{"a": "{0}", "b": NaN}}',
        '["{0}"]',
        '"{0}"',
        '{{"a": "{0}\udc80"}}',
        "{0}",
        '{{"a": "{0}", "b": ' + "[" * 200 + "]" * 200 + "}}",
        '{{"a": "{0}", "b": ' + "1" * 5000 + "}}",
    ],
)
def test_no_error_repeats_the_document(text: str, strict: bool) -> None:
    """Neither the message nor an attribute nor a chained exception holds a value, for every kind of fault."""
    raw = text.format(CANARY).encode("utf-8", "surrogateescape")
    error = refusal(raw, strict=strict)
    assert list(chain(error)) == [error]
    assert CANARY not in f"{error!s} {error!r} {error.args!r} {vars(error)!r}"


def test_strict_faults_do_not_repeat_the_document_either() -> None:
    """A repeated key and an oversized number are told by path only."""
    for raw in (f'{{"a":"{CANARY}","a":"{CANARY}"}}', f'{{"a":"{CANARY}","b":1234567e999}}'):
        error = refusal(raw.encode(), strict=True)
        assert CANARY not in f"{error!r} {vars(error)!r}"
        assert "1234567" not in f"{error!r} {vars(error)!r}"


def test_a_path_is_fit_for_a_log_line_in_the_message_and_exact_in_the_attribute() -> None:
    """Line ends and half surrogates of a key are escaped and a long one is shortened, but only in the message."""
    error = refusal(b'{"a\\nb\\ud800": NaN}', strict=True)
    assert error.path == "/a\nb\ud800"
    assert str(error).startswith("/a\\nb\\ud800: NaN")
    key = "k" * 100_000
    error = refusal(f'{{"{key}": NaN}}'.encode(), strict=True)
    assert error.path == f"/{key}"
    assert len(str(error)) < 400


def test_a_document_error_survives_pickling_and_copying() -> None:
    """Message and path are the same on the other side of a process boundary."""
    error = refusal(b'{"a": NaN}', strict=True)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert isinstance(twin, DocumentError)
        assert (str(twin), twin.path) == (str(error), "/a")
    assert DocumentError("of the whole").path == ""


def test_json_is_rendered_as_the_bytes_that_were_published() -> None:
    """White space, spelling of numbers and order stay; nothing is parsed."""
    raw = b' {"b" : 1.10,\n"a":1e3}\n'
    assert render(raw, Format.JSON) is raw


@pytest.mark.integration
def test_the_sdk_loads_pyyaml_only_when_yaml_is_asked_for() -> None:
    """Importing the package and rendering ENV leave PyYAML alone; the first YAML loads it."""
    program = (
        "import sys, config_client\n"
        "from config_client.formats import Format, render\n"
        "render(b'{}', Format.ENV); assert 'yaml' not in sys.modules\n"
        "render(b'{}', Format.YAML); assert 'yaml' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
