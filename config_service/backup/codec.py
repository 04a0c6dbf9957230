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
from collections.abc import Mapping
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
    kind = KINDS.get(name)
    if kind is None:
        raise RecordError("a record of an unknown kind: was it written by a newer version of the service?")
    try:
        record: Record = _decode(kind, fields)
    except RecordError:
        raise
    except (ValueError, TypeError, OverflowError):
        pass
    else:
        return record
    raise RecordError(f"a {name} that cannot be read")


def _encode(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_encode(item) for item in value)  # type: ignore[type-var]
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"no way to write a {type(value).__name__} is known; teach the codec of backups one")


def _decode(hint: Any, value: object) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _decode(inner, value)
    if dataclasses.is_dataclass(hint):
        return _decode_fields(hint, value)
    if origin in {tuple, frozenset}:
        if not isinstance(value, list):
            raise TypeError
        return origin(_decode(arguments[0], item) for item in value)
    if hint is bytes:
        if not isinstance(value, str):
            raise TypeError
        return b64decode(value, validate=True)
    if hint is datetime:
        if not isinstance(value, str):
            raise TypeError
        return parse_timestamp(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if type(value) is not hint:
        raise TypeError
    return value


def _decode_fields(kind: Any, value: object) -> Any:
    if not isinstance(value, dict):
        raise TypeError
    hints = _hints(kind)
    if not value.keys() <= hints.keys():
        raise RecordError("a record with an unknown field: was it written by a newer version of the service?")
    return kind(**{name: _decode(hints[name], item) for name, item in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
