"""JSON scalars checked and turned into Python values: numbers, times, identifiers, paths, and fixed choices.

Knows single values; containers and classes are ``_conversion``'s. No value appears in a MisfitError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import NoneType
from typing import Final
from uuid import UUID

from ._hints import UnsupportedHintError, name_of
from ._misfit import MisfitError

Converter = Callable[[object], object]
"""Returns the value of the type it was compiled for, or raises MisfitError."""

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d(?:[.,]\d+)?)?(Z|z|[+-]\d\d(?::?\d\d)?)?)?\Z", re.ASCII
)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)


def anything(value: object) -> object:
    """Return ``value`` as it was parsed."""
    return value


def literal(kind: object, values: Iterable[object]) -> Converter:
    """Return the converter of ``Literal[values]``. Raises UnsupportedHintError for bytes, which JSON cannot spell."""
    choices = [(value.value if isinstance(value, Enum) else value, value) for value in values]
    if any(isinstance(spelled, bytes) for spelled, _ in choices):
        raise UnsupportedHintError(f"no JSON value becomes {name_of(kind)}")
    find = _choice(choices)

    def convert(value: object) -> object:
        for found in find(value):
            return found
        raise MisfitError.at_root(f"expected {name_of(kind)}, got another value")

    return convert


def enumeration(kind: type[Enum]) -> Converter:
    """Return the converter of an enumeration, whose members are spelled by their values.

    Raises UnsupportedHintError for one without members.
    """
    if not kind.__members__:
        raise UnsupportedHintError(f"{kind.__name__} has no members")
    find = _choice((member.value, member) for member in kind.__members__.values())

    def convert(value: object) -> object:
        for found in find(value):
            return found
        if isinstance(value, str):
            # The class may know further spellings (Enum._missing_); text needs no guard against 1 == True.
            # Whatever it raises for others repeats the value.
            with suppress(Exception):
                return kind(value)
        raise MisfitError.at_root(f"expected a value of {kind.__name__}, got another one")

    return convert


def _choice(choices: Iterable[tuple[object, object]]) -> Callable[[object], tuple[object, ...]]:
    """Return the look-up from a JSON value to the choice it spells, as a tuple of one or none.

    Types count, since ``1 == True == 1.0``; but as elsewhere an integer may stand for a float.
    """
    table: dict[object, object] = {}
    for spelled, choice in choices:
        for base in (bool, int, float, str, NoneType):
            if isinstance(spelled, base):
                table.setdefault((base, spelled), choice)
                break

    def find(value: object) -> tuple[object, ...]:
        if isinstance(value, (list, dict)):
            return ()
        kinds = (int, float) if type(value) is int else (type(value),)
        return tuple(table[kind, value] for kind in kinds if (kind, value) in table)

    return find


def _exactly(kind: type) -> Converter:
    name = name_of(kind)

    def convert(value: object) -> object:
        if type(value) is kind:
            return value
        raise MisfitError.expected(name, value)

    return convert


def _float(value: object) -> object:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise MisfitError.expected("float", value)
    try:
        return float(value)
    except OverflowError:
        pass
    raise MisfitError.at_root("expected float, got an integer beyond its range")


def _decimal(value: object) -> object:
    # repr(1.1) is "1.1": the shortest text of that float, and so most likely what the document said.
    text = repr(value) if type(value) in (int, float) else value
    if not isinstance(text, str):
        raise MisfitError.expected("Decimal", value)
    try:
        number = Decimal(text)
    except ArithmeticError:
        number = Decimal("NaN")
    if number.is_finite():
        return number
    raise MisfitError.at_root("expected Decimal, got text that does not spell a finite number")


def _spelled(kind: type, parse: Callable[[str], object]) -> Converter:
    def convert(value: object) -> object:
        if not isinstance(value, str):
            raise MisfitError.expected(f"{kind.__name__} (text)", value)
        try:
            return parse(value)
        except ValueError:
            pass
        raise MisfitError.at_root(f"expected {kind.__name__}, got text that does not spell one")

    return convert


def _parse_datetime(text: str) -> datetime:
    """Return the time that ISO 8601 ``text`` spells: naive when it names no offset, as the document has it.

    Rewritten to the form that Python 3.10 reads too: ``+00:00`` for ``Z``, six fraction digits, a colon in the offset.
    """
    match = _TIME.match(text)
    if match is None:
        raise ValueError
    day, clock, seconds, offset = match.groups()
    whole, _, fraction = (seconds or ":00").replace(",", ".").partition(".")
    zone = offset or ""
    if zone in {"Z", "z"}:
        zone = "+00:00"
    elif zone:
        zone = f"{zone[:3]}:{zone[3:].lstrip(':') or '00'}"
    return datetime.fromisoformat(f"{day}T{clock or '00:00'}{whole}.{fraction[:6]:0<6}{zone}")


def _parse_date(text: str) -> date:
    if _DAY.match(text) is None:
        raise ValueError
    return date.fromisoformat(text)


SCALARS: Final[dict[type, Converter]] = {
    NoneType: _exactly(NoneType),
    bool: _exactly(bool),
    int: _exactly(int),
    str: _exactly(str),
    float: _float,
    Decimal: _decimal,
    datetime: _spelled(datetime, _parse_datetime),
    date: _spelled(date, _parse_date),
    UUID: _spelled(UUID, UUID),
    **{kind: _spelled(kind, kind) for kind in (Path, PurePath, PurePosixPath, PureWindowsPath)},
}
"""Every class that a JSON scalar fills, and how."""
