"""Opened payloads decoded: bytes → dict, dataclass or pydantic v2 model.

Knows JSON documents and types. Knows nothing of where the bytes came from. Decides which kind of target a type is and
is the one place where a fault of the document becomes an UnmarshalError, whose text names places and types and never
a value. Errors are raised outside the handlers of what caused them, because a cause carries the document along:
``JSONDecodeError.doc``, pydantic's inputs, the text of whatever a ``__post_init__`` raised.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, cast, get_origin

from ._conversion import compile_type
from ._hints import UnsupportedHintError, is_class, is_dataclass_type, is_typed_dict, name_of
from ._misfit import MisfitError
from ._models import is_model, validator
from .errors import UnmarshalError
from .formats import DocumentError, parse_json_object

T = TypeVar("T")


def decode(raw: bytes, target_type: type[T]) -> T:
    """Return the JSON object ``raw`` as ``target_type``.

    ``target_type`` is ``dict`` (also ``dict[str, X]`` or a TypedDict), a dataclass, or a pydantic v2 model. Fields
    that the type does not know are ignored, defaults fill what is missing, and types are checked, not coerced; a
    pydantic model follows its own rules instead. Datetimes without an offset stay naive.

    Raises UnmarshalError when the type is not supported (before ``raw`` is looked at), when ``raw`` is not a JSON
    object, or when it does not fit.
    """
    return decoder(target_type)(raw)


def attempt(read: Callable[[bytes], T], raw: bytes) -> T | UnmarshalError:
    """Return what ``read`` makes of ``raw``, or the error, without the frames that hold the document."""
    try:
        return read(raw)
    except UnmarshalError as error:
        return error.with_traceback(None)


def decoder(target_type: type[T]) -> Callable[[bytes], T]:
    """Return the function that decodes documents into ``target_type``, compiled once per class.

    Raises UnmarshalError when the type is not supported: ask before fetching, and a mistake costs no request.
    """
    # Unions are equal whatever the order of their members, so parametrised types would share a wrong entry.
    build = _decoder_of_class if is_class(target_type) else _build
    return cast("Callable[[bytes], T]", build(target_type))


def _build(target_type: object) -> Callable[[bytes], object]:
    try:
        decode_target = _select(target_type)
    except UnsupportedHintError as error:
        fault = str(error)
    except Exception as error:  # reading a foreign class may run anything: metaclasses, descriptors, validators
        fault = f"{type(error).__name__} while reading its annotations"
    else:
        return decode_target
    raise UnmarshalError(f"Unsupported target_type {name_of(target_type)}: {fault}")


_decoder_of_class = lru_cache(maxsize=512)(_build)


def _select(target_type: object) -> Callable[[bytes], object]:
    name = name_of(target_type)
    if target_type is dict:
        return _parse
    if is_model(target_type):
        check = validator(target_type)
        return lambda raw: _fit(check, _checked(raw), f"Pydantic validation failed for {name}")
    if is_dataclass_type(target_type):
        convert = compile_type(target_type)
        return lambda raw: _fit(convert, _parse(raw), f"Dataclass construction failed for {name}")
    if is_typed_dict(target_type) or get_origin(target_type) is dict:
        convert = compile_type(target_type)
        return lambda raw: _fit(convert, _parse(raw), f"Document does not fit {name}")
    raise UnsupportedHintError("use dict, a dataclass or a pydantic v2 model")


S = TypeVar("S")


def _fit(convert: Callable[[S], object], source: S, failure: str) -> object:
    try:
        return convert(source)
    except MisfitError as misfit:
        fault = str(misfit)
    except Exception as error:  # such as RecursionError; its text may hold anything
        fault = type(error).__name__
    raise UnmarshalError(f"{failure}: {fault}")


def _parse(raw: bytes) -> dict[str, object]:
    try:
        return parse_json_object(raw, strict=False)
    except DocumentError as error:
        fault = str(error)
    raise UnmarshalError(fault)


def _checked(raw: bytes) -> bytes:
    """Return ``raw`` as pydantic's own parser reads it, having held it to the same rules as every other document."""
    _parse(raw)
    return raw.removeprefix(codecs.BOM_UTF8)
