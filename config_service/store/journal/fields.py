"""Plain fields as they come out of JSON or BSON, read with the type that each must have. Pure.

Whatever is missing or of another type raises ValueError, TypeError or KeyError; who reads turns that into the error of
a damaged record, without a word of the content.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import datetime

from config_client.protocol import format_timestamp, parse_timestamp


class Fields:
    """A mapping whose values are asked for by type. Bytes may be spelled in Base64."""

    __slots__ = ("_given",)

    def __init__(self, given: object) -> None:
        if not isinstance(given, Mapping):
            raise TypeError("not a mapping")
        self._given: Mapping[object, object] = given

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def __iter__(self) -> Iterator[str]:
        for name in self._given:
            if not isinstance(name, str):
                raise TypeError("a name is text")
            yield name

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._given[name]
        if not isinstance(value, str):
            raise TypeError("not a text")
        return value

    def number(self, name: str) -> int:
        """Return an integer."""
        value = self._given[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError("not an integer")
        # BSON's own kind of integer is a subclass.
        return int(value)

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._given[name]
        if not isinstance(value, bool):
            raise TypeError("neither true nor false")
        return value

    def binary(self, name: str) -> bytes:
        """Return bytes."""
        value = self._given[name]
        if isinstance(value, str):
            return b64decode(value, validate=True)
        if not isinstance(value, bytes):
            raise TypeError("neither bytes nor Base64")
        return bytes(value)

    def one(self, name: str) -> Fields:
        """Return a mapping."""
        return Fields(self._given[name])

    def many(self, name: str) -> Iterator[Fields]:
        """Yield the mappings of a list."""
        return (Fields(one) for one in self._list(name))

    def texts(self, name: str) -> Iterator[str]:
        """Yield the texts of a list."""
        for one in self._list(name):
            if not isinstance(one, str):
                raise TypeError("not a text")
            yield one

    def numbers(self, name: str) -> Iterator[int]:
        """Yield the integers of a list."""
        for one in self._list(name):
            if not isinstance(one, int) or isinstance(one, bool):
                raise TypeError("not an integer")
            yield int(one)

    def number_or_none(self, name: str) -> int | None:
        """Return an integer, or None when there is no such field."""
        return self.number(name) if name in self._given else None

    def binary_or_none(self, name: str) -> bytes | None:
        """Return bytes, or None when there is no such field."""
        return self.binary(name) if name in self._given else None

    def moment_or_none(self, name: str) -> datetime | None:
        """Return the time that a text spells, or None when there is no such field."""
        return parse_timestamp(self.text(name)) if name in self._given else None

    def _list(self, name: str) -> list[object]:
        value = self._given[name]
        if not isinstance(value, list):
            raise TypeError("not a list")
        return value


def moment_fields(**moments: datetime | None) -> dict[str, object]:
    """Return the fields of those ``moments`` that there are."""
    return {name: format_timestamp(moment) for name, moment in moments.items() if moment is not None}
