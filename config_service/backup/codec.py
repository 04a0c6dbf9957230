"""Records ↔ JSON objects, derived from the records themselves: a field that is added to one is in every backup.

Knows dataclasses and JSON. Knows neither what a record means nor where it is kept.

A record is an object of one member, named after its kind, whose value has a member for every field of the dataclass.
Bytes are base64 (RFC 4648 §4), times RFC 3339 as everywhere else, enums their values, tuples arrays, sets sorted
arrays, dataclasses objects, and None is null.
"""

from __future__ import annotations

import dataclasses
import types
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from config_client.protocol import format_timestamp, parse_timestamp

from ..domain.records import Draft, LogEntry, Record, SealCheck, StoredSchema, StoredToken, Version, WrappedKey

KINDS: Final[Mapping[str, type[Any]]] = {
    "check": SealCheck,
    "draft": Draft,
    "log": LogEntry,
    "version": Version,
    "schema": StoredSchema,
    "token": StoredToken,
    "key": WrappedKey,
}
"""What a record is called in a file. A test holds it against ``Record``."""
_NAMES: Final = {kind: name for name, kind in KINDS.items()}


class RecordError(ValueError):
    """This is no record that this version of the service knows. The message holds no value of it."""


def encode_record(record: Record) -> dict[str, object]:
    """Return ``record`` as a JSON object."""
    return {_NAMES[type(record)]: _encode(record)}


def decode_record(value: object) -> Record:
    """Return the record that ``encode_record`` made ``value`` of.

    A field that has a default may be missing, as in a backup that is older than the field. Raises RecordError.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise RecordError("a record is a JSON object of one member")
    ((name, fields),) = value.items()
    kind: Any = KINDS.get(name)
    if kind is None:
        raise RecordError("a record of an unknown kind: was it written by a newer version of the service?")
    try:
        record: Record = _decoder(kind)(fields)
    except RecordError:
        raise
    except (ValueError, TypeError, OverflowError):
        pass
    else:
        return record
    raise RecordError(f"a {name} that cannot be read")


def _encode(value: object) -> object:
    if value is None or type(value) in {str, int, bool}:
        return value
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_encode(item) for item in value)  # type: ignore[type-var]
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {name: _encode(getattr(value, name)) for name in _field_names(kind)}
    raise TypeError(f"no way to write a {type(value).__name__} is known; teach the codec of backups one")


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _decoder(hint: Any) -> Callable[[object], Any]:
    """Return the function that reads a value of type ``hint``. It raises ValueError or TypeError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        (inner,) = (_decoder(argument) for argument in arguments if argument is not type(None))
        return lambda value: None if value is None else inner(value)
    if dataclasses.is_dataclass(hint):
        return _fields_decoder(hint)
    if origin in {tuple, frozenset}:
        item = _decoder(arguments[0])
        return lambda value: origin(map(item, _required(value, list)))
    if hint is bytes:
        return lambda value: b64decode(_required(value, str), validate=True)
    if hint is datetime:
        return lambda value: parse_timestamp(_required(value, str))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return lambda value: _required(value, hint)


def _fields_decoder(kind: Any) -> Callable[[object], Any]:
    hints = get_type_hints(kind)
    decoders = {field.name: _decoder(hints[field.name]) for field in dataclasses.fields(kind)}

    def decode(value: object) -> Any:
        fields = _required(value, dict)
        if not fields.keys() <= decoders.keys():
            raise RecordError("a record with an unknown field: was it written by a newer version of the service?")
        return kind(**{name: decoders[name](item) for name, item in fields.items()})

    return decode


def _required(value: object, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value
