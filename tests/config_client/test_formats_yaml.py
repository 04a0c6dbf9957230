"""Documents as YAML: read the same by YAML 1.1 and by the YAML 1.2 core schema, or refused."""

import inspect
import json
import re
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import config_client
from config_client.errors import ConfigClientError
from config_client.formats import MAX_DEPTH, DocumentError, render
from config_client.types import Format

# YAML 1.2.2, §10.3.2: what a plain scalar stands for in the core schema.
CORE_SCHEMA = {
    "tag:yaml.org,2002:null": re.compile(r"(?:null|Null|NULL|~|)\Z"),
    "tag:yaml.org,2002:bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "tag:yaml.org,2002:int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}


class CoreLoader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the types of the YAML 1.2 core schema."""


CoreLoader.yaml_implicit_resolvers = {}
for _tag, _pattern in CORE_SCHEMA.items():
    CoreLoader.add_implicit_resolver(_tag, _pattern, None)
# Rendered numbers are plain decimal ones: anything else that resolves to a number fails here, as it should.
CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
CoreLoader.add_constructor("tag:yaml.org,2002:float", lambda _, node: float(node.value))

LOADERS = [yaml.SafeLoader, CoreLoader] + ([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])

# Escaped in the output: what ends a line in one version of YAML only, controls, and a byte-order mark.
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

AMBIGUOUS = r"""
    y n Y N yes no Yes NO on off On OFF true false True FALSE null Null NULL ~
    0 1 -1 +1 00 07 08 0o17 0O17 0x1F 0b11 1_000 0_1 12:30 12:30:00 1:59.5 -190:20:30
    1.0 .5 5. 1. 1e3 1E3 1e+3 1.5e-3 -1e3 +.5 ._5 1__0.5 685_230.15
    .inf -.inf +.Inf .INF .nan .NaN .NAN inf nan Infinity
    2020-01-01 2020-1-1 2020-01-01T00:00:00Z 2001-12-14t21:59:43.10-05:00
    = << - ? : , [ ] { } # & * ! | > % @ ` ' " \ -- --- ... !!str !x &a *a - ? - :a a: a:b :: #a a#b
    0xdeadbeef 1.2.3 10.0.0.1 +49 00:00 1/2 50% a,b [a] {a} {a:1}
""".split()  # noqa: SIM905 - a hundred quoted words would hide what they are
AWKWARD = [
    "",
    " ",
    " a",
    "a ",
    "a: b",
    "a #b",
    "- a",
    "? a",
    "---\na",
    "...",
    "a\n...",
    "\n",
    "\n\n",
    "a\n",
    "a\n\n",
    "\na",
    "a\n b\n\n  c\n",
    " a\nb",
    "a \nb",
    "a\n \nb",
    "a\r\nb",
    "a\tb",
    "\ta",
    "a\n\tb",
    "a\x85b",
    "a\u2028b\u2029",
    "\ufeffa",
    "a\x00b\x1b\x7f\x9f",
    "\xa0",
    "Ünïcödé",
    "😀",
    "😀\n😀",
    "٣",
    "\ufffe\uffff",
    "x" * 2000,
    "x y " * 500,
    "# comment\nkey: value\n",
    "%YAML 1.2\n---\n",
    "'\"",
    "it's",
    'say "hi"',
    "back\\slash",
    "\u0661\u0662",
]

characters = st.characters(codec="utf-8") | st.sampled_from(
    " \n\t\r'\"\\:#-?,[]{}&*!|>%@`~=<.+_0123456789eExXynYN/\x85\u2028\u2029\ufeff"
)
texts = st.text(characters, max_size=12) | st.sampled_from(AMBIGUOUS + AWKWARD)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
documents = st.dictionaries(
    texts,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)),
    max_size=5,
)


def to_yaml(document: object) -> str:
    """Return ``document`` as the YAML that its JSON is rendered to."""
    return render(json.dumps(document, ensure_ascii=False).encode(), Format.YAML).decode()


def assert_read_back(document: object) -> None:
    """Every loader reads the rendered document with the same values, types and order of keys."""
    rendered = to_yaml(document)
    for loader in LOADERS:
        assert json.dumps(yaml.load(rendered, Loader=loader)) == json.dumps(document), loader
    assert not UNSAFE.search(rendered)


@settings(deadline=None, max_examples=250)
@given(document=documents)
def test_any_document_is_read_back_by_every_version_of_yaml(document: dict[str, object]) -> None:
    """Values, types and the order of keys survive, whatever the strings look like."""
    assert_read_back(document)


@pytest.mark.parametrize("text", AMBIGUOUS + AWKWARD)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    """As a value, as a key, in a list and beside its neighbours, a string is read back as the same string."""
    assert_read_back({"a": text, text: [text, [text], {text: text}], "z": {"a": {text: None}}})


@pytest.mark.parametrize(
    "text", [text for text in AMBIGUOUS if text not in ("inf", "nan", "Infinity", "a:b", "a#b", "a,b")]
)
def test_text_that_any_version_might_type_is_quoted(text: str) -> None:
    """No plain scalar is left to a reader's idea of numbers, dates, booleans, null, merge and default keys."""
    assert to_yaml({"k": text}).startswith(("k: '", 'k: "'))
    key_line = to_yaml({text: 1})
    assert key_line.startswith(("'", '"'))


@pytest.mark.parametrize("text", ["plain", "two words", "/var/lib/data", "_private", "a:b", "v1.2.3", "Größe", "日本"])
def test_ordinary_text_needs_no_quotes(text: str) -> None:
    """Faithfulness does not cost readability where nothing is ambiguous."""
    assert to_yaml({text: text}) == f"{text}: {text}\n"


