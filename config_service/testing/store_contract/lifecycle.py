"""The contract of opening and closing a store."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from config_client.protocol import Position

from ...domain.errors import StoreError
from ...domain.keys import ConfigKey
from ...domain.records import ChangeKind, Version
from .suite import (
    NOON,
    ORDERS,
    StoreSuite,
    everything,
    new_archive,
    new_draft,
    new_rotation,
    new_savepoint,
    new_schema,
    new_token,
    new_version,
    scenario,
)


class LifecycleLaws(StoreSuite):
    """What is there is there again; a store may be closed whenever and however often."""

    @scenario
    async def test_a_new_store_is_at_revision_0_of_an_epoch_that_begins_now(self, tmp_path: Path) -> None:
        """The epoch is 24 hex characters, the first twelve its creation time in ms; the revision counts from 0."""
        before = time.time_ns() // 1_000_000
        async with self.opened(tmp_path) as store:
            position = await store.position()
        assert position.revision == 0
        assert Position.parse(str(position)) == position
        assert before <= int(position.epoch[:12], 16) <= time.time_ns() // 1_000_000

    @scenario
    async def test_reopening_keeps_everything(self, tmp_path: Path) -> None:
        """Everything that a store tells, its check value included, is the same after closing and opening again."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            await store.commit_version(new_version(base=1, document=None, kind=ChangeKind.DELETED))
            await store.commit_token(new_token(expires_at=NOON))
            created, _ = await store.commit_token(new_token())
            await store.rotate_token_keys(new_rotation(created))
            await store.revoke_token(1, 7, NOON)
            await store.commit_schema(new_schema())
            await store.commit_schema(new_schema(base=1, schema=None))
            await store.replace_draft(ORDERS, None, new_draft(base=2))
            for number in (1, 2, 3):
                await store.commit_version(new_version(ConfigKey("later"), base=number - 1, valid_from=NOON))
                if number == 1:
                    await store.activate_version(ConfigKey("later"), 1, NOON)
            await store.cancel_schedule(ConfigKey("later"), 3, 7, NOON)
            await store.seal_check(b"check")
            await store.commit_savepoint(new_savepoint(version=1))
            await store.archive_versions(new_archive(1, key=ConfigKey("later")))
            before = await everything(store)
        async with self.opened(tmp_path) as store:
            assert await everything(store) == before
            assert (await store.commit_version(new_version(base=2))).revision == before.position.revision + 1

    @scenario
    async def test_a_store_may_be_closed_twice_or_without_having_been_opened(self, tmp_path: Path) -> None:
        """Closing is safe in any clean-up code, and the same store may be opened again."""
        store = self.create_store(tmp_path)
        await store.close()
        await store.open()
        await store.commit_version(new_version())
        await asyncio.gather(store.close(), store.close())
        await store.close()
        await store.open()
        assert (await store.position()).revision == 1
        await store.close()

    @scenario
    async def test_a_closed_store_refuses_with_a_typed_error(self, tmp_path: Path) -> None:
        """Neither reading nor writing hangs or raises a foreign exception after closing."""
        store = self.create_store(tmp_path)
        with pytest.raises(StoreError):
            await store.position()
        await store.open()
        await store.close()
        with pytest.raises(StoreError):
            await store.log(0, 1)
        with pytest.raises(StoreError):
            await store.commit_version(new_version())

    @scenario
    async def test_closing_waits_for_the_commits_under_way(self, tmp_path: Path) -> None:
        """A commit that was accepted before closing is either durable or refused, and says which."""
        store = self.create_store(tmp_path)
        await store.open()
        commits = [asyncio.ensure_future(store.commit_version(new_version(ConfigKey(f"c{n}")))) for n in range(8)]
        await asyncio.sleep(0)
        await store.close()
        outcomes = await asyncio.gather(*commits, return_exceptions=True)
        assert all(isinstance(outcome, (Version, StoreError)) for outcome in outcomes)
        async with self.opened(tmp_path) as store:
            kept = {version async for version in store.newest_versions()}
        assert kept == {outcome for outcome in outcomes if isinstance(outcome, Version)}

    @scenario
    async def test_the_first_check_value_stays(self, tmp_path: Path) -> None:
        """Whoever comes later, or at the same time, is given the first one; it is no change of the store."""
        async with self.opened(tmp_path) as store:
            answers = await asyncio.gather(*(store.seal_check(bytes([number])) for number in range(4)))
            assert len(set(answers)) == 1
            assert (await store.position()).revision == 0
        async with self.opened(tmp_path) as store:
            assert await store.seal_check(b"late") == answers[0]
