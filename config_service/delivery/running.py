"""What is served now: the running version of every config, in memory. Written by the feed alone; reads take no lock.

Knows documents in the clear and how to find them. Knows nothing of stores, streams or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ..domain.documents import Document
from ..domain.keys import ConfigKey
from .schedules import Schedules


class Standing(NamedTuple):
    """How a config stands: what runs (a tombstone included), what waits for its moment, and its newest version."""

    running: Document | None
    awaited: Document | None
    newest: int

    @property
    def runs(self) -> bool:
        """Whether something is being served."""
        return self.running is not None and not self.running.deleted

    @property
    def number(self) -> int:
        """The number of the running version, a tombstone included; 0 when there is none."""
        return 0 if self.running is None else self.running.version

    @property
    def latest(self) -> int:
        """The number of the version that runs or, where one waits, is to run; a cancelled one does not count."""
        return self.number if self.awaited is None else self.awaited.version


class Running:
    """The running version of every key, tombstones included, with an index by name, and beside it what waits."""

    __slots__ = ("_by_key", "_by_name", "schedules")

    def __init__(self) -> None:
        self._by_key: dict[ConfigKey, Document] = {}
        self._by_name: dict[str, dict[ConfigKey, Document]] = {}
        self.schedules: Final = Schedules()
        """What is to run later."""

    def put(self, document: Document) -> None:
        """Serve ``document`` from now on, unless a newer version of its key is served already."""
        held = self._by_key.get(document.key)
        if held is None or held.version < document.version:
            self._by_key[document.key] = document
            self._by_name.setdefault(document.key.name, {})[document.key] = document
        self.schedules.served(document.key, document.version)

    def schedule(self, document: Document, *, waits: bool = True) -> None:
        """Note ``document``, which is not served yet, unless a newer version of its key is served already."""
        held = self._by_key.get(document.key)
        if held is None or held.version < document.version:
            self.schedules.put(document, waits=waits)

    def get(self, key: ConfigKey) -> Document | None:
        """Return the running version of ``key``, a tombstone included, or None when nothing was ever served."""
        return self._by_key.get(key)

    def standing(self, key: ConfigKey) -> Standing:
        """Return how ``key`` stands."""
        running = self._by_key.get(key)
        newest = max(0 if running is None else running.version, self.schedules.newest(key))
        return Standing(running, self.schedules.get(key), newest)

    def named(self, name: str) -> tuple[Document, ...]:
        """Return the running version of every key with that name."""
        return tuple(self._by_name.get(name, {}).values())

    def names(self) -> list[str]:
        """Return every name, in order."""
        return sorted(self._by_name)

    def count(self) -> int:
        """Return how many configs are running, tombstones not counted."""
        return sum(not document.deleted for document in self._by_key.values())

    def __iter__(self) -> Iterator[Document]:
        return iter([self._by_key[key] for key in sorted(self._by_key)])
