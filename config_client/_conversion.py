"""Types compiled to functions that check a parsed JSON value and build an instance from it.

Knows what JSON can hold and which Python types it can fill; knows neither bytes nor the errors that users see.
A type is compiled once, so that decoding walks plain closures and never inspects an annotation.

The rules are strict, because a configuration that is silently bent is worse than one that is refused: text is no
number, ``true`` is no integer, ``1.0`` is no integer. Two things bend: an integer fills a float, and fields that the
type does not know are ignored, so that a document may grow before the programs that read it do.
"""

from __future__ import annotations

import json
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from ._hints import (
    Parameter,
    Scope,
    UnsupportedHintError,
    alias_value,
    dataclass_parameters,
    is_class,
    is_dataclass_type,
    is_type_alias,
    is_typed_dict,
    name_of,
    peel,
    typed_dict_parameters,
)
from ._misfit import MisfitError, Problem
from ._models import is_model, validator
from ._scalars import SCALARS, Converter, anything, enumeration, literal

_ARRAYS: Final[dict[object, Callable[[list[object]], object]]] = {
    list: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Iterable: list,
    tuple: tuple,
    set: set,
    abc.MutableSet: set,
    frozenset: frozenset,
    abc.Set: frozenset,
}
"""Types that an array fills, and what builds each from the converted items."""

_OBJECTS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
"""Types that an object fills with whatever keys it has; all become a dict."""


def compile_type(hint: object) -> Converter:
    """Return the converter for ``hint``. Raises UnsupportedHintError when no JSON value can fill it."""
    return _Compiler().compile(hint, Scope(name_of(hint)))


class _Later:
    """Stands in for a converter that is still being compiled, which is how a type may contain itself."""

    __slots__ = ("convert",)
    convert: Converter

    def __call__(self, value: object) -> object:
        return self.convert(value)


class _Compiler:
    """One compilation, which remembers the named types it has begun."""

    def __init__(self) -> None:
        self._begun: dict[object, _Later] = {}

    def compile(self, hint: object, scope: Scope) -> Converter:
        kind = peel(hint, scope)
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is None:
            return SCALARS[NoneType]
        if is_model(kind):
            return _model(kind)
        if is_class(kind) and kind in SCALARS:
            return SCALARS[kind]
        if kind is Any or kind is object:
            return anything
        if origin is Union or origin is UnionType:
            return self._union(kind, arguments, scope)
        if origin is Literal:
            return literal(kind, arguments)
        if is_class(kind) and issubclass(kind, Enum):
            return enumeration(kind)
        if (origin or kind) in _ARRAYS:
            return self._array(kind, arguments, scope)
        if (origin or kind) in _OBJECTS:
            return self._mapping(kind, arguments, scope)
        if is_type_alias(kind):
            return self._once(kind, lambda: self.compile(*alias_value(kind, scope)))
        if is_typed_dict(kind):
            return self._once(kind, lambda: self._record(kind, typed_dict_parameters(kind), dict))
        if is_dataclass_type(kind):
            return self._once(kind, lambda: self._record(kind, dataclass_parameters(kind), origin or kind))
        raise UnsupportedHintError(f"{scope.where}: no JSON value becomes {name_of(kind)}")

    def _once(self, kind: object, build: Callable[[], Converter]) -> Converter:
        later = self._begun.get(kind)
        if later is None:
            later = self._begun[kind] = _Later()
            later.convert = build()
            return later.convert
        return later

    def _union(self, kind: object, members: Iterable[object], scope: Scope) -> Converter:
        kinds = [peel(member, scope) for member in members]
        # Null first, as it is cheap to tell; float last, so that an integer stays one where both are offered.
        ordered = sorted(kinds, key=lambda each: (each is not None and each is not NoneType, each is float))
        return _first_fit(name_of(kind), [self.compile(each, scope) for each in ordered])

    def _array(self, kind: object, arguments: tuple[object, ...], scope: Scope) -> Converter:
        origin = get_origin(kind) or kind
        build = _ARRAYS[origin]
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return _fixed_array(name_of(kind), [self.compile(argument, scope) for argument in arguments])
        return _array(name_of(kind), self.compile(arguments[0], scope) if arguments else anything, build)

    def _mapping(self, kind: object, arguments: tuple[object, ...], scope: Scope) -> Converter:
        key, value = arguments or (str, Any)
        return _mapping(name_of(kind), self._key(key, scope), self.compile(value, scope))

    def _key(self, hint: object, scope: Scope) -> Converter:
        kind = peel(hint, scope)
        if kind is str or kind is Any or kind is object:
            return anything
        if get_origin(kind) is Literal or (is_class(kind) and issubclass(kind, Enum)):
            return self.compile(kind, scope)
        raise UnsupportedHintError(f"{scope.where}: keys of a JSON object are text; they do not become {name_of(kind)}")

    def _record(self, kind: object, parameters: Iterator[Parameter], build: Callable[..., object]) -> Converter:
        fields = []
        for parameter in parameters:
            expected = f"missing, expected {name_of(parameter.hint)}" if parameter.required else ""
            fields.append((parameter.name, self.compile(parameter.hint, parameter.scope), expected))
        return _record(name_of(kind), fields, build)


