"""Versions that wait for their moment: of each config its newest version, while it is not served. Written by the feed.

Knows documents in the clear and when each is to run. Knows no clock, no store and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..domain.documents import Document
from ..domain.keys import ConfigKey


@dataclass(frozen=True, slots=True)
class _Latest:
    """The newest version of a config, which was published for later; whether it still waits, or was cancelled."""

    document: Document
    waits: bool


class Schedules:
    """What is to run later. One version of a config waits at a time: its newest."""

    __slots__ = ("_latest", "listener")

    def __init__(self) -> None:
        self._latest: dict[ConfigKey, _Latest] = {}
        self.listener: Callable[[], None] | None = None
        """Called whenever what waits may have changed."""

    def put(self, document: Document, *, waits: bool = True) -> None:
        """Note ``document`` as the newest version of its config, unless a newer one is noted already."""
        held = self._latest.get(document.key)
        if held is None or held.document.version < document.version:
            self._latest[document.key] = _Latest(document, waits)
            self._tell()

    def cancel(self, key: ConfigKey, number: int) -> None:
        """Note that version ``number`` waits no longer; it stays the newest one."""
        held = self._latest.get(key)
        if held is not None and held.document.version == number:
            self._latest[key] = _Latest(held.document, waits=False)
            self._tell()

    def served(self, key: ConfigKey, number: int) -> None:
        """Note that version ``number`` is served: neither it nor an older one waits."""
        held = self._latest.get(key)
        if held is not None and held.document.version <= number:
            del self._latest[key]
            self._tell()

    def newest(self, key: ConfigKey) -> int:
        """Return the number of the newest version of ``key`` if it is not served, else 0."""
        held = self._latest.get(key)
        return 0 if held is None else held.document.version

    def get(self, key: ConfigKey) -> Document | None:
        """Return the version of ``key`` that waits for its moment, or None."""
        held = self._latest.get(key)
        return held.document if held is not None and held.waits else None

    def __iter__(self) -> Iterator[Document]:
        """Yield what waits, in the order in which it comes due."""
        waiting = [held.document for held in self._latest.values() if held.waits]
        return iter(sorted(waiting, key=lambda document: (document.moment, document.revision)))

    def _tell(self) -> None:
        if self.listener is not None:
            self.listener()
