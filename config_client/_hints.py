"""Annotations of a class, resolved to types: strings, type variables and wrappers peeled away.

Knows ``typing`` and ``dataclasses``. Knows nothing of documents, and so of no value that could leak.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Final, ForwardRef, Literal, NewType, TypeVar, Union, get_args, get_origin

_WRAPPERS: Final = frozenset({"Final", "Required", "NotRequired", "ReadOnly"})
"""Qualifiers around a type, by name: Python 3.10 has some of them only in ``typing_extensions``."""


class UnsupportedHintError(Exception):
    """An annotation that no JSON value can fill, or that cannot be resolved. Its text names types only."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What an annotation is read against: where it stands, the names it may use, and bound type variables."""

    where: str
    names: Mapping[str, object] = field(default_factory=dict)
    arguments: Mapping[object, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value that a class is built from."""

    name: str
    hint: object
    scope: Scope
    required: bool


def is_class(hint: object) -> bool:
    """Tell whether ``hint`` is a plain class. (On Python 3.10 ``isinstance(list[int], type)`` is true.)"""
    return isinstance(hint, type) and get_origin(hint) is None


def is_dataclass_type(hint: object) -> bool:
    """Tell whether ``hint`` is a dataclass, parametrised or not; an instance of one is not."""
    plain = get_origin(hint) or hint
    return isinstance(plain, type) and is_dataclass(plain)


def is_typed_dict(hint: object) -> bool:
    """Tell whether ``hint`` is a TypedDict, of ``typing`` or of ``typing_extensions``."""
    plain = get_origin(hint) or hint
    return isinstance(plain, type) and issubclass(plain, dict) and hasattr(plain, "__required_keys__")


def is_type_alias(hint: object) -> bool:
    """Tell whether ``hint`` is a ``type X = …`` alias (PEP 695), of ``typing`` or of ``typing_extensions``."""
    return type(get_origin(hint) or hint).__name__ == "TypeAliasType"


def dataclass_parameters(hint: object) -> Iterator[Parameter]:
    """Yield what ``__init__`` of the dataclass takes: fields and InitVars, not those with ``init=False``.

    Raises UnsupportedHintError when the signature cannot be read.
    """
    cls: Any = get_origin(hint) or hint
    scopes = _scopes(cls, get_args(hint))
    accepted = inspect.signature(cls.__init__).parameters
    ordinary = {each.name for each in fields(cls)}
    for name, each in cls.__dataclass_fields__.items():
        if name in accepted:
            # A Field is shared with the classes that inherit it; the most basic holder wrote the annotation.
            owner = [k for k in cls.__mro__ if vars(k).get("__dataclass_fields__", {}).get(name) is each][-1]
            yield Parameter(
                name=name,
                hint=each.type if name in ordinary else _init_var_hint(each.type),
                scope=replace(scopes[owner], where=f"{cls.__name__}.{name}"),
                required=accepted[name].default is inspect.Parameter.empty,
            )


def typed_dict_parameters(hint: object) -> Iterator[Parameter]:
    """Yield the keys of the TypedDict."""
    cls: Any = get_origin(hint) or hint
    scope = _scopes(cls, get_args(hint))[cls]
    for name, raw in cls.__annotations__.items():
        here = replace(scope, where=f"{cls.__name__}.{name}")
        annotation = _evaluate(raw, here) if isinstance(raw, (str, ForwardRef)) else raw
        # __required_keys__ cannot see a qualifier that is still text, as it is under postponed annotations.
        qualifier = _special_name(get_origin(annotation))
        required = qualifier == "Required" or (qualifier != "NotRequired" and name in cls.__required_keys__)
        yield Parameter(name, annotation, here, required)


def alias_value(hint: object, scope: Scope) -> tuple[object, Scope]:
    """Return what a ``type X = …`` alias stands for, and the scope in which to read it."""
    alias: Any = get_origin(hint) or hint
    arguments = dict(zip(alias.__type_params__, get_args(hint), strict=False))
    module = vars(sys.modules[alias.__module__]) if alias.__module__ in sys.modules else {}
    return alias.__value__, Scope(scope.where, module, arguments)


def peel(hint: object, scope: Scope) -> Any:
    """Return the type that ``hint`` stands for: no string, type variable, NewType, Annotated or qualifier around it.

    Raises UnsupportedHintError when a name cannot be resolved.
    """
    while True:
        if isinstance(hint, (str, ForwardRef)):
            hint = _evaluate(hint, scope)
        elif isinstance(hint, TypeVar):
            hint = scope.arguments[hint] if hint in scope.arguments else _default(hint)
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, InitVar):
            hint = hint.type
        elif hint is InitVar or hint is Final:
            return Any
        elif get_origin(hint) is Annotated or _special_name(get_origin(hint)) in _WRAPPERS:
            hint = get_args(hint)[0]
        else:
            return _close(hint, scope)


def name_of(hint: object) -> str:
    """Return the annotation as a person would write it, without modules. Never shows an instance's own repr."""
    if hint is None or hint is NoneType:
        return "None"
    if isinstance(hint, str):
        return hint
    if isinstance(hint, ForwardRef):
        return hint.__forward_arg__
    if hint is Ellipsis:
        return "..."
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union or origin is UnionType:
        return " | ".join(name_of(argument) for argument in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(repr(argument) for argument in arguments)}]"
    if origin is Annotated:
        return name_of(arguments[0])
    plain = origin or hint
    name = (
        plain.__name__ if isinstance(plain, type) else _special_name(plain) or f"an instance of {type(plain).__name__}"
    )
    return f"{name}[{', '.join(name_of(argument) for argument in arguments)}]" if arguments else name


