"""The latest changes, kept as frames for readers that come back. Knows no stream and no HTTP; written by the hub alone.

The history is exact from a floor on: it holds every change of a config with a revision above it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from ..domain.keys import ConfigKey

CAPACITY: Final = 10_000
"""Changes to keep, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class ChangeFrame:
    """One change of a config and the bytes that tell it."""

    key: ConfigKey
    revision: int
    frame: bytes


class History:
    """The latest changes, in revision order, with an index by name."""

    __slots__ = ("_by_name", "_capacity", "_frames", "_latest", "floor")

    def __init__(self, floor: int = 0, capacity: int = CAPACITY) -> None:
        self.floor = floor
        """The revision above which no change is missing."""
        self._latest = floor
        self._capacity = capacity
        self._frames: deque[ChangeFrame] = deque()
        self._by_name: dict[str, deque[ChangeFrame]] = {}

    @property
    def latest(self) -> int:
        """The newest revision seen, whether it was the change of a config or not."""
        return self._latest

    def advance(self, revision: int) -> None:
        """Take note of a revision that changed no config."""
        self._latest = revision

    def append(self, change: ChangeFrame) -> None:
        """Add the newest change; the oldest one falls out when there are too many."""
        self._latest = change.revision
        self._frames.append(change)
        self._by_name.setdefault(change.key.name, deque()).append(change)
        if len(self._frames) > self._capacity:
            oldest = self._frames.popleft()
            self.floor = oldest.revision
            named = self._by_name[oldest.key.name]
            named.popleft()
            if not named:
                del self._by_name[oldest.key.name]

    def since(self, revision: int, name: str) -> list[ChangeFrame] | None:
        """Return every change of configs named ``name`` after ``revision``, in order.

        None when they are not all known: ``revision`` lies below the floor, or was never reached.
        """
        if not self.floor <= revision <= self._latest:
            return None
        missed: list[ChangeFrame] = []
        for change in reversed(self._by_name.get(name, ())):
            if change.revision <= revision:
                break
            missed.append(change)
        missed.reverse()
        return missed