def _record(name: str, fields: list[tuple[str, Converter, str]], build: Callable[..., object]) -> Converter:
    """Return the converter of a class with known fields: name, converter, and what to say when it is missing."""

    def convert(value: object) -> object:
        if not isinstance(value, dict):
            raise MisfitError.expected(f"{name} (an object)", value)
        arguments: dict[str, object] = {}
        problems: list[Problem] = []
        for field, convert_field, missing in fields:
            if field in value:
                try:
                    arguments[field] = convert_field(value[field])
                except MisfitError as misfit:
                    problems += misfit.under(field)
            elif missing:
                problems.append(Problem((field,), missing))
        if problems:
            raise MisfitError(problems)
        try:
            return build(**arguments)
        except Exception as error:  # __post_init__ may raise anything, and its text may hold anything
            fault = type(error).__name__
        raise MisfitError.at_root(f"{name} refused its values with {fault}")

    return convert


def _array(name: str, item: Converter, build: Callable[[list[object]], object]) -> Converter:
    def convert(value: object) -> object:
        if not isinstance(value, list):
            raise MisfitError.expected(name, value)
        items: list[object] = []
        problems: list[Problem] = []
        for index, entry in enumerate(value):
            try:
                items.append(item(entry))
            except MisfitError as misfit:
                problems += misfit.under(index)
        if problems:
            raise MisfitError(problems)
        try:
            return build(items)
        except TypeError:
            pass
        raise MisfitError.at_root(f"expected {name}, got items that cannot be members of a set")

    return convert


def _fixed_array(name: str, items: list[Converter]) -> Converter:
    def convert(value: object) -> object:
        if not isinstance(value, list):
            raise MisfitError.expected(name, value)
        if len(value) != len(items):
            raise MisfitError.at_root(f"expected {name}, got {len(value)} items")
        converted: list[object] = []
        problems: list[Problem] = []
        for index, (item, entry) in enumerate(zip(items, value, strict=True)):
            try:
                converted.append(item(entry))
            except MisfitError as misfit:
                problems += misfit.under(index)
        if problems:
            raise MisfitError(problems)
        return tuple(converted)

    return convert


def _mapping(name: str, convert_key: Converter, convert_value: Converter) -> Converter:
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


def _first_fit(name: str, members: list[Converter]) -> Converter:
    """Return the converter of a union: the first member, in the order written, that takes the value."""

    def convert(value: object) -> object:
        inside: list[MisfitError] = []
        for member in members:
            try:
                return member(value)
            except MisfitError as misfit:
                if any(problem.path for problem in misfit.problems):
                    inside.append(misfit)
        # A member that took the value's outer form is the one that was meant: tell what is wrong inside it.
        raise inside[0] if len(inside) == 1 else MisfitError.expected(name, value)

    return convert


def _model(kind: object) -> Converter:
    check = validator(kind)
    return lambda value: check(json.dumps(value).encode())
