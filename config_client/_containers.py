"""Arrays, objects, classes and unions of already compiled converters.

Knows how values nest, and gathers every fault inside one with its place; knows nothing of annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

from ._misfit import MisfitError, Problem
from ._scalars import Converter


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a class. ``missing`` is what to say without it, empty when it has a default.

    A tag is a field of literals, by which a class is told from the others of a union.
    """

    name: str
    convert: Converter
    missing: str
    is_tag: bool


class Record:
    """The converter of a class with known fields."""

    __slots__ = ("_build", "_fields", "_name", "_required", "_tags")

    def __init__(self, name: str, fields: Sequence[Field], build: Callable[..., object]) -> None:
        self._name = name
        self._fields = [(field.name, field.convert, field.missing) for field in fields]
        self._required = [field.name for field in fields if field.missing]
        self._tags = [(field.name, field.convert) for field in fields if field.is_tag]
        self._build = build

    def __call__(self, value: object) -> object:
        if not isinstance(value, dict):
            raise MisfitError.expected(f"{self._name} (an object)", value)
        arguments: dict[str, object] = {}
        problems: list[Problem] = []
        for name, convert, missing in self._fields:
            if name in value:
                try:
                    arguments[name] = convert(value[name])
                except MisfitError as misfit:
                    problems += misfit.under(name)
            elif missing:
                problems.append(Problem((name,), missing))
        if problems:
            raise MisfitError(problems)
        try:
            return self._build(**arguments)
        except Exception as error:  # __post_init__ may raise anything, and its text may hold anything
            fault = type(error).__name__
        raise MisfitError.at_root(f"{self._name} refused its values with {fault}")

    def may_take(self, value: object) -> bool:
        """Tell, without looking deeper, whether ``value`` has what the class requires and carries its tags."""
        return (
            isinstance(value, dict)
            and all(name in value for name in self._required)
            and all(_takes(convert, value[name]) for name, convert in self._tags if name in value)
        )


class Later:
    """Stands in for a converter that is still being compiled, which is how a type may contain itself."""

    __slots__ = ("convert",)
    convert: Converter

    def __call__(self, value: object) -> object:
        return self.convert(value)


def array(name: str, item: Converter, build: Callable[[list[object]], object]) -> Converter:
    """Return the converter of an array of any length, whose items ``build`` makes into a list, tuple or set."""

    def convert(value: object) -> object:
        if not isinstance(value, list):
            raise MisfitError.expected(name, value)
        items = _convert_items(repeat(item), value)
        try:
            return build(items)
        except TypeError:
            pass
        raise MisfitError.at_root(f"expected {name}, got items that cannot be members of a set")

    return convert


def fixed_array(name: str, items: Sequence[Converter]) -> Converter:
    """Return the converter of a tuple with a type for each place."""

    def convert(value: object) -> object:
        if not isinstance(value, list):
            raise MisfitError.expected(name, value)
        if len(value) != len(items):
            raise MisfitError.at_root(f"expected {name}, got {len(value)} items")
        return tuple(_convert_items(items, value))

    return convert


def mapping(name: str, convert_key: Converter, convert_value: Converter) -> Converter:
    """Return the converter of an object with keys of its own choosing."""

    def convert(value: object) -> object:
        if not isinstance(value, dict):
            raise MisfitError.expected(f"{name} (an object)", value)
        converted: dict[object, object] = {}
        problems: list[Problem] = []
        for key, entry in value.items():
            try:
                converted[convert_key(key)] = convert_value(entry)
            except MisfitError as misfit:
                problems += misfit.under(key)
        if problems:
            raise MisfitError(problems)
        return converted

    return convert


def union(name: str, members: Sequence[Converter], *, several_classes: bool) -> Converter:
    """Return the converter of a union: the first member, in the order given, that takes the value.

    Among several classes the outside of an object decides which are tried. Trying all in full would convert what is
    inside once for each, at every level: for types that contain themselves, in time exponential in the depth.
    """

    def convert(value: object) -> object:
        inside: list[MisfitError] = []
        for member in members:
            if several_classes and not _may_take(member, value):
                continue
            try:
                return member(value)
            except MisfitError as misfit:
                if any(problem.path for problem in misfit.problems):
                    inside.append(misfit)
        # The one member that got past the outside of the value was meant: tell what is wrong inside.
        raise inside[0] if len(inside) == 1 else MisfitError.expected(name, value)

    return convert


def _convert_items(converters: Iterable[Converter], entries: list[object]) -> list[object]:
    items: list[object] = []
    problems: list[Problem] = []
    for index, (convert, entry) in enumerate(zip(converters, entries, strict=False)):
        try:
            items.append(convert(entry))
        except MisfitError as misfit:
            problems += misfit.under(index)
    if problems:
        raise MisfitError(problems)
    return items


def _takes(convert: Converter, value: object) -> bool:
    try:
        convert(value)
    except MisfitError:
        return False
    return True


def _may_take(member: Converter, value: object) -> bool:
    settled = member.convert if isinstance(member, Later) else member
    return not isinstance(settled, Record) or settled.may_take(value)
