"""Numbers that grow, as plain as can be: they are counted on one event loop, where requests must not wait for locks.

Knows nothing of what is counted, nor of any library of metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Distribution:
    """How often a measurement fell into each bucket, and the sum of all. ``bounds`` are upper ones, in order."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, measured: float) -> None:
        """Take note of one measurement."""
        self._counts[bisect_left(self._bounds, measured)] += 1
        self.total += measured

    def __add__(self, other: Distribution) -> Distribution:
        """Return both together; they have the same bounds."""
        both = Distribution(self._bounds)
        both._counts = [mine + its for mine, its in zip(self._counts, other._counts, strict=True)]
        both.total = self.total + other.total
        return both

    @property
    def count(self) -> int:
        """How many measurements there were."""
        return sum(self._counts)

    def cumulated(self) -> list[tuple[str, int]]:
        """Return every bound, then ``+Inf``, with the number of measurements up to it."""
        reached, told = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            reached += count
            told.append((bound, reached))
        return told


class Distributions(Generic[K]):
    """A distribution for every key that was ever measured. The caller sees to it that the keys are few."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds: Final = tuple(bounds)
        self.by_key: Final[dict[K, Distribution]] = {}

    def add(self, key: K, measured: float) -> None:
        """Take note of one measurement of ``key``."""
        held = self.by_key.get(key)
        if held is None:
            held = self.by_key[key] = Distribution(self._bounds)
        held.add(measured)
