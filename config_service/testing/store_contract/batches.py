"""The contract of several versions committed together: all of them or none, one behind the other."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from ...domain.errors import InvalidRequestError
from ...domain.keys import ConfigKey
from ...domain.records import NewVersion, Version
from ...store.protocol import (
    ConfigConflictError,
    ConfigStore,
    DraftConflictError,
    SchemaConflictError,
    StoreConflictError,
    VersionConflictError,
)
from .suite import ORDERS, StoreSuite, everything, new_draft, new_schema, new_version, scenario, told

_BILLING: Final = ConfigKey("billing")
_KEYS: Final = (ORDERS, _BILLING, ConfigKey("orders", "prod"))


class BatchLaws(StoreSuite):
    """A commit of several versions is one change in all but its revisions."""

    @scenario
    async def test_several_versions_are_committed_together_in_their_order(self, tmp_path: Path) -> None:
        """Their revisions are consecutive, the log has them in the order asked for, and each draft is gone."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version(_BILLING))
            await store.replace_draft(ORDERS, None, new_draft())
            await store.replace_draft(_KEYS[2], None, new_draft(_KEYS[2]))
            changes = [
                new_version(draft=b"sealed draft"),
                new_version(_BILLING, base=1, document=None),
                new_version(_KEYS[2], document=b"", source_version=1),
            ]
            made = await store.commit_versions(changes)
            assert [(one.key, one.version, one.revision) for one in made] == [
                (ORDERS, 1, 2),
                (_BILLING, 2, 3),
                (_KEYS[2], 1, 4),
            ]
            assert await store.log(1, 10) == [told(version) for version in made]
            assert [await store.version(one.key, one.version) for one in made] == made
            assert await store.draft(ORDERS) is None
            assert await store.draft(_KEYS[2]) == new_draft(_KEYS[2])

    @scenario
    async def test_one_that_is_refused_refuses_all(self, tmp_path: Path) -> None:
        """Wherever it stands in the row, and whichever condition does not hold; the error names its config."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version(_BILLING))
            await store.commit_schema(new_schema(_BILLING))
            for key in _KEYS:
                await store.replace_draft(key, None, new_draft(key))
            before = await everything(store)
            refused: dict[type[ConfigConflictError], NewVersion] = {
                VersionConflictError: new_version(_BILLING, base=0),
                SchemaConflictError: new_version(_BILLING, base=1, schema=0),
                DraftConflictError: new_version(_BILLING, base=1, draft=b"another draft"),
            }
            good = [new_version(key, draft=b"sealed draft") for key in (_KEYS[0], _KEYS[2])]
            for kind, change in refused.items():
                for place in range(3):
                    with pytest.raises(kind) as caught:
                        await store.commit_versions([*good[:place], change, *good[place:]])
                    assert caught.value.key == _BILLING
                    assert await everything(store) == before
                    assert [await store.draft(key) for key in _KEYS] == [new_draft(key) for key in _KEYS]

    @scenario
    async def test_a_key_that_comes_twice_is_refused(self, tmp_path: Path) -> None:
        """Even where the second would follow the first; nothing of it is made."""
        async with self.opened(tmp_path) as store:
            for base in (0, 1):
                with pytest.raises(InvalidRequestError):
                    await store.commit_versions([new_version(), new_version(_BILLING), new_version(base=base)])
            assert (await store.position()).revision == 0
            assert await store.commit_versions([]) == []

    @scenario
    async def test_of_overlapping_commits_at_once_one_is_made_whole(self, tmp_path: Path) -> None:
        """In whichever order each names its keys, nothing of a loser is there, and nobody waits for ever."""
        rows = [[new_version(key, document=bytes([n])) for key in (_KEYS if n % 2 else _KEYS[::-1])] for n in range(8)]
        async with self.opened(tmp_path) as store:
            outcomes = await asyncio.gather(*(store.commit_versions(row) for row in rows), return_exceptions=True)
            (winner,) = [outcome for outcome in outcomes if isinstance(outcome, list)]
            assert sum(isinstance(outcome, VersionConflictError) for outcome in outcomes) == len(rows) - 1
            assert {version.key: version async for version in store.newest_versions()} == {
                version.key: version for version in winner
            }

    @scenario
    async def test_a_reader_never_sees_a_part_of_them(self, tmp_path: Path) -> None:
        """The log holds all of them or none at any moment, also while the commit is held up, or cancelled."""
        async with self.opened(tmp_path) as store:
            async with self.stalled(store) as held:
                slow = asyncio.ensure_future(store.commit_versions([new_version(key) for key in _KEYS]))
                await held()
                assert len(await asyncio.wait_for(store.log(0, 10), 5)) in {0, len(_KEYS)}
            await slow
            for attempt in range(12):
                changes = _next(await store.commit_versions(_next(await _newest(store))))
                commit = asyncio.ensure_future(store.commit_versions(changes))
                for _ in range(attempt):
                    await asyncio.sleep(0)
                commit.cancel()
                await asyncio.gather(commit, return_exceptions=True)
                # A commit that was under way when it was given up ends before the next one begins.
                await store.replace_draft(ORDERS, None, new_draft())
                await store.replace_draft(ORDERS, b"sealed draft", None)
                versions = {version.version for version in await _newest(store)}
                assert len(versions) == 1, "a part of a commit was made"

    @scenario
    async def test_what_was_acknowledged_together_is_there_together(self, tmp_path: Path) -> None:
        """After closing and opening again every one of them is there, and the refused ones are not."""
        async with self.opened(tmp_path) as store:
            made = await store.commit_versions([new_version(key) for key in _KEYS])
            with pytest.raises(StoreConflictError):
                await store.commit_versions([new_version(key, base=place) for place, key in enumerate(_KEYS)])
        async with self.opened(tmp_path) as store:
            assert [await store.version(key, 1) for key in _KEYS] == made
            assert (await store.position()).revision == len(_KEYS)


async def _newest(store: ConfigStore) -> list[Version]:
    return [version async for version in store.newest_versions()]


def _next(versions: Sequence[Version]) -> list[NewVersion]:
    """Return the change that follows each of ``versions``."""
    return [new_version(version.key, base=version.version) for version in versions]
