"""The contract under concurrency: one line of changes, whoever writes, reads or gives up meanwhile."""

# ruff: noqa: S101, S311 - a test asserts, and its chance is not for secrets

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

from ...domain.keys import ConfigKey
from ...domain.records import Version
from ...store.protocol import ConfigStore, KeyConflictError, VersionConflictError
from .suite import ORDERS, StoreSuite, new_rotation, new_token, new_version, scenario

_WRITERS: Final = 8
_CHANGES: Final = 10
"""Changes that each of the concurrent writers makes."""
_OVERTAKING_TIME: Final = 0.2
"""Seconds in which a faulty store would let a commit overtake a stalled one. A sound one does not need them."""


class ConcurrencyLaws(StoreSuite):
    """Commit order is revision order, compare-and-set has one winner, and a change is made wholly or not at all."""

    @scenario
    async def test_exactly_one_of_many_concurrent_commits_on_a_base_wins(self, tmp_path: Path) -> None:
        """Compare-and-set holds under concurrency; the losers learn the winner's version."""
        async with self.opened(tmp_path) as store:
            for base in range(3):
                outcomes = await asyncio.gather(
                    *(store.commit_version(new_version(base=base, document=bytes([n]))) for n in range(16)),
                    return_exceptions=True,
                )
                winners = [outcome for outcome in outcomes if isinstance(outcome, Version)]
                losers = [outcome for outcome in outcomes if isinstance(outcome, VersionConflictError)]
                assert len(winners) == 1
                assert len(losers) == 15
                assert {loser.newest for loser in losers} == {base + 1}
                assert (await store.versions(ORDERS))[-1] == winners[0].info

    @scenario
    async def test_of_rotations_at_once_none_loses_the_key_of_another(self, tmp_path: Path) -> None:
        """One rotation on a base wins; the losers begin again on what it left, until every key is there, once."""
        keys = [bytes([number]) for number in range(_WRITERS)]
        async with self.opened(tmp_path) as store:
            created, _ = await store.commit_token(new_token(keys=()))
            outcomes = await asyncio.gather(
                *(store.rotate_token_keys(new_rotation(created, key)) for key in keys), return_exceptions=True
            )
            assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
            assert sum(isinstance(outcome, KeyConflictError) for outcome in outcomes) == _WRITERS - 1
            lost = [key for key, outcome in zip(keys, outcomes, strict=True) if isinstance(outcome, KeyConflictError)]
            await asyncio.gather(*(_rotate_at_last(store, created.id, key) for key in lost))
            (token,) = await store.tokens()
            assert sorted(key.sealed for key in token.keys) == keys
            assert (await store.position()).revision == 1 + _WRITERS

    @scenario
    async def test_a_follower_of_the_log_misses_nothing_that_concurrent_writers_do(self, tmp_path: Path) -> None:
        """Reading on from the last revision seen, while many writers race, yields every revision once, in order."""
        async with self.opened(tmp_path) as store:
            seen: list[int] = []
            writing = asyncio.gather(*(_write_at_random(store, random.Random(seed)) for seed in range(_WRITERS)))
            while len(seen) < _WRITERS * _CHANGES:
                all_written = writing.done()
                page = [entry.revision for entry in await store.log(len(seen), 5)]
                seen += page
                assert seen == list(range(1, len(seen) + 1))
                assert page or not all_written
            await writing

    @scenario
    async def test_commit_order_is_revision_order_with_a_stalled_writer(self, tmp_path: Path) -> None:
        """A commit held before it is durable makes no reader miss it, and reading does not wait for it."""
        async with self.opened(tmp_path) as store:
            async with self.stalled(store) as held:
                slow = asyncio.ensure_future(store.commit_version(new_version(ConfigKey("slow"))))
                await held()
                fast = asyncio.ensure_future(store.commit_version(new_version(ConfigKey("fast"))))
                await asyncio.wait({fast}, timeout=_OVERTAKING_TIME)
                seen = await asyncio.wait_for(store.log(0, 10), 5)
                assert not slow.done()
                assert (await store.position()).revision == len(seen)
            await asyncio.gather(slow, fast)
            seen += await store.log(seen[-1].revision if seen else 0, 10)
            assert [entry.revision for entry in seen] == [1, 2]

    @scenario
    async def test_a_cancelled_commit_is_made_wholly_or_not_at_all(self, tmp_path: Path) -> None:
        """Cancelling at any moment leaves no half change and does not block the next writer."""
        async with self.opened(tmp_path) as store:
            for attempt in range(22):
                key = ConfigKey(f"cancelled-{attempt}")
                commit = asyncio.ensure_future(store.commit_version(new_version(key)))
                for _ in range(attempt and 2 ** (attempt // 2)):
                    await asyncio.sleep(0)
                commit.cancel()
                await asyncio.gather(commit, return_exceptions=True)
                await store.commit_version(new_version(ConfigKey(f"next-{attempt}")))
                assert len(await store.versions(key)) <= 1

    @scenario
    async def test_cancelling_a_stalled_commit_and_those_behind_it_blocks_nobody(self, tmp_path: Path) -> None:
        """Neither the commit that is about to be durable nor one that waits for it holds up the next when cancelled."""
        async with self.opened(tmp_path) as store:
            async with self.stalled(store) as held:
                stalled = asyncio.ensure_future(store.commit_version(new_version(ConfigKey("stalled"))))
                await held()
                waiting = asyncio.ensure_future(store.commit_version(new_version(ConfigKey("waiting"))))
                await asyncio.sleep(0)
                stalled.cancel()
                waiting.cancel()
                next_one = asyncio.ensure_future(store.commit_version(new_version(ConfigKey("next"))))
                await asyncio.sleep(0)
            await asyncio.gather(stalled, waiting, return_exceptions=True)
            assert (await asyncio.wait_for(next_one, 5)).version == 1

    @scenario
    async def test_the_newest_versions_of_many_keys_are_yielded_while_they_change(self, tmp_path: Path) -> None:
        """Every key that was there is yielded once, as it is or as it was, while others and new ones are written."""
        keys = [ConfigKey(f"config-{number:03}") for number in range(150)]
        async with self.opened(tmp_path) as store:
            for key in keys:
                await store.commit_version(new_version(key))
            found: list[Version] = []
            async for version in store.newest_versions():
                found.append(version)
                if len(found) % 50 == 1:
                    await store.commit_version(new_version(keys[-len(found)], base=1))
                    await store.commit_version(new_version(ConfigKey(f"a-new-one-{len(found)}")))
            yielded = [version.key for version in found]
            assert len(set(yielded)) == len(yielded)
            assert set(yielded) >= set(keys)

    @scenario
    async def test_iterating_may_be_given_up(self, tmp_path: Path) -> None:
        """A reader that stops in the middle blocks neither writers nor closing."""
        async with self.opened(tmp_path) as store:
            for number in range(3):
                await store.commit_version(new_version(ConfigKey(f"config-{number}")))
            given_up = store.newest_versions()
            assert (await anext(given_up)).version == 1
            await store.commit_version(new_version(base=0))


async def _rotate_at_last(store: ConfigStore, token_id: int, key: bytes) -> None:
    """Rotate, beginning again whenever another rotation was faster."""
    while True:
        token = await store.token(token_id)
        assert token is not None
        try:
            assert await store.rotate_token_keys(new_rotation(token, key)) is not None
        except KeyConflictError:
            continue
        return


async def _write_at_random(store: ConfigStore, chance: random.Random) -> None:
    """Make ``_CHANGES`` changes on keys that others write too, trying again whenever a race is lost."""
    for _ in range(_CHANGES):
        if chance.random() < 0.2:
            await store.commit_token(new_token())
            continue
        key = ConfigKey(f"config-{chance.randrange(3)}")
        base = chance.randrange(3)
        while True:
            try:
                await store.commit_version(new_version(key, base))
            except VersionConflictError as conflict:
                base = conflict.newest
            else:
                break