def _scopes(cls: type[Any], arguments: tuple[object, ...]) -> dict[type, Scope]:
    """Return the scope of every class in the MRO, each with the type arguments its subclass gives it."""
    bound: dict[type, dict[object, object]] = {
        cls: dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    }
    scopes: dict[type, Scope] = {}
    for each in cls.__mro__:
        scope = scopes[each] = Scope(each.__name__, _names(each), bound.get(each, {}))
        for base in vars(each).get("__orig_bases__", ()):
            origin = get_origin(base)
            given = [peel(argument, scope) for argument in get_args(base)] if origin is not typing.Generic else []
            if isinstance(origin, type):
                bound.setdefault(origin, dict(zip(getattr(origin, "__parameters__", ()), given, strict=False)))
    return scopes


def _names(cls: type) -> Mapping[str, object]:
    """Return the names that an annotation of ``cls`` may use, in the order in which Python would look them up.

    The body of the class comes last: a field called like its type (``date: date | None = None``) hides it there.
    """
    module = sys.modules.get(cls.__module__)
    parameters = {each.__name__: each for each in getattr(cls, "__type_params__", ())}
    body = {cls.__name__: cls, **dict(vars(cls))}
    return ChainMap(parameters, _enclosing_names(cls), vars(module) if module else {}, body)


def _enclosing_names(cls: type) -> dict[str, object]:
    """Return the local names of the function that defines ``cls``, if it is still running up this stack."""
    function, inside, path = cls.__qualname__.rpartition(".<locals>.")
    if not inside:
        return {}
    name, outermost = function.rpartition(".")[2], path.partition(".")[0]
    frame = inspect.currentframe()
    while frame is not None:
        in_module = frame.f_globals.get("__name__") == cls.__module__
        if in_module and frame.f_code.co_name == name and outermost in frame.f_locals:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


def _evaluate(hint: str | ForwardRef, scope: Scope) -> object:
    # A class and not a function as holder: typing allows qualifiers such as Final only there.
    holder = type("holder", (), {"__annotations__": {"hint": hint}})
    try:
        resolved: object = typing.get_type_hints(holder, {}, scope.names, include_extras=True)["hint"]
    except Exception as error:  # evaluating an annotation may raise anything
        fault = type(error).__name__
    else:
        return resolved
    raise UnsupportedHintError(
        f"the annotation {name_of(hint)!r} of {scope.where} cannot be resolved ({fault}): define or import that type "
        "at module level, outside TYPE_CHECKING"
    )


def _close(hint: object, scope: Scope) -> object:
    """Return ``hint`` with the type variables inside it replaced, so that equal types compare equal."""
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or is_class(hint) or (is_type_alias(hint) and get_origin(hint) is None):
        return hint
    generic: Any = hint
    return generic[tuple(peel(parameter, scope) for parameter in parameters)]


def _default(variable: TypeVar) -> object:
    """Return what a type variable stands for when nobody says: its default, bound, constraints, else anything."""
    has_default = getattr(variable, "has_default", None)
    if has_default is not None and has_default():
        default: object = getattr(variable, "__default__", Any)
        return default
    if variable.__bound__ is not None:
        return variable.__bound__
    return Union[variable.__constraints__] if variable.__constraints__ else Any  # noqa: UP007 - of a tuple


def _init_var_hint(hint: object) -> object:
    """Return the type inside an InitVar that is still text; Python 3.10 refuses to evaluate the whole."""
    if not isinstance(hint, str):
        return hint
    _, bracket, inside = hint.partition("[")
    return inside.rpartition("]")[0] if bracket else Any


def _special_name(hint: object) -> str | None:
    """Return the name of an object of ``typing``; anything else may carry a value under these attributes."""
    if type(hint).__module__ not in {"typing", "typing_extensions"}:
        return None
    name: str | None = getattr(hint, "__name__", None) or getattr(hint, "_name", None)
    return name
