"""Hundreds of rounds of misfortune on real sockets: whatever happens, the laws hold. And clients that break one are
caught by the very same rounds.

``make chaos ROUNDS=5000 SEED=7`` plays more; what fails tells how to play it again.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config_service.process import ServiceProcess

from .mutants import MUTANTS, Mutant, says_nothing_of_trouble
from .plans import Disaster, plan_of
from .proxy import Kind
from .world import LawBrokenError, World

pytestmark = [pytest.mark.e2e, pytest.mark.long]

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "300"))
SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
FIRST = int(os.environ.get("CHAOS_FIRST", "0"))
WORLDS = min(int(os.environ.get("CHAOS_WORLDS", "3")), ROUNDS)
"""A round is mostly waiting, so several worlds are played at a time."""
MUTANT_ROUNDS = 100
MUTANT_PATIENCE = 3.0
"""Seconds after which a mutant's watcher that is not current is taken for lost."""


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> ServiceProcess:
    """Make a store once, for services to begin with."""
    return ServiceProcess(tmp_path_factory.mktemp("new-store"))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the watches report thousands of failures to nobody; start the service without coverage, twice as fast."""
    for name in list(os.environ):
        if name.startswith("COVERAGE_"):
            monkeypatch.delenv(name)
    logger = logging.getLogger("config_client")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.mark.timeout(300 + 6 * ROUNDS)
def test_no_change_is_lost_nothing_goes_backwards_and_nothing_hangs(tmp_path: Path, new_store: ServiceProcess) -> None:
    """Resets, stalls, half-open and dripping connections, answers cut, repeated and doubled, a service that is killed,
    refuses or is restored from a backup, while versions are published, deleted and rolled back: after every round all
    watchers of all kinds of clients are on the newest acceptable version, none ever went backwards or lost its value,
    and close() is prompt at any moment.
    """
    bites: Counter[Kind] = Counter()
    disasters: Counter[Disaster] = Counter()
    failed = threading.Event()

    def play(number: int) -> int:
        first = FIRST + number * ROUNDS // WORLDS
        last = FIRST + (number + 1) * ROUNDS // WORLDS
        directory = tmp_path / str(number)
        directory.mkdir()
        with World(directory, new_store) as world:
            try:
                world.run(SEED, last - first, first, over=failed.is_set)
            except BaseException:
                failed.set()
                raise
        bites.update(world.bites)
        disasters.update(world.disasters)
        return world.rounds

    with ThreadPoolExecutor(WORLDS) as pool:
        played = sum(pool.map(play, range(WORLDS)))

    assert played == ROUNDS
    if ROUNDS >= 300:
        # A suite that no longer injects what it says would pass for ever.
        assert {kind for kind in Kind if not bites[kind]} == {Kind.NONE}
        assert {disaster for disaster in Disaster if not disasters[disaster]} == set()


def test_the_same_seed_is_the_same_plan() -> None:
    """A round can be played again from the two numbers that its failure tells."""
    plans = [plan_of(7, number, proxies=4, configs=3) for number in range(50)]
    assert plans == [plan_of(7, number, proxies=4, configs=3) for number in range(50)]
    assert len({str(plan) for plan in plans}) == 50


@pytest.mark.parametrize(("seed", "heartbeat"), sorted({(each.seed, each.heartbeat) for each in MUTANTS}))
def test_a_sound_client_passes_where_the_mutants_are_caught(
    seed: int, heartbeat: float, tmp_path: Path, new_store: ServiceProcess
) -> None:
    """The rounds find nothing when nothing is broken: what is caught below is the mutation."""
    with World(tmp_path, new_store, heartbeat=heartbeat, kinds=("subscribing",)) as world:
        world.run(seed, 4)
    assert world.rounds == 4


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_client_that_breaks_a_law_is_caught(
    mutant: Mutant, tmp_path: Path, new_store: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds name the law that is broken, and how to play the round again."""
    only = ("subscribing",)
    with World(tmp_path, new_store, heartbeat=mutant.heartbeat, patience=MUTANT_PATIENCE, kinds=only) as world:
        mutant.apply(monkeypatch)
        with pytest.raises(LawBrokenError, match=rf"make chaos SEED={mutant.seed} FIRST=\d+ ROUNDS=1") as caught:
            world.run(mutant.seed, MUTANT_ROUNDS)
    assert caught.value.law == mutant.law


def test_rounds_that_failed_fail_again(
    tmp_path: Path, new_store: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message tells is enough: on a new store and new clients, the same round finds the same law broken."""
    says_nothing_of_trouble(monkeypatch)
    told: list[tuple[str, ...]] = []
    # The first round is harmless to it, the second is not.
    seed, first, rounds = 461, 0, MUTANT_ROUNDS
    for directory in (tmp_path / "first", tmp_path / "again"):
        directory.mkdir()
        with (
            World(directory, new_store, patience=MUTANT_PATIENCE, kinds=("awaiting",)) as world,
            pytest.raises(LawBrokenError, match="law 3") as caught,
        ):
            world.run(seed, rounds, first)
        command = re.search(r"make chaos SEED=(\d+) FIRST=(\d+) ROUNDS=(\d+) WORLDS=1", str(caught.value))
        assert command is not None
        told.append(command.groups())
        seed, first, rounds = map(int, command.groups())
    assert told == [("461", "0", "2")] * 2
