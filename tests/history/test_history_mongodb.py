"""The same histories on one MongoDB, which has no transactions: replicas are killed, and every promise holds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .checker import check
from .world import Processes, play

pytestmark = [pytest.mark.e2e, pytest.mark.long]

RUNS = 2
SEED = 20261129


class Killed(Processes):
    """Replicas whose only misfortune is SIGKILL: the sessions of such a server are its own affair."""

    def disturb(self, chance: random.Random) -> None:
        """Kill a replica, or start the one that was killed before."""
        if self._down:
            self.heal()
        else:
            number = chance.randrange(len(self._services))
            self._down.add(number)
            self._services[number].kill()
            self.kills += 1


@pytest.mark.timeout(60 + 60 * RUNS)
def test_what_clients_were_told_holds_on_mongodb(tmp_path: Path, mongodb_url: str) -> None:
    """No acknowledged publish is lost, versions have no gaps, revisions are in commit order, all end on the newest."""
    acknowledged = 0
    with Killed(tmp_path, mongodb_url, "") as replicas:
        for seed in range(SEED, SEED + RUNS):
            history = play(replicas, seed, disturbances=4)
            faults = check(history)
            assert not faults, f"seed {seed}: " + "\n".join(faults[:20])
            acknowledged += sum(publish.acknowledged for publish in history.publishes)
    assert acknowledged > RUNS * 50
    assert replicas.kills >= RUNS
