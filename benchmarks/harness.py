"""Measuring two sides alternately, so that a machine whose speed drifts treats both alike."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 9
QUICK_ROUNDS: Final = 2
"""Of a run that only shows that everything works."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found. ``ours`` and ``peer`` are in ``unit``: medians, unless the name says otherwise.

    ``aim`` is an upper bound of the ratio; with ``absolute``, of ``ours`` itself. Without one it only reports.
    ``peer`` is None where there is nothing to compare with.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    aim: float | None = None
    absolute: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's; None without a peer to divide by."""
        return self.ours / self.peer if self.peer else None

    @property
    def ok(self) -> bool | None:
        """Whether the aim is reached; None without an aim."""
        measured = self.ours if self.absolute else self.ratio
        return None if self.aim is None or measured is None else measured <= self.aim

    def as_text(self) -> str:
        """Return the line that people read."""
        beside = "" if self.peer is None else f" against {self.peer:.6g}"
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.3f}"
        verdict = {True: "met", False: "missed", None: ""}[self.ok]
        aim = "" if self.aim is None else f"; aim ≤ {self.aim:g}{'' if self.absolute else '×'}: {verdict}"
        return f"  {self.name}: {self.ours:.6g}{beside} {self.unit}{ratio}{aim}"

    def as_json(self) -> str:
        """Return the line that programs read."""
        fields = {
            "name": self.name,
            "ours": round(self.ours, 4),
            "peer": None if self.peer is None else round(self.peer, 4),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "aim": self.aim,
            "ok": self.ok,
        }
        return json.dumps(fields)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of ``values`` that at least ``percent`` of a hundred of them do not exceed."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]


def rounds_of(usual: int, *, quick: bool) -> int:
    """Return how many rounds to measure."""
    return QUICK_ROUNDS if quick else usual


def interleave(
    ours: Callable[[], float], peer: Callable[[], float], *, rounds: int, warm_up: int = 1
) -> tuple[list[float], list[float]]:
    """Run both sides ``rounds`` times after ``warm_up``, swapping who goes first, and return what each gave."""
    measured: tuple[list[float], list[float]] = ([], [])
    for number in range(warm_up + rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            taken = (ours, peer)[side]()
            if number >= warm_up:
                measured[side].append(taken)
    return measured


def alternate(ours: Callable[[], float], peer: Callable[[], float], *, rounds: int = ROUNDS) -> tuple[float, float]:
    """Run both sides ``rounds`` times after one warm-up, swapping who goes first, and return both medians."""
    measured = interleave(ours, peer, rounds=rounds)
    for label, values in zip(("ours", "peer"), measured, strict=True):
        spread = f"{min(values):.4f} … {max(values):.4f}"
        print(f"  {label}: median {statistics.median(values):.4f}, {spread}, {rounds} rounds")
    return statistics.median(measured[0]), statistics.median(measured[1])
