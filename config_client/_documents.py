"""JSON documents: one object as published, parsed without ever repeating what it holds.

Knows RFC 8259 (JSON), RFC 6901 (JSON Pointer) and the limits that keep a hostile document harmless. Knows nothing of
configs, transport or other formats. Errors show keys of a document, as part of a path, and never a value:
``json.JSONDecodeError`` and ``UnicodeDecodeError`` carry the whole document, so none of them is left in an error's
chain.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from .errors import ConfigClientError

MAX_DEPTH: Final = 100
"""Levels of objects and arrays that a document may have; its outermost object is the first."""
MAX_INTEGER_DIGITS: Final = 4300
"""Digits that an integer may have: CPython's own default, held here also where an interpreter lifts its limit,
because reading an integer takes time that grows with the square of its length."""
STACK_EXHAUSTED: Final = "the document is nested deeper than the caller's stack has room for; call with a shorter stack"
"""The message for a document within ``MAX_DEPTH`` that is handled by a caller close to the recursion limit."""

_BRACKET: Final = re.compile(r"[\[\]{}]")
_BLANK: Final = " \t\r\n"
_SHOWN_PATH: Final = 200
_SYNTAX: Final = {
    "Expecting value": "a value is expected",
    "Expecting property name": "a key in double quotes is expected",
    "Expecting ':'": "a colon is expected",
    "Expecting ','": "a comma or a closing bracket is expected",
    "Extra data": "the document has ended and something follows it",
    "Unterminated string": "a string that starts here does not end",
    "Invalid control character": "a control character inside a string must be escaped",
    "Invalid \\": "a string holds an escape that JSON does not have",
    "Illegal trailing comma": "a comma stands before a closing bracket",
}
"""Faults by the beginning of the text that ``json`` gives them; the rest of that text may quote the document."""


class DocumentError(ConfigClientError):
    """The document cannot be read, or has no faithful form in the format asked for.

    ``path`` is the JSON Pointer (RFC 6901) of what is at fault, or ``""`` when it is the document as a whole. Neither
    it nor the message holds a value of the document.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{shown(path)}: {message}" if path else message)
        self.path = path


class Spelled(str):
    """A number of a document as it was written there: ``1.10`` stays ``1.10``."""

    __slots__ = ()


def child(path: str, member: str | int) -> str:
    """Return the JSON Pointer of ``member``, a key or an index, of the value at ``path``."""
    return f"{path}/{str(member).replace('~', '~0').replace('/', '~1')}"


def shown(path: str) -> str:
    """Return ``path`` fit for one line of a log: unprintable characters escaped, the middle of a long path left out."""
    text = path if path.isprintable() else ascii(path)[1:-1]
    half = _SHOWN_PATH // 2
    return text if len(text) <= _SHOWN_PATH else f"{text[:half]}…{text[-half:]}"


def walk(document: object) -> Iterator[tuple[str, object]]:
    """Yield every value inside ``document`` with its JSON Pointer, in the document's order, itself first."""
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, dict):
            waiting.extend((child(path, key), member) for key, member in reversed(value.items()))
        elif isinstance(value, list):
            waiting.extend((child(path, index), value[index]) for index in reversed(range(len(value))))


def parse(raw: bytes, *, strict: bool, spelled: bool = False) -> dict[str, object]:
    """Return the object that ``raw`` holds, its numbers as ``Spelled`` when ``spelled``.

    Raises DocumentError as ``formats.parse_json_object`` describes.
    """
    text = _decoded(raw, strict=strict)
    _check_depth(text)
    document = _loaded(text, _Hooks(strict=strict, spelled=spelled))
    if not isinstance(document, dict):
        raise DocumentError(f"expected a JSON object, found {_kind(document)}; put the value under a key")
    return document


def _decoded(raw: bytes, *, strict: bool) -> str:
    if raw.startswith(codecs.BOM_UTF8):
        if strict:
            raise DocumentError("the document starts with a byte-order mark; send UTF-8 without one")
        raw = raw[len(codecs.BOM_UTF8) :]
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        fault = f"the document is not UTF-8: {error.reason} at byte {error.start}, counted from 0"
    else:
        if text.strip(_BLANK):
            return text
        fault = "the document is empty; the smallest one is {}"
    raise DocumentError(fault)


def _check_depth(text: str) -> None:
    """Raise DocumentError when ``text`` is nested too deeply.

    Done ahead of parsing, because the parser recurses: how deep it may go before it fails, or even exhausts the
    stack of the process, depends on the interpreter, its settings and the caller.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    # Without its escaped backslashes and quotes, a valid document alternates at every quote between structure and
    # string. What an invalid one does behind its first fault does not matter: the parser stops there.
    structure = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    depth = 0
    for bracket in _BRACKET.finditer(structure):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise DocumentError(f"the document is nested deeper than {MAX_DEPTH} levels; flatten it")


def _loaded(text: str, hooks: _Hooks) -> object:
    try:
        document: object = json.loads(
            text,
            parse_constant=hooks.constant,
            parse_int=hooks.integer,
            parse_float=hooks.fraction if hooks.strict else None,
            object_pairs_hook=hooks.members if hooks.strict else None,
        )
    except json.JSONDecodeError as error:
        kind = next((kind for start, kind in _SYNTAX.items() if error.msg.startswith(start)), "its syntax is wrong")
        fault = f"the document is not JSON: {kind} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        fault = STACK_EXHAUSTED
    else:
        if hooks.first is None:
            return document
        path, found = next(
            ((path, value) for path, value in walk(document) if isinstance(value, _Fault)), ("", hooks.first)
        )
        raise DocumentError(found.message, path if found.key is None else child(path, found.key))
    raise DocumentError(fault)


class _Fault:
    """Stands in the parsed document where a fault was found, so that its path can be told afterwards."""

    __slots__ = ("key", "message")

    def __init__(self, message: str, key: str | None) -> None:
        self.message = message
        self.key = key


class _Hooks:
    """What the JSON parser calls for numbers and objects; keeps the first fault found."""

    __slots__ = ("_spelled", "first", "strict")

    def __init__(self, *, strict: bool, spelled: bool) -> None:
        self.strict = strict
        self.first: _Fault | None = None
        self._spelled = spelled

    def constant(self, name: str) -> object:
        return self._fault(f"{name} is not JSON; use null or a string")

    def integer(self, digits: str) -> object:
        if len(digits) - digits.startswith("-") <= MAX_INTEGER_DIGITS:
            try:
                number = int(digits)
            except ValueError:  # the interpreter's own limit is set lower
                pass
            else:
                return Spelled(digits) if self._spelled else number
        return self._fault(f"an integer has more digits than can be read ({MAX_INTEGER_DIGITS}); use a string")

    def fraction(self, spelling: str) -> object:
        number = float(spelling)
        if math.isinf(number):
            return self._fault("a number is too large for a double; use a string")
        return Spelled(spelling) if self._spelled else number

    def members(self, pairs: list[tuple[str, object]]) -> object:
        document = dict(pairs)
        if len(document) == len(pairs):
            return document
        counts = Counter(key for key, _ in pairs)
        return self._fault("the key is given more than once; keep one", next(key for key in counts if counts[key] > 1))

    def _fault(self, message: str, key: str | None = None) -> _Fault:
        fault = _Fault(message, key)
        self.first = self.first or fault
        return fault


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str) and not isinstance(value, Spelled):
        return "a string"
    if isinstance(value, bool):
        return "a boolean"
    return "null" if value is None else "a number"
