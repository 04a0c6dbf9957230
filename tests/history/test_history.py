"""Concurrent clients on three replicas over one PostgreSQL, replicas killed and sessions ended meanwhile: what they
were told, held against every promise. And stores that break one are caught by the very same runs.

``make history RUNS=200 SEED=7`` plays more; a run that fails tells its seed, and SEED=… RUNS=1 plays it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from postgres import PostgresServer

from config_service.domain.records import NewVersion, Version
from config_service.store.protocol import Link

from .broken import BrokenReplicas, BrokenStore, DropsCommits, ReordersCommits
from .checker import check
from .world import Processes, play

pytestmark = [pytest.mark.e2e, pytest.mark.long]

RUNS = int(os.environ.get("HISTORY_RUNS", "20"))
SEED = int(os.environ.get("HISTORY_SEED", "20261129"))
DISTURBANCES = 5


@pytest.fixture(scope="module")
def replicas(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("replicas"), postgres.schema(), postgres.url) as processes:
        yield processes


@pytest.mark.timeout(60 + 60 * RUNS)
def test_what_clients_were_told_holds(replicas: Processes) -> None:
    """No acknowledged publish is lost, versions have no gaps, revisions are in commit order, no read is older than what
    its client was told before, no watch goes backwards, and all end on the newest.
    """
    acknowledged = unanswered = 0
    for seed in range(SEED, SEED + RUNS):
        history = play(replicas, seed, disturbances=DISTURBANCES)
        faults = check(history)
        assert not faults, f"seed {seed}: " + "\n".join(faults[:20])
        acknowledged += sum(publish.acknowledged for publish in history.publishes)
        unanswered += sum(not publish.acknowledged for publish in history.publishes)
    print(
        f"{RUNS} runs from seed {SEED}: {acknowledged} publishes acknowledged, {unanswered} not; "
        f"{replicas.kills} replicas killed, {replicas.ended_sessions} sessions ended"
    )
    assert acknowledged > unanswered
    assert replicas.kills >= RUNS // 2
    assert replicas.ended_sessions >= RUNS // 2


@pytest.mark.parametrize("broken", [DropsCommits, ReordersCommits])
@pytest.mark.timeout(200)
def test_a_store_that_breaks_a_promise_is_caught(broken: type[BrokenStore], postgres: PostgresServer) -> None:
    """One commit of fifty that is acknowledged and not made, or made after the next, does not go unseen."""
    with BrokenReplicas(postgres.schema(), broken) as replicas:
        history = play(replicas, SEED, disturbances=0, settled_within=1.0)
    faults = check(history)
    assert any(fault.startswith("nothing_acknowledged_is_lost: ") for fault in faults), faults


@pytest.mark.timeout(200)
def test_the_same_replicas_on_a_sound_store_pass(postgres: PostgresServer) -> None:
    """So it is the spoiled commits that the judge has found."""
    with BrokenReplicas(postgres.schema(), Sound) as replicas:
        history = play(replicas, SEED, disturbances=0)
    assert check(history) == []


class Sound(BrokenStore):
    """Spoils nothing."""

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        """Commit."""
        return await self._commit(changes, link)
