"""Measuring two sides alternately, so that a machine whose speed drifts treats both alike."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 9


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found. ``ours`` and ``peer`` are medians in ``unit``; without an aim it only reports."""

    name: str
    ours: float
    peer: float
    unit: str
    aim: float | None = None

    @property
    def ratio(self) -> float:
        """Ours divided by the peer's."""
        return self.ours / self.peer

    @property
    def ok(self) -> bool | None:
        """Whether the aim, an upper bound of the ratio, is reached; None without an aim."""
        return None if self.aim is None else self.ratio <= self.aim

    def as_json(self) -> str:
        """Return the line that programs read."""
        fields = {
            "name": self.name,
            "ours": round(self.ours, 4),
            "peer": round(self.peer, 4),
            "ratio": round(self.ratio, 3),
            "aim": self.aim,
            "ok": self.ok,
        }
        return json.dumps(fields)


def alternate(ours: Callable[[], float], peer: Callable[[], float], *, rounds: int = ROUNDS) -> tuple[float, float]:
    """Run both sides ``rounds`` times after one warm-up, swapping who goes first, and return both medians."""
    ours(), peer()
    measured: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            measured[side].append((ours, peer)[side]())
    for label, values in zip(("ours", "peer"), measured, strict=True):
        spread = f"{min(values):.4f} … {max(values):.4f}"
        print(f"  {label}: median {statistics.median(values):.4f}, {spread}, {rounds} rounds")
    return statistics.median(measured[0]), statistics.median(measured[1])
