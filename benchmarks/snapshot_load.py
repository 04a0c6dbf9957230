"""Reading a snapshot, against reading an attribute through a method."""

from __future__ import annotations

import timeit
from typing import Final

from config_client import Snapshot

from .harness import ROUNDS, Result, alternate, rounds_of

LOADS: Final = 500_000


class _Holder:
    def __init__(self, value: object) -> None:
        self._value = value

    def load(self) -> object:
        return self._value


def run(quick: bool = False) -> list[Result]:
    """Return nanoseconds per load."""
    value = {"host": "db1", "port": 5432}
    snapshot: Snapshot[dict[str, object]] = Snapshot()
    snapshot.store(dict(value))
    holder = _Holder(value)

    def nanoseconds(load: object) -> float:
        return timeit.timeit("load()", globals={"load": load}, number=LOADS) / LOADS * 1e9

    ours, peer = alternate(
        lambda: nanoseconds(snapshot.load), lambda: nanoseconds(holder.load), rounds=rounds_of(ROUNDS, quick=quick)
    )
    return [Result("snapshot_load", ours, peer, "nanoseconds per load", aim=2.0)]
