"""A crash between any two steps of any change to plain files: what was acknowledged is there, and the store opens."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config_service.backup.reading import read_everything
from config_service.domain.errors import StoreCorruptError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import Record, SealCheck
from config_service.domain.sealing import Resealed, SealedKind, SealedPlace
from config_service.store.journal import directory
from config_service.store.journal.files import FilesJournal
from config_service.store.journal.store import JournalStore
from config_service.testing import check_laws, new_archive, new_draft, new_schema, new_token, new_version

ORDERS = ConfigKey("orders")


@dataclass
class Crashes:
    """Copies of the directory as a crash before or after every step would have left it, and what was answered by then.

    Before a step, what was not synced yet is cut in half, as a power cut may leave it; after it, it is whole.
    """

    place: Path
    copies: Path
    answered: int = 0
    taken: list[tuple[Path, int]] = field(default_factory=list)
    synced: set[int] = field(default_factory=set)
    syncs: bool = True

    def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Crash at every step from here on; what is there has been synced."""
        self.copies.mkdir()
        self.synced = {inode for inode, _ in self._files()}
        for step in ("sync", "give_name"):
            monkeypatch.setattr(directory, step, self._around(getattr(directory, step)))

    def _around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> None:
            self._copy(torn=True)
            step(*args)
            if self.syncs and isinstance(args[0], int):
                self.synced.add(os.fstat(args[0]).st_ino)
            self._copy()

        return run

    def _copy(self, *, torn: bool = False) -> None:
        target = self.copies / str(len(self.taken))
        shutil.copytree(self.place, target)
        there = self._files()
        self.synced &= {inode for inode, _ in there}
        for inode, path in there:
            if torn and inode not in self.synced:
                copied = target / path.relative_to(self.place)
                os.truncate(copied, copied.stat().st_size // 2)
        self.taken.append((target, self.answered))

    def _files(self) -> list[tuple[int, Path]]:
        return [(path.stat().st_ino, path) for path in self.place.rglob("*") if path.is_file()]


async def revision_of(place: Path) -> tuple[int, int]:
    """Open the store in ``place``, check its laws, and return its revision, after which it takes one more change."""
    store = JournalStore(FilesJournal(place))
    await store.open()
    try:
        await check_laws(store)
        revision = (await store.position()).revision
        made = await store.commit_version(new_version(ConfigKey("after-the-crash")))
        assert list((place / "growing").iterdir()) == []
        return revision, made.revision
    finally:
        await store.close()


def test_a_crash_at_any_step_loses_nothing_that_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits, drafts, new seals, an archive: each is there wholly or not at all, and the next change follows."""
    crashes = Crashes(tmp_path / "store", tmp_path / "copies")

    async def scenario() -> None:
        store = JournalStore(FilesJournal(crashes.place))
        await store.open()
        crashes.begin(monkeypatch)
        place = SealedPlace(SealedKind.DOCUMENT, ORDERS, 1)
        revisions = 0
        for change, taken in (
            (store.commit_version(new_version()), 1),
            (store.replace_draft(ORDERS, None, new_draft(base=1)), 0),
            (store.commit_version(new_version(base=1, draft=b"sealed draft")), 1),
            (store.commit_versions([new_version(ConfigKey(name)) for name in "ab"]), 2),
            (store.commit_schema(new_schema()), 1),
            (store.commit_token(new_token()), 1),
            (store.reseal([Resealed(place, b"sealed", b"anew")]), 0),
            (store.archive_versions(new_archive(1)), 1),
        ):
            await change
            revisions += taken
            crashes.answered = revisions
        await store.close()

    asyncio.run(scenario())
    monkeypatch.undo()
    assert len(crashes.taken) > 50
    for copy, answered in crashes.taken:
        revision, after = asyncio.run(revision_of(copy))
        # What was about to be answered may be there already, all of it.
        assert revision >= answered
        assert after == revision + 1
        assert revision != 3


def test_a_crash_at_any_step_of_a_restore_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is the empty one, or the whole restored one."""
    crashes = Crashes(tmp_path / "store", tmp_path / "copies")

    async def scenario() -> int:
        first, second = JournalStore(FilesJournal(tmp_path / "first")), JournalStore(FilesJournal(crashes.place))
        await first.open()
        for base in range(5):
            await first.commit_version(new_version(base=base))
        await first.replace_draft(ORDERS, None, new_draft(base=5))
        check = SealCheck(await first.seal_check(b"check"))

        async def records() -> AsyncIterator[Record]:
            yield check
            async for one in read_everything(first):
                yield one

        await second.open()
        crashes.begin(monkeypatch)
        position = await second.restore(records(), "f" * 24)
        await second.close()
        await first.close()
        return position.revision

    whole = asyncio.run(scenario())
    monkeypatch.undo()
    found = [asyncio.run(revision_of(copy))[0] for copy, _ in crashes.taken]
    assert set(found) == {0, whole}
    assert found == sorted(found)


def test_a_name_that_is_given_before_the_sync_would_be_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crashes above are not harmless: where nothing is synced, one of them leaves a torn record under its name."""
    crashes = Crashes(tmp_path / "store", tmp_path / "copies", syncs=False)

    async def scenario() -> None:
        store = JournalStore(FilesJournal(crashes.place))
        await store.open()
        crashes.begin(monkeypatch)
        await store.commit_version(new_version())
        await store.close()

    asyncio.run(scenario())
    monkeypatch.undo()

    async def open_every_copy() -> None:
        for copy, _ in crashes.taken:
            await revision_of(copy)

    with pytest.raises(StoreCorruptError, match="is torn"):
        asyncio.run(open_every_copy())
