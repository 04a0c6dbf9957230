"""The contract of drafts and schemas: what is staged for a config, and what it has to look like."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ...domain.keys import ConfigKey
from ...domain.records import Draft, StoredSchema, Version
from ...store.protocol import DraftConflictError, SchemaConflictError, VersionConflictError
from .suite import (
    HUGE,
    ORDERS,
    StoreSuite,
    everything,
    new_draft,
    new_schema,
    new_version,
    scenario,
    told_schema,
)

_OTHERS = (ConfigKey("orders", "prod"), ConfigKey("orders", "default", "next"), ConfigKey("ORDERS"))


class StagingLaws(StoreSuite):
    """A draft is changed by compare-and-set and takes no revision; a schema is appended and takes one."""

    @scenario
    async def test_a_draft_is_kept_as_it_is_under_its_key_alone(self, tmp_path: Path) -> None:
        """Every field, every byte; other keys have none, and the log does not tell."""
        draft = new_draft(base=3, document=bytes(range(256)))
        async with self.opened(tmp_path) as store:
            await store.replace_draft(ORDERS, None, draft)
            assert await store.draft(ORDERS) == draft
            assert [await store.draft(key) for key in _OTHERS] == [None] * len(_OTHERS)
            assert (await store.position()).revision == 0
            assert await store.log(0, 10) == []
        async with self.opened(tmp_path) as store:
            assert await store.draft(ORDERS) == draft

    @scenario
    async def test_a_draft_is_replaced_and_removed_by_who_has_seen_it(self, tmp_path: Path) -> None:
        """Whoever names another draft than the one there is, or none, is refused and changes nothing."""
        first, second = new_draft(document=b"first"), new_draft(base=1, document=b"second")
        async with self.opened(tmp_path) as store:
            with pytest.raises(DraftConflictError):
                await store.replace_draft(ORDERS, b"first", second)
            await store.replace_draft(ORDERS, None, first)
            for seen in (None, b"second"):
                for after in (second, None):
                    with pytest.raises(DraftConflictError):
                        await store.replace_draft(ORDERS, seen, after)
            assert await store.draft(ORDERS) == first
            await store.replace_draft(ORDERS, b"first", second)
            assert await store.draft(ORDERS) == second
            await store.replace_draft(ORDERS, b"second", None)
            assert await store.draft(ORDERS) is None

    @scenario
    async def test_of_edits_at_once_one_is_made(self, tmp_path: Path) -> None:
        """Compare-and-set has one winner; the others are told."""
        drafts = [new_draft(document=bytes([number])) for number in range(8)]
        async with self.opened(tmp_path) as store:
            outcomes = await asyncio.gather(
                *(store.replace_draft(ORDERS, None, draft) for draft in drafts), return_exceptions=True
            )
            assert outcomes.count(None) == 1
            assert sum(isinstance(outcome, DraftConflictError) for outcome in outcomes) == len(drafts) - 1
            assert await store.draft(ORDERS) == drafts[outcomes.index(None)]

    @scenario
    async def test_publishing_a_draft_removes_it_with_the_same_commit(self, tmp_path: Path) -> None:
        """The version is there and the draft is not; the drafts of other keys stay."""
        async with self.opened(tmp_path) as store:
            for key in (ORDERS, *_OTHERS):
                await store.replace_draft(key, None, new_draft(key))
            version = await store.commit_version(new_version(draft=b"sealed draft"))
            assert (version.version, await store.draft(ORDERS)) == (1, None)
            assert [await store.draft(key) for key in _OTHERS] == [new_draft(key) for key in _OTHERS]

    @scenario
    async def test_a_publish_that_is_refused_keeps_the_draft(self, tmp_path: Path) -> None:
        """On another version, of another draft, or under another schema: nothing is changed, and each says which."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            await store.commit_schema(new_schema())
            await store.replace_draft(ORDERS, None, new_draft())
            before = await everything(store)
            with pytest.raises(VersionConflictError):
                await store.commit_version(new_version(base=0, draft=b"sealed draft"))
            with pytest.raises(DraftConflictError):
                await store.commit_version(new_version(base=1, draft=b"another draft"))
            with pytest.raises(SchemaConflictError) as caught:
                await store.commit_version(new_version(base=1, schema=0, draft=b"sealed draft"))
            assert caught.value.newest == 1
            assert await everything(store) == before
            assert isinstance(await store.commit_version(new_version(base=1, schema=1)), Version)

    @scenario
    async def test_a_schema_is_kept_as_it_is_and_told_by_the_log(self, tmp_path: Path) -> None:
        """Numbers count from 1 per key, a removal takes one too, and every field is read back."""
        async with self.opened(tmp_path) as store:
            kept = [
                await store.commit_schema(new_schema(base=0, schema=bytes(range(256)))),
                await store.commit_schema(new_schema(base=1, schema=None)),
                await store.commit_schema(new_schema(base=2, schema=b"")),
            ]
            await store.commit_version(new_version())
            for key in _OTHERS:
                await store.commit_schema(new_schema(key))
            assert [(one.number, one.revision, one.removed) for one in kept] == [
                (1, 1, False),
                (2, 2, True),
                (3, 3, False),
            ]
            assert [await store.schema(ORDERS, number) for number in (1, 2, 3)] == kept
            assert await store.schemas(ORDERS) == [one.info for one in kept]
            assert (await store.log(0, 3)) == [told_schema(one) for one in kept]
            newest = {one.key: one async for one in store.newest_schemas()}
            assert newest.keys() == {ORDERS, *_OTHERS}
            assert newest[ORDERS] == kept[-1]

    @scenario
    async def test_exactly_one_of_many_concurrent_schemas_on_a_base_wins(self, tmp_path: Path) -> None:
        """The losers learn the winner's number, and no revision is lost."""
        async with self.opened(tmp_path) as store:
            outcomes = await asyncio.gather(
                *(store.commit_schema(new_schema(schema=bytes([number]))) for number in range(8)),
                return_exceptions=True,
            )
            losers = [outcome for outcome in outcomes if isinstance(outcome, SchemaConflictError)]
            assert sum(isinstance(outcome, StoredSchema) for outcome in outcomes) == 1
            assert [loser.newest for loser in losers] == [1] * 7
            assert (await store.position()).revision == 1

    @scenario
    async def test_a_draft_or_schema_that_is_not_there_is_none(self, tmp_path: Path) -> None:
        """Unknown keys and absurd numbers are no errors."""
        async with self.opened(tmp_path) as store:
            await store.commit_schema(new_schema())
            for number in (-1, 0, 2, HUGE):
                assert await store.schema(ORDERS, number) is None
            unknown = ConfigKey("unknown")
            found: Draft | None = await store.draft(unknown)
            assert found is None
            assert await store.schema(unknown, 1) is None
            assert await store.schemas(unknown) == []
