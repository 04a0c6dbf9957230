"""The lines of an export: what a whole store says, in the clear, one JSON object a line, for people and programs.

Knows the format, which ``docs/OPERATIONS.md`` has to the byte. Knows no store, no HTTP, no file and no key. Unlike a
backup an export is independent of the store it came from: it has no tokens, no log and nothing sealed at rest, and is
imported by publishing what it says.

    {"format": "config-service export", "version": 1, …}    the first line
    {"config": {…}}                                         a version, a schema or a draft, all of one key together:
    …                                                       versions and schemas oldest first, the draft last
    {"end": {"lines": n}}                                   the last line; n counts the lines before it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from ..backup.chain import DamagedFileError

FORMAT: Final = "config-service export"
VERSION: Final = 1
MEDIA_TYPE: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Header:
    """The first line: where and when the export was made, and whether the lines behind it are sealed under ``salt``."""

    epoch: str
    revision: int
    created_at: str
    sealed: bool = False
    salt: str = ""

    def line(self) -> bytes:
        """Return the line, with its line feed."""
        return dump_line({"format": FORMAT, "version": VERSION, **asdict(self)})


@dataclass(frozen=True, slots=True, repr=False)
class VersionItem:
    """A version of a config. ``document`` is its text, byte for byte as published; None is a tombstone."""

    name: str
    environment: str
    label: str
    version: int
    kind: str
    changed_by: int
    timestamp: str
    document: str | None


@dataclass(frozen=True, slots=True, repr=False)
class SchemaItem:
    """A schema of a config. ``schema`` is its text, byte for byte as it was set; None is a removal."""

    name: str
    environment: str
    label: str
    number: int
    changed_by: int
    timestamp: str
    schema: str | None


@dataclass(frozen=True, slots=True, repr=False)
class DraftItem:
    """The draft of a config, made on version ``base``."""

    name: str
    environment: str
    label: str
    base: int
    changed_by: int
    timestamp: str
    document: str


Item = VersionItem | SchemaItem | DraftItem
_KINDS: Final[Mapping[str, type[Any]]] = {"version": VersionItem, "schema": SchemaItem, "draft": DraftItem}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def dump_line(value: object) -> bytes:
    """Return ``value`` as a line of JSON, which has no line feed but its last byte."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def dump_item(item: Item) -> bytes:
    """Return the line of ``item``."""
    return dump_line({_NAMES[type(item)]: asdict(item)})


def dump_end(lines: int) -> bytes:
    """Return the last line, after ``lines`` others."""
    return dump_line({"end": {"lines": lines}})


def read_header(line: bytes) -> Header:
    """Return what the first line tells. Raises DamagedFileError."""
    match _parsed(line):
        case {"format": "config-service export", "version": 1, **told}:
            header: Header | None = _built(Header, told)
        case {"format": "config-service export", "version": int()}:
            raise DamagedFileError("the export was made by a newer version of the service; import it with that one")
        case _:
            raise DamagedFileError("this is no export of a config service")
    if header is None:
        raise DamagedFileError("the first line of the export cannot be read; use another copy")
    return header


def read_items(lines: Iterable[bytes], header: bytes) -> Iterator[Item]:
    """Yield what ``lines`` say, which come behind the line ``header``, to the end.

    Raises DamagedFileError where one cannot be read, and when the end is missing or counts something else.
    """
    count = 1 if header else 0
    ended = False
    for line in lines:
        if ended:
            raise DamagedFileError("something follows the end of the export; use another copy")
        value = _parsed(line)
        match value:
            case {"end": {"lines": int(told)}}:
                if told != count:
                    raise DamagedFileError(f"the export has {count} lines and should have {told}; use another copy")
                ended = True
            case _:
                count += 1
                yield _item(value, count)
    if not ended:
        raise DamagedFileError("the export has no end: it was cut off; use another copy")


def _item(value: object, line: int) -> Item:
    if isinstance(value, dict) and len(value) == 1:
        ((name, told),) = value.items()
        item: Item | None = _built(_KINDS[name], told) if name in _KINDS else None
        if item is not None:
            return item
    raise DamagedFileError(f"line {line} cannot be read: it was altered, or made by a newer version of the service")


def _built(kind: type[Any], told: object) -> Any:
    """Return ``told`` as ``kind``, or None when it has other fields or other types."""
    types = {"str": str, "int": int, "bool": bool}
    if not isinstance(told, dict) or told.keys() != {field.name for field in fields(kind)}:
        return None
    for field in fields(kind):
        allowed = [name.strip() for name in str(field.type).split("|")]
        value = told[field.name]
        if not (value is None and "None" in allowed) and type(value) is not types.get(allowed[0]):
            return None
    return kind(**told)


def _parsed(line: bytes) -> object:
    try:
        value: object = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return value
