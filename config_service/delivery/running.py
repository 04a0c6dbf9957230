"""What is served now: the newest version of every config, in memory. Written by the feed alone; reads take no lock.

Knows documents in the clear and how to find them. Knows nothing of stores, streams or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..domain.documents import Document
from ..domain.keys import ConfigKey


class Running:
    """The newest version of every key, tombstones included, with an index by name."""

    __slots__ = ("_by_key", "_by_name")

    def __init__(self) -> None:
        self._by_key: dict[ConfigKey, Document] = {}
        self._by_name: dict[str, dict[ConfigKey, Document]] = {}

    def put(self, document: Document) -> None:
        """Serve ``document`` from now on, unless a newer version of its key is served already."""
        held = self._by_key.get(document.key)
        if held is None or held.version < document.version:
            self._by_key[document.key] = document
            self._by_name.setdefault(document.key.name, {})[document.key] = document

    def get(self, key: ConfigKey) -> Document | None:
        """Return the newest version of ``key``, a tombstone included, or None when nothing was ever published."""
        return self._by_key.get(key)

    def named(self, name: str) -> tuple[Document, ...]:
        """Return the newest version of every key with that name."""
        return tuple(self._by_name.get(name, {}).values())

    def names(self) -> list[str]:
        """Return every name, in order."""
        return sorted(self._by_name)

    def __iter__(self) -> Iterator[Document]:
        return iter([self._by_key[key] for key in sorted(self._by_key)])
