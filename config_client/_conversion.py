"""Types compiled to functions that check a parsed JSON value and build an instance from it.

Knows what JSON can hold and which Python types it can fill; knows neither bytes nor the errors that users see.
A type is compiled once, so that decoding calls plain functions and never inspects an annotation.

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

from ._containers import Field, Later, Record, array, fixed_array, mapping, union
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
from ._misfit import MisfitError
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


class _Compiler:
    """One compilation, which remembers the named types it has begun."""

    def __init__(self) -> None:
        self._begun: dict[object, Later] = {}

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
            later = self._begun[kind] = Later()
            later.convert = build()
            return later.convert
        return later

    def _union(self, kind: object, members: Iterable[object], scope: Scope) -> Converter:
        kinds = [peel(member, scope) for member in members]
        # Null first, as it is cheap to tell; float last, so that an integer stays one where both are offered.
        ordered = sorted(kinds, key=lambda each: (each is not None and each is not NoneType, each is float))
        classes = [each for each in kinds if is_dataclass_type(each) or is_typed_dict(each) or is_type_alias(each)]
        converters = [self.compile(each, scope) for each in ordered]
        return union(name_of(kind), converters, several_classes=len(classes) > 1)

    def _array(self, kind: object, arguments: tuple[object, ...], scope: Scope) -> Converter:
        origin = get_origin(kind) or kind
        build = _ARRAYS[origin]
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return fixed_array(name_of(kind), [self.compile(argument, scope) for argument in arguments])
        return array(name_of(kind), self.compile(arguments[0], scope) if arguments else anything, build)

    def _mapping(self, kind: object, arguments: tuple[object, ...], scope: Scope) -> Converter:
        key, value = arguments or (str, Any)
        return mapping(name_of(kind), self._key(key, scope), self.compile(value, scope))

    def _key(self, hint: object, scope: Scope) -> Converter:
        kind = peel(hint, scope)
        if kind is str or kind is Any or kind is object:
            return anything
        if get_origin(kind) is Literal or (is_class(kind) and issubclass(kind, Enum)):
            return self.compile(kind, scope)
        raise UnsupportedHintError(f"{scope.where}: keys of a JSON object are text; they do not become {name_of(kind)}")

    def _record(self, kind: object, parameters: Iterator[Parameter], build: Callable[..., object]) -> Converter:
        fields = [self._required(each) if each.required else self._optional(each) for each in parameters]
        return Record(name_of(kind), fields, build)

    def _required(self, parameter: Parameter) -> Field:
        hint = peel(parameter.hint, parameter.scope)
        converter = self.compile(hint, parameter.scope)
        return Field(parameter.name, converter, f"missing, expected {name_of(hint)}", _is_tag(hint))

    def _optional(self, parameter: Parameter) -> Field:
        """Return a field that documents may leave out, and must leave out when JSON cannot fill it."""
        begun = dict(self._begun)
        try:
            hint = peel(parameter.hint, parameter.scope)
            return Field(parameter.name, self.compile(hint, parameter.scope), "", _is_tag(hint))
        except UnsupportedHintError as error:
            fault = str(error)
        # What was begun inside may refer to a type whose compilation failed, and which is never finished.
        self._begun = begun
        return Field(parameter.name, _refusal(f"{fault}; leave this field out of the document"), "", is_tag=False)


def _is_tag(hint: object) -> bool:
    return get_origin(hint) is Literal


def _refusal(fault: str) -> Converter:
    def convert(value: object) -> object:
        raise MisfitError.at_root(fault)

    return convert


def _model(kind: object) -> Converter:
    check = validator(kind)
    return lambda value: check(json.dumps(value).encode())
