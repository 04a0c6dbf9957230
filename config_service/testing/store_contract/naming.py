"""The contract of savepoints and of the archive: versions with a name are kept, and what goes is told for good."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from ...backup.reading import read_everything
from ...domain.keys import ConfigKey
from ...domain.records import ChangeKind, LogEntry, Record, Savepoint, Version
from ...store.protocol import SavepointConflictError
from .suite import (
    HUGE,
    NOON,
    ORDERS,
    StoreSuite,
    everything,
    new_archive,
    new_draft,
    new_savepoint,
    new_version,
    scenario,
)

_OTHERS: Final = (ConfigKey("orders", "prod"), ConfigKey("orders", "default", "next"), ConfigKey("ORDERS"))


class NamingLaws(StoreSuite):
    """A savepoint is a change of its own; an archive takes documents away and nothing else."""

    @scenario
    async def test_a_savepoint_is_set_moved_and_removed_by_entries_of_its_own(self, tmp_path: Path) -> None:
        """Each takes a revision and names the version; a name is unique per key, and in order of its text."""
        async with self.opened(tmp_path) as store:
            for base in range(2):
                await store.commit_version(new_version(base=base))
            made = [
                await store.commit_savepoint(new_savepoint("b", 1)),
                await store.commit_savepoint(new_savepoint("B", 1)),
                await store.commit_savepoint(new_savepoint("a", 2)),
                await store.commit_savepoint(new_savepoint("b", 2, base=1)),
                await store.commit_savepoint(new_savepoint("a", None, base=2)),
            ]
            assert await store.log(2, 10) == made
            assert [(entry.kind, entry.savepoint, entry.version) for entry in made[2:]] == [
                (ChangeKind.SAVEPOINT_SET, "a", 2),
                (ChangeKind.SAVEPOINT_SET, "b", 2),
                (ChangeKind.SAVEPOINT_REMOVED, "a", 2),
            ]
            assert await store.savepoints(ORDERS) == [Savepoint.of(made[1]), Savepoint.of(made[3])]
            assert [await store.savepoints(key) for key in _OTHERS] == [[], [], []]
        async with self.opened(tmp_path) as store:
            assert [one.name for one in await store.savepoints(ORDERS)] == ["B", "b"]

    @scenario
    async def test_a_savepoint_on_another_base_or_on_no_document_is_refused(self, tmp_path: Path) -> None:
        """The error tells what the name stands for; nothing is changed."""
        async with self.opened(tmp_path) as store:
            for base, document in enumerate((b"1", b"2", None, b"4")):
                await store.commit_version(new_version(base=base, document=document))
            await store.commit_savepoint(new_savepoint(version=2))
            await store.archive_versions(new_archive(1))
            before = await everything(store)
            wrong = [
                (new_savepoint(version=4), 2),
                (new_savepoint(version=4, base=4), 2),
                (new_savepoint(version=None, base=4), 2),
                (new_savepoint("other", version=None), 0),
                *((new_savepoint("other", version=number), 0) for number in (1, 3, 5, 0, -1, HUGE)),
            ]
            for change, found in wrong:
                with pytest.raises(SavepointConflictError) as caught:
                    await store.commit_savepoint(change)
                assert (caught.value.key, caught.value.found) == (ORDERS, found)
            assert await everything(store) == before

    @scenario
    async def test_an_archive_takes_the_documents_that_may_go_and_nothing_else(self, tmp_path: Path) -> None:
        """Not of the newest, the running, a named one, the base of a draft, or one that is not old enough."""
        late = NOON + timedelta(hours=1)
        async with self.opened(tmp_path) as store:
            for base in range(5):
                await store.commit_version(new_version(base=base, document=b"%d" % base))
            await store.commit_version(new_version(base=5, document=None, kind=ChangeKind.DELETED))
            await store.commit_version(new_version(base=6, timestamp=late))
            await store.commit_version(new_version(base=7))
            await store.commit_version(new_version(base=8, valid_from=late))
            for key in _OTHERS:
                for base in range(2):
                    await store.commit_version(new_version(key, base=base))
            await store.commit_savepoint(new_savepoint(version=2))
            await store.replace_draft(ORDERS, None, new_draft(base=3))
            before = await everything(store)
            entry = await store.archive_versions(new_archive(*range(1, 12), before=late))
            assert entry == LogEntry(17, ChangeKind.ARCHIVED, 7, NOON, key=ORDERS, archived=(1, 4, 5))
            assert await store.log(16, 10) == [entry]
            after = await everything(store)
            expected = [
                replace(version, document=None, archived=17) if (version.key, version.version) in _gone else version
                for history in before.versions
                for version in history
                for _gone in [{(ORDERS, 1), (ORDERS, 4), (ORDERS, 5)}]
            ]
            assert [version for history in after.versions for version in history] == expected
            assert after.histories == [[version.info for version in history] for history in after.versions]
            assert (after.drafts, after.savepoints) == (before.drafts, before.savepoints)
            assert not any(version.deleted for version in expected if version.archived)
        async with self.opened(tmp_path) as store:
            assert replace(await everything(store), position=after.position) == after

    @scenario
    async def test_archiving_again_changes_nothing(self, tmp_path: Path) -> None:
        """Nor does archiving what may not go, or is not there: no revision is taken."""
        async with self.opened(tmp_path) as store:
            for base in range(3):
                await store.commit_version(new_version(base=base))
            assert await store.archive_versions(new_archive(2)) is not None
            before = await everything(store)
            for versions in ((), (2,), (3,), (0, -1, 99, HUGE)):
                assert await store.archive_versions(new_archive(*versions)) is None
            assert await store.archive_versions(new_archive(1, before=NOON)) is None
            assert await store.archive_versions(new_archive(1, key=ConfigKey("unknown"))) is None
            assert await everything(store) == before
            entry = await store.archive_versions(new_archive(1, 2))
            assert entry is not None
            assert entry.archived == (1,)

    @scenario
    async def test_a_name_and_an_archive_at_once_come_about_in_one_order(self, tmp_path: Path) -> None:
        """Either the version has the name and stays, or it goes and is given no name."""
        async with self.opened(tmp_path) as store:
            for base in range(9):
                await store.commit_version(new_version(base=base))
            for number in range(1, 9):
                named, archived = await asyncio.gather(
                    store.commit_savepoint(new_savepoint(f"n{number}", number)),
                    store.archive_versions(new_archive(number)),
                    return_exceptions=True,
                )
                if isinstance(named, LogEntry):
                    assert archived is None
                else:
                    assert isinstance(named, SavepointConflictError)
                    assert isinstance(archived, LogEntry)

    @scenario
    async def test_what_is_named_or_archived_while_a_backup_is_read_is_restored(self, tmp_path: Path) -> None:
        """Whoever follows the log, as a restored store does, comes to the same names and misses the same documents."""
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()
        async with self.opened(tmp_path / "first") as first, self.opened(tmp_path / "second") as second:
            for base in range(4):
                await first.commit_version(new_version(base=base))
            await first.commit_savepoint(new_savepoint("old", 1))
            await first.commit_savepoint(new_savepoint("gone", 1))
            records: list[Record] = []
            async for record in read_everything(first):
                records.append(record)
                if isinstance(record, Version) and record.version == 4:
                    await first.commit_savepoint(new_savepoint("gone", None, base=1))
                    await first.commit_savepoint(new_savepoint("old", 2, base=1))
                    await first.archive_versions(new_archive(1, 2, 3))
            position = await second.restore(_stream(records), "f" * 24)
            told_by_first = replace(await everything(first), position=position, head=await second.head())
            assert await everything(second) == told_by_first
            assert [one.archived for one in await second.versions(ORDERS)] == [9, None, 9, None]


async def _stream(records: list[Record]) -> AsyncIterator[Record]:
    for record in records:
        yield record
