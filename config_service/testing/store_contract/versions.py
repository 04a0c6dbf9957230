"""The contract of versions: what is committed is kept as it is, under its key alone."""

# ruff: noqa: S101, S311 - a test asserts, and its chance is not for secrets

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import pytest

from ...domain.keys import ConfigKey
from ...domain.records import ChangeKind, Version
from ...store.protocol import VersionConflictError
from .suite import HUGE, ORDERS, StoreSuite, every_version, everything, new_version, scenario, told

ALIKE: Final = (
    ("a", "b", "c"),
    ("a", "c", "b"),
    ("b", "a", "c"),
    ("A", "b", "c"),
    ("a", "B", "c"),
    ("a", "b", "C"),
    ("ab", "c", "d"),
    ("a", "bc", "d"),
    ("a", "b", "c/d"),
    ("a", "b", "c/d/e"),
    ("a", "b", "c/D"),
    ("a_b", "b", "c"),
    ("a-b", "b", "c"),
    ("a.b", "b", "c"),
    ("axb", "b", "c"),
    ("a.", "b-", "c_"),
    ("0", "0", "0"),
    ("x" * 128, "x" * 128, "x" * 128),
    ("x" * 127, "x" * 128, "x" * 128),
    ("default", "main", "default"),
)


class VersionLaws(StoreSuite):
    """Versions never change, have no gaps, and keys never touch each other."""

    @scenario
    async def test_a_commit_returns_what_is_kept(self, tmp_path: Path) -> None:
        """Every field of a change is read back as committed, beside the version and the revision it got."""
        async with self.opened(tmp_path) as store:
            change = new_version()
            version = await store.commit_version(change)
            assert version == Version(
                change.key, 1, 1, change.kind, change.changed_by, change.timestamp, change.document, None
            )
            assert await store.version(ORDERS, 1) == version
            assert await store.versions(ORDERS) == [version.info]
            assert [found async for found in store.newest_versions()] == [version]
            assert await store.log(0, 10) == [told(version)]

    @scenario
    async def test_a_commit_on_another_base_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        """The error names the newest version; a base too low, too high or missing makes neither version nor gap."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            await store.commit_version(new_version(base=1))
            before = await everything(store)
            for base in (0, 1, 3, 99):
                with pytest.raises(VersionConflictError) as refusal:
                    await store.commit_version(new_version(base=base))
                assert refusal.value.newest == 2
            with pytest.raises(VersionConflictError) as refusal:
                await store.commit_version(new_version(ConfigKey("unknown"), base=1))
            assert refusal.value.newest == 0
            assert await everything(store) == before

    @scenario
    async def test_a_delete_is_a_version_and_the_next_publish_comes_after_it(self, tmp_path: Path) -> None:
        """A tombstone takes a number, stays in the history, and is the newest version until the next publish."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            deleted = await store.commit_version(new_version(base=1, document=None, kind=ChangeKind.DELETED))
            assert deleted.deleted
            assert [found async for found in store.newest_versions()] == [deleted]
            revived = await store.commit_version(new_version(base=2, document=b""))
            assert (revived.version, revived.deleted) == (3, False)
            assert [version.deleted for version in await store.versions(ORDERS)] == [False, True, False]

    @scenario
    async def test_a_rollback_remembers_where_its_document_came_from(self, tmp_path: Path) -> None:
        """``source_version`` and the kind of change are kept."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            await store.commit_version(new_version(base=1, document=b"other"))
            change = new_version(base=2, kind=ChangeKind.ROLLED_BACK, source_version=1)
            rolled_back = await store.commit_version(change)
            assert (rolled_back.source_version, rolled_back.kind) == (1, ChangeKind.ROLLED_BACK)
            assert await store.version(ORDERS, 3) == rolled_back

    @scenario
    async def test_documents_are_kept_byte_for_byte(self, tmp_path: Path) -> None:
        """From no byte at all, which is no tombstone, to 1 MiB, with every value a byte can have."""
        documents = (b"", b"\0", bytes(range(256)), b"\xff" * 4096, random.Random(1).randbytes(2**20))
        async with self.opened(tmp_path) as store:
            for base, document in enumerate(documents):
                committed = await store.commit_version(new_version(base=base, document=document))
                assert committed.document == document
            assert [version.document for version in await every_version(store, ORDERS)] == list(documents)
        async with self.opened(tmp_path) as store:
            assert [version.document for version in await every_version(store, ORDERS)] == list(documents)

    @scenario
    async def test_a_history_tells_every_version_without_its_document(self, tmp_path: Path) -> None:
        """Everything else is as committed, and a document of no bytes is not taken for a tombstone."""
        changes = (
            new_version(document=b""),
            new_version(base=1, document=None, kind=ChangeKind.DELETED),
            new_version(base=2, kind=ChangeKind.ROLLED_BACK, source_version=1),
        )
        async with self.opened(tmp_path) as store:
            committed = [await store.commit_version(change) for change in changes]
            history = await store.versions(ORDERS)
            assert history == [version.info for version in committed]
            assert [one.deleted for one in history] == [False, True, False]
            assert [one.source_version for one in history] == [None, None, 1]

    @scenario
    async def test_times_are_kept_to_the_microsecond_and_as_instants(self, tmp_path: Path) -> None:
        """A time with an offset reads back as the same instant, in UTC."""
        moments = (
            datetime(2026, 1, 1, tzinfo=timezone.utc),
            datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc),
            datetime(2026, 7, 1, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            datetime(1970, 1, 1, 0, 0, 0, 100000, tzinfo=timezone(-timedelta(hours=12))),
        )
        async with self.opened(tmp_path) as store:
            for base, moment in enumerate(moments):
                await store.commit_version(new_version(base=base, timestamp=moment))
            kept = [version.timestamp for version in await store.versions(ORDERS)]
            assert kept == list(moments)
            assert {moment.utcoffset() for moment in kept} == {timedelta()}

    @scenario
    async def test_keys_of_every_legal_shape_are_kept_apart(self, tmp_path: Path) -> None:
        """Keys that differ in case, in a wildcard of some query language, or in where a part ends are different."""
        keys = [ConfigKey.of(*parts) for parts in ALIKE]
        async with self.opened(tmp_path) as store:
            for number, key in enumerate(keys):
                await store.commit_version(new_version(key, document=str(number).encode()))
            for number, key in enumerate(keys):
                assert [version.document for version in await every_version(store, key)] == [str(number).encode()]
                await store.commit_version(new_version(key, base=1))
            assert {version.key async for version in store.newest_versions()} == set(keys)

    @scenario
    async def test_what_is_not_there_is_none_or_empty(self, tmp_path: Path) -> None:
        """An unknown key, a version or a place in the log that does not exist, and absurd numbers are no errors."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            unknown = ConfigKey("unknown")
            assert await store.versions(unknown) == []
            assert await store.version(unknown, 1) is None
            for number in (-1, 0, 2, HUGE):
                assert await store.version(ORDERS, number) is None
            assert await store.log(1, 10) == []
            assert await store.log(HUGE, 10) == []
            assert await store.log(0, 0) == []
            assert len(await store.log(0, HUGE)) == 1

    @scenario
    async def test_the_log_is_read_in_pages(self, tmp_path: Path) -> None:
        """At most ``limit`` entries come, in order, beginning after ``after``."""
        async with self.opened(tmp_path) as store:
            for base in range(10):
                await store.commit_version(new_version(base=base))
            pages = [[entry.revision for entry in await store.log(after, 4)] for after in (0, 4, 8, 10)]
            assert pages == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], []]
