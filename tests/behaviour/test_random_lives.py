"""Laws 1 and 2 over random lives of a service: whatever happened, everybody ends on the newest state, and never back.

On the in-memory service, where a life of forty events takes a fraction of a second. A seed that fails is in the name of
its test and can be run again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from config_client import Change, State
from config_client.testing import InMemoryService, MisuseError

pytestmark = pytest.mark.integration
SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 8))]

PATIENCE = 60.0
NAMES = ("orders", "payments", "stock")
EVENTS = 40


@pytest.fixture
def backend() -> Any:
    """Run the in-memory service only."""
    with InMemoryService() as service:
        yield service


class Life:
    """What may happen to a service, by chance."""

    def __init__(self, service: InMemoryService, seed: int) -> None:
        self.service = service
        self.dice = random.Random(seed)
        self.newest: dict[str, tuple[int, dict[str, object]]] = {}
        self.count = 0
        for name in NAMES:
            self.publish(name)
        self.backup = service.backup()

    def publish(self, name: str) -> None:
        """Publish what was never published before."""
        self.count += 1
        self.newest[name] = (self.service.publish(name, {"n": self.count}), {"n": self.count})

    def go_on(self, *, disasters: bool) -> None:
        """Let one thing happen."""
        name = self.dice.choice(NAMES)
        events: list[Callable[[], object]] = [
            *[lambda: self.publish(name)] * 4,
            lambda: self.delete(name),
            lambda: self.roll_back(name),
            *[self.service.cut] * 2,
            self.restart,
            lambda: self.service.fail(503, times=2, for_=self.dice.choice(("get", "watch", None))),
            lambda: time.sleep(self.dice.uniform(0, 0.03)),
        ]
        if disasters:
            events.append(lambda: self.service.restore(self.backup))
        self.dice.choice(events)()

    def delete(self, name: str) -> None:
        """Delete, and publish again at some time."""
        try:
            self.service.delete(name)
        except MisuseError:
            self.publish(name)

    def roll_back(self, name: str) -> None:
        """Go back to the first version, which is never a tombstone."""
        self.service.rollback(name, 1)

    def restart(self) -> None:
        """Go down for a moment, in which changes are prepared."""
        self.service.stop()
        self.publish(self.dice.choice(NAMES))
        self.service.start()

    def settle(self) -> None:
        """End the failures, and let something run under every name."""
        self.service.fail(None)
        for name in NAMES:
            self.publish(name)


def ends_on_the_newest(life: Life, subscriptions: dict[str, Any]) -> bool:
    """Wait until every subscription is LIVE with the newest version; tell whether that came to be."""
    deadline = time.monotonic() + PATIENCE

    def differs() -> bool:
        return any(
            (each.snapshot.version, each.load()) != life.newest[name] or each.status.state is not State.LIVE
            for name, each in subscriptions.items()
        )

    while differs():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("base_only", [False, True], ids=["state-first", "base protocol"])
def test_whatever_happens_everybody_ends_on_the_newest_state_and_never_goes_back(
    backend: InMemoryService, subscriber: Callable[..., Any], seed: int, base_only: bool
) -> None:
    """Publishes, deletions, rollbacks, cuts, restarts and failures: versions only grow, and the last one arrives."""
    backend.base_only = base_only
    life = Life(backend, seed)
    client = subscriber(poll_interval=0.1)
    subscriptions = {name: client.subscribe(name, dict) for name in NAMES}
    seen: dict[str, list[int]] = {name: [] for name in NAMES}
    for name, subscription in subscriptions.items():

        def note(change: Change[Any], versions: list[int] = seen[name]) -> None:
            versions.append(change.version or 0)

        subscription.on_change(note)
    for _ in range(EVENTS):
        life.go_on(disasters=False)
    life.settle()
    assert ends_on_the_newest(life, subscriptions), {n: (s, life.newest[n]) for n, s in subscriptions.items()}
    for versions in seen.values():
        assert versions == sorted(set(versions))


@pytest.mark.parametrize("seed", SEEDS)
def test_restores_from_backup_are_followed_like_everything_else(
    backend: InMemoryService, subscriber: Callable[..., Any], seed: int
) -> None:
    """With restores among the events, whose versions are lower, the last state of the last epoch arrives."""
    life = Life(backend, seed)
    client = subscriber(poll_interval=0.1)
    subscriptions = {name: client.subscribe(name, dict) for name in NAMES}
    for _ in range(EVENTS):
        life.go_on(disasters=True)
    life.settle()
    assert ends_on_the_newest(life, subscriptions), {n: (s, life.newest[n]) for n, s in subscriptions.items()}