def test_the_layout_is_block_style_in_the_order_of_the_document() -> None:
    """Nothing is sorted, folded, escaped or aliased; line ends become a literal block; empty containers stay."""
    pem = "-----BEGIN KEY-----\nabc\n  def\n-----END KEY-----\n"
    shared = {"b": 1, "a": [1, [2.5, True], None, {}]}
    long = "word " * 40 + "end"
    assert to_yaml({"z": shared, "x": shared, "key": pem, "long": long, "ß": "😀 é", "none": {}, "list": []}) == (
        "z:\n  b: 1\n  a:\n  - 1\n  - - 2.5\n    - true\n  - null\n  - {}\n"
        "x:\n  b: 1\n  a:\n  - 1\n  - - 2.5\n    - true\n  - null\n  - {}\n"
        "key: |\n  -----BEGIN KEY-----\n  abc\n    def\n  -----END KEY-----\n"
        f"long: {long}\nß: '😀 é'\nnone: {{}}\nlist: []\n"
    )


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("a\nb", "|-\n  a\n  b"),
        ("a\n\n  b #c: d\n", "|\n  a\n\n    b #c: d"),
        ("---\n...\n", "|\n  ---\n  ..."),
        ("\n", r'"\n"'),
        ("\na", r'"\na"'),
        (" a\nb", r'" a\nb"'),
        ("a \nb", r'"a \nb"'),
        ("a\nb ", r'"a\nb "'),
        ("a\nb\n\n", r'"a\nb\n\n"'),
        ("a\n\tb", r'"a\n\tb"'),
        ("a\r\nb", r'"a\r\nb"'),
        ("a\u2028b", r'"a\Lb"'),
    ],
)
def test_lines_are_a_literal_block_unless_readers_disagree_about_it(text: str, rendered: str) -> None:
    """Blanks at either end of a line, an empty line at either end of the text and foreign line ends are escaped."""
    assert to_yaml({"k": [text]}) == f"k:\n- {rendered}\n"


def test_an_empty_document_is_an_empty_mapping() -> None:
    """Not an empty file, which YAML reads as null."""
    assert to_yaml({}) == "{}\n"


@pytest.mark.parametrize(
    ("number", "rendered"),
    [
        ("9007199254740993", "9007199254740993"),
        ("-" + "9" * 4300, "-" + "9" * 4300),
        ("-0", "0"),
        ("1.10", "1.1"),
        ("1e3", "1000.0"),
        ("1E400", None),
        ("1e22", "1.0e+22"),
        ("-0.0", "-0.0"),
        ("5e-324", "5.0e-324"),
        ("0.1", "0.1"),
    ],
)
def test_numbers_are_exact_integers_and_doubles(number: str, rendered: str | None) -> None:
    """An integer keeps every digit, a fraction is the shortest spelling of its double that both versions read."""
    raw = f'{{"num":{number}}}'.encode()
    if rendered is None:
        with pytest.raises(DocumentError, match=r"^/num: "):
            render(raw, Format.YAML)
    else:
        assert render(raw, Format.YAML).decode() == f"num: {rendered}\n"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (rb'{"a":{"b":["ok","\ud800 secret"]}}', "/a/b/1"),
        (rb'{"a":[{"\udfff":{"x":1}}]}', "/a/0/\udfff"),
        (rb'{"\ude00\ud83d":1}', "/\ude00\ud83d"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_by_path(raw: bytes, path: str) -> None:
    """No YAML reader takes one, so the path of the string or key is named instead."""
    with pytest.raises(DocumentError) as caught:
        render(raw, Format.YAML)
    assert caught.value.path == path
    assert "secret" not in f"{caught.value!r}"


@pytest.mark.parametrize("raw", [b'{"a":1,"a":2}', b'{"a":NaN}', b"[]", b"{", b""])
def test_what_could_not_have_been_published_is_not_rendered(raw: bytes) -> None:
    """Rendering reads as strictly as publishing does, so that nothing is dropped in silence."""
    for fmt in (Format.YAML, Format.ENV):
        with pytest.raises(DocumentError):
            render(raw, fmt)


def test_the_deepest_document_is_rendered_and_read_back() -> None:
    """MAX_DEPTH levels of objects and arrays pass through the emitter."""
    document: object = "x"
    for level in range(MAX_DEPTH, 0, -1):
        document = [document] if level % 2 == 0 else {"k": document}
    assert_read_back(document)


def test_a_caller_close_to_the_recursion_limit_gets_a_document_error() -> None:
    """The emitter needs some hundred frames for a deep document; RecursionError never gets out of rendering."""
    raw = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert render(raw, Format.YAML)
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + 180)
        with pytest.raises(DocumentError) as caught:
            render(raw, Format.YAML)
    finally:
        sys.setrecursionlimit(limit)
    assert "the caller's stack" in str(caught.value)
    assert caught.value.__context__ is None


def test_a_missing_pyyaml_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for YAML without PyYAML learns what to install, and the other formats still work."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "config_client._yaml", raising=False)
    monkeypatch.delattr(config_client, "_yaml", raising=False)
    with pytest.raises(ConfigClientError, match=r"python-config-client\[server\]") as caught:
        render(b'{"a":1}', Format.YAML)
    assert not isinstance(caught.value, DocumentError)
    assert render(b'{"a":1}', Format.ENV) == b"A=1\n"
