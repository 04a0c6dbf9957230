"""What happens in a round, drawn from a seed. Data only: the same seed and number are the same plan, always."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

from .proxy import WELL, Fault, Kind

KILL_EVERY: Final = 40
"""Rounds, on average, between two SIGKILLs of the service: starting it again is most of what a run costs."""
RESTORE_EVERY: Final = 120
"""Rounds, on average, between two restorations of a backup."""

_WEIGHTS: Final = {
    Kind.NONE: 20,
    Kind.RESET: 12,
    Kind.REFUSE: 8,
    Kind.STALL: 6,
    Kind.HALF_OPEN: 5,
    Kind.DRIP: 7,
    Kind.TRUNCATE: 12,
    Kind.REPLAY: 10,
    Kind.TWICE: 6,
    Kind.LATENCY: 6,
    Kind.UNAVAILABLE: 5,
    Kind.BLOCKED: 3,
}


class Deed(Enum):
    """What the operator does."""

    PUBLISH = "publish"
    MISFIT = "publish what does not decode"
    REFUSED = "publish what pre_apply refuses"
    DELETE = "delete"
    ROLL_BACK = "roll back"


_DEEDS: Final = {Deed.PUBLISH: 60, Deed.MISFIT: 8, Deed.REFUSED: 8, Deed.DELETE: 10, Deed.ROLL_BACK: 14}


class Disaster(Enum):
    """What happens to the service itself."""

    NONE = ""
    KILL = "SIGKILL and restart"
    RESTORE = "a backup restored"


@dataclass(frozen=True)
class Act:
    """``config``: an index. ``size``: bytes of padding. ``fraction``: which version to go back to. ``pause``: seconds
    before it."""

    deed: Deed
    config: int
    size: int
    fraction: float
    pause: float


@dataclass(frozen=True)
class Plan:
    """One round: some acts, the faults (one per proxy), more acts, a while, and everything heals.

    ``disaster`` falls between the two groups of acts, while the faults are on. ``reopened``: the index of the client
    that is closed under its fault and made anew, None in most rounds.
    """

    seed: int
    number: int
    faults: tuple[Fault, ...]
    before: tuple[Act, ...]
    during: tuple[Act, ...]
    disaster: Disaster
    lasting: float
    reopened: int | None

    def __str__(self) -> str:
        acts = ", ".join(
            f"{act.deed.value} {act.config}" + (" under fault" if at >= len(self.before) else "")
            for at, act in enumerate((*self.before, *self.during))
        )
        parts = [f"faults: {', '.join(map(str, self.faults))}", f"acts: {acts}"]
        if self.disaster is not Disaster.NONE:
            parts.append(self.disaster.value)
        if self.reopened is not None:
            parts.append(f"client {self.reopened} closed and opened")
        return "; ".join(parts)


def plan_of(seed: int, number: int, *, proxies: int, configs: int) -> Plan:
    """Return the plan of round ``number``."""
    rng = random.Random(f"{seed}/{number}")
    return Plan(
        seed,
        number,
        faults=tuple(_fault(rng) for _ in range(proxies)),
        before=tuple(_act(rng, configs) for _ in range(rng.choice((0, 0, 1)))),
        during=tuple(_act(rng, configs) for _ in range(rng.choice((1, 1, 2, 3)))),
        disaster=_disaster(rng),
        lasting=rng.uniform(0.0, 0.15),
        reopened=rng.randrange(proxies) if rng.random() < 0.15 else None,
    )


def _fault(rng: random.Random) -> Fault:
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    match kind:
        case Kind.DRIP:
            return Fault(kind, rng.randrange(1, 64))
        case Kind.TRUNCATE:
            return Fault(kind, rng.randrange(1, 6000))
        case Kind.LATENCY:
            return Fault(kind, round(rng.uniform(0.001, 0.05), 3))
        case Kind.REPLAY:
            return Fault(kind, rng.randrange(6))
        case Kind.NONE:
            return WELL
        case _:
            return Fault(kind)


def _act(rng: random.Random, configs: int) -> Act:
    deed = rng.choices(list(_DEEDS), list(_DEEDS.values()))[0]
    size = rng.choice((0, 0, 100, 3000, 20_000))
    return Act(deed, rng.randrange(configs), size, rng.random(), rng.choice((0.0, rng.uniform(0.0, 0.02))))


def _disaster(rng: random.Random) -> Disaster:
    drawn = rng.random()
    if drawn < 1 / RESTORE_EVERY:
        return Disaster.RESTORE
    return Disaster.KILL if drawn < 1 / RESTORE_EVERY + 1 / KILL_EVERY else Disaster.NONE
