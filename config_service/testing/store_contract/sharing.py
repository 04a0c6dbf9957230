"""The contract of a store between processes: a second one is refused, or it is one history for all of them."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ...domain.errors import StoreLockedError
from ...domain.keys import ConfigKey
from ...domain.records import Version
from ...store.protocol import ConfigStore, KeyConflictError, VersionConflictError
from .suite import NOON, ORDERS, StoreSuite, check_laws, new_draft, new_rotation, new_token, new_version, scenario

_REPLICAS = 3
_HELD_UP = 0.2
"""Seconds in which a faulty store would let a commit overtake a stalled one. A sound one does not need them."""


class SharingLaws(StoreSuite):
    """What ``shared`` promises. A store that is not shared is put to the same tests by one process alone."""

    @asynccontextmanager
    async def replicas(self, directory: Path) -> AsyncIterator[list[ConfigStore]]:
        """Open the store of ``directory`` several times if it is shared, else once, and give it as often."""
        first = self.create_store(directory)
        stores = [first] * _REPLICAS
        if first.shared:
            stores = [first, *(self.create_store(directory) for _ in range(_REPLICAS - 1))]
        # All at once in a place where there is nothing: one of them makes what is needed.
        await asyncio.gather(*(store.open() for store in dict.fromkeys(stores)))
        try:
            yield stores
            for store in dict.fromkeys(stores):
                await check_laws(store)
        finally:
            await asyncio.gather(*(store.close() for store in dict.fromkeys(stores)))

    @scenario
    async def test_a_second_process_is_refused_or_reads_what_the_first_commits(self, tmp_path: Path) -> None:
        """Never is there a process that has the store open and misses something."""
        async with self.opened(tmp_path) as first:
            second = self.create_store(tmp_path)
            try:
                if not first.shared:
                    with pytest.raises(StoreLockedError):
                        await second.open()
                    await first.commit_version(new_version())
                    return
                await second.open()
                for base in range(0, 6, 2):
                    await first.commit_version(new_version(base=base))
                    await second.commit_version(new_version(base=base + 1))
                    assert await second.position() == await first.position()
                assert await second.log(0, 10) == await first.log(0, 10)
            finally:
                await second.close()

    @scenario
    async def test_waiting_for_a_change_ends_in_time(self, tmp_path: Path) -> None:
        """It is a hint that may come early, but never keeps a follower from its next look."""
        async with self.opened(tmp_path) as store:
            began = time.monotonic()
            await store.changed(0.05)
            assert time.monotonic() - began < 5
            waiting = asyncio.ensure_future(store.changed(30))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting}, timeout=5)
            assert waiting.done()

    @scenario
    async def test_writers_of_several_processes_make_one_line_of_revisions(self, tmp_path: Path) -> None:
        """Commits that race take revisions without gaps, each of them once, and each writer's in its order."""

        async def write(store: ConfigStore, key: ConfigKey) -> list[int]:
            taken: list[int] = []
            while len(taken) < 8:
                try:
                    made = await store.commit_version(new_version(key, len(await store.versions(key))))
                except VersionConflictError:
                    continue
                taken.append(made.revision)
            return taken

        async with self.replicas(tmp_path) as stores:
            keys = (ORDERS, ConfigKey("billing"))
            taken = await asyncio.gather(*(write(store, key) for store in stores for key in keys))
            assert sorted(revision for some in taken for revision in some) == list(range(1, 8 * len(taken) + 1))
            assert all(some == sorted(some) for some in taken)

    @scenario
    async def test_one_of_several_processes_wins_a_base(self, tmp_path: Path) -> None:
        """Compare-and-set has one winner, whichever process asks."""
        async with self.replicas(tmp_path) as stores:
            for base in range(5):
                outcomes = await asyncio.gather(
                    *(store.commit_version(new_version(base=base)) for store in stores), return_exceptions=True
                )
                assert sum(isinstance(outcome, Version) for outcome in outcomes) == 1
                assert sum(isinstance(outcome, VersionConflictError) for outcome in outcomes) == len(stores) - 1

    @scenario
    async def test_a_stalled_process_is_not_overtaken(self, tmp_path: Path) -> None:
        """Commit order is revision order across processes: nobody who follows the log sees 2 before 1."""
        async with self.replicas(tmp_path) as (first, second, third):
            async with self.stalled(first) as held:
                slow = asyncio.ensure_future(first.commit_version(new_version(ConfigKey("slow"))))
                await held()
                fast = asyncio.ensure_future(second.commit_version(new_version(ConfigKey("fast"))))
                draft = asyncio.ensure_future(third.replace_draft(ORDERS, None, new_draft()))
                await asyncio.wait({fast}, timeout=_HELD_UP)
                seen = [entry.revision for entry in await asyncio.wait_for(third.log(0, 10), 5)]
                assert seen == list(range(1, len(seen) + 1))
                assert not slow.done()
            await asyncio.gather(slow, fast, draft)
            assert [entry.revision for entry in await third.log(0, 10)] == [1, 2]

    @scenario
    async def test_changes_of_one_token_by_several_processes_are_made_one_by_one(self, tmp_path: Path) -> None:
        """Rotations and revocations at once: nobody waits for ever, no key is lost, none comes after a revocation."""

        async def rotate(store: ConfigStore, token_id: int, key: bytes) -> bool:
            while (token := await store.token(token_id)) is not None and token.revoked_at is None:
                try:
                    return await store.rotate_token_keys(new_rotation(token, key)) is not None
                except KeyConflictError:
                    continue
            return False

        async with self.replicas(tmp_path) as stores:
            for revoked in (False, True, False, True):
                token, _ = await stores[0].commit_token(new_token(keys=()))
                keys = [bytes([number]) for number in range(5)]
                rotations = [rotate(stores[number % len(stores)], token.id, key) for number, key in enumerate(keys)]
                revocations = [store.revoke_token(token.id, 7, NOON) for store in stores] if revoked else []
                done, ended = await asyncio.gather(asyncio.gather(*rotations), asyncio.gather(*revocations))
                assert sum(entry is not None for entry in ended) == int(revoked)
                held = await stores[-1].token(token.id)
                assert held is not None
                rotated = [key for key, made in zip(keys, done, strict=True) if made]
                assert sorted(key.sealed for key in held.keys) == rotated
                assert revoked or all(done)
