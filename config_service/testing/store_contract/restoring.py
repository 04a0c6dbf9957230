"""The contract of restoring: what one store tells makes the same store again, or nothing at all."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from config_client.protocol import Position

from ...backup.codec import decode_record, encode_record
from ...backup.reading import read_everything
from ...domain.keys import ConfigKey
from ...domain.records import ChangeKind, LogEntry, Record, SealCheck
from ...store.protocol import ConfigStore, StoreNotEmptyError
from .suite import (
    NOON,
    ORDERS,
    Everything,
    StoreSuite,
    everything,
    linked,
    new_archive,
    new_draft,
    new_keys,
    new_rotation,
    new_savepoint,
    new_schema,
    new_token,
    new_version,
    scenario,
)

_LATER = "f" * 24
"""An epoch that begins later than any other."""


class RestoringLaws(StoreSuite):
    """A store is restored whole into an empty one, in another epoch, or it stays empty."""

    @scenario
    async def test_drafts_are_listed_by_key(self, tmp_path: Path) -> None:
        """Each once, over several pages, whether its config was ever published or not."""
        keys = sorted(ConfigKey(f"config-{number % 50}", f"e{number}") for number in range(150))
        async with self.opened(tmp_path) as store:
            for key in reversed(keys):
                await store.replace_draft(key, None, new_draft(key))
            assert [draft async for draft in store.drafts()] == [new_draft(key) for key in keys]
            await store.replace_draft(keys[70], b"sealed draft", None)
            assert [draft.key async for draft in store.drafts()] == [key for key in keys if key != keys[70]]

    @scenario
    async def test_a_restored_store_tells_what_the_first_one_told(self, tmp_path: Path) -> None:
        """Log, versions, schemas, drafts, tokens and check value, to the field; only the epoch is another one."""
        async with self.opened(_place(tmp_path, "first")) as first:
            await fill(first)
            records = [SealCheck(await first.seal_check(b"check"))] + [one async for one in read_everything(first)]
            before = await everything(first)
        async with self.opened(_place(tmp_path, "second")) as second:
            position = await second.restore(_stream(records), _LATER)
            assert (position.epoch, position.revision) == (_LATER, before.position.revision)
            assert await everything(second) == _in_epoch(before, _LATER)
        async with self.opened(_place(tmp_path, "second")) as second:
            assert await everything(second) == _in_epoch(before, _LATER)

    @scenario
    async def test_a_record_survives_being_written_down(self, tmp_path: Path) -> None:
        """Whatever a store yields is the same after it was JSON."""
        async with self.opened(tmp_path) as store:
            await fill(store)
            async for record in read_everything(store):
                assert decode_record(encode_record(record)) == record

    @scenario
    async def test_a_restored_store_goes_on_where_the_first_one_stood(self, tmp_path: Path) -> None:
        """The next change takes the next revision, the next version its number, the next token the next id."""
        async with self.opened(_place(tmp_path, "first")) as first:
            await fill(first)
            newest, tokens = (await first.position()).revision, len(await first.tokens())
            versions = len(await first.versions(ORDERS))
            async with self.opened(_place(tmp_path, "second")) as second:
                await second.restore(read_everything(first), _LATER)
                made = await second.commit_version(new_version(base=versions))
                assert (made.version, made.revision) == (versions + 1, newest + 1)
                token, entry = await second.commit_token(new_token("another"))
                assert (token.id, entry.revision) == (tokens + 1, newest + 2)

    @scenario
    async def test_a_store_that_holds_something_is_not_restored_into(self, tmp_path: Path) -> None:
        """A change, or a draft alone: the refusal changes nothing."""
        async with self.opened(_place(tmp_path, "first")) as first:
            await fill(first)
            async with self.opened(_place(tmp_path, "second")) as second:
                await second.replace_draft(ORDERS, None, new_draft())
                with pytest.raises(StoreNotEmptyError):
                    await second.restore(read_everything(first), _LATER)
                assert await second.draft(ORDERS) == new_draft()
            before = await everything(first)
            with pytest.raises(StoreNotEmptyError):
                await first.restore(_stream([]), _LATER)
            assert await everything(first) == before

    @scenario
    async def test_a_restore_that_is_cut_leaves_the_store_empty(self, tmp_path: Path) -> None:
        """Whatever the records raise comes through, and nothing of what was taken before is there."""
        async with self.opened(_place(tmp_path, "first")) as first:
            await fill(first)
            records = [one async for one in read_everything(first)]

        class CutError(Exception):
            """The source ended too early."""

        async def cut(count: int) -> AsyncIterator[Record]:
            for record in records[:count]:
                yield record
            raise CutError

        directory = _place(tmp_path, "second")
        for count in (0, 1, len(records) // 2, len(records)):
            async with self.opened(directory) as second:
                before = await second.position()
                with pytest.raises(CutError):
                    await second.restore(cut(count), _LATER)
                assert await second.position() == before
                assert [one async for one in read_everything(second)] == []
        async with self.opened(directory) as second:
            assert [one async for one in read_everything(second)] == []
            await second.restore(_stream(records), _LATER)
            assert [one async for one in read_everything(second)] == records

    @scenario
    async def test_a_restore_that_is_cancelled_leaves_the_store_empty(self, tmp_path: Path) -> None:
        """However far it had come; the store goes on to be used."""
        async with self.opened(tmp_path) as store:
            reached = asyncio.Event()

            async def endless() -> AsyncIterator[Record]:
                for revision in range(1, 300):
                    yield LogEntry(revision, ChangeKind.RESTORED, 0, NOON)
                reached.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(store.restore(endless(), _LATER))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            version = await store.commit_version(new_version())
            assert version.revision == 1
            assert (await store.position()).epoch != _LATER


async def fill(store: ConfigStore) -> None:
    """Make every kind of thing that a store keeps."""
    await store.seal_check(b"check")
    await store.commit_keys(new_keys(kind=None))
    for token in range(3):
        created, _ = await store.commit_token(new_token(f"service-{token}", expires_at=NOON))
        await store.rotate_token_keys(new_rotation(created))
    await store.revoke_token(2, 7, NOON, linked)
    await store.commit_keys(new_keys(await store.keys()), linked)
    for number, key in enumerate((ORDERS, ConfigKey("orders", "prod"), ConfigKey("a", "b", "release/1"))):
        await store.commit_schema(new_schema(key))
        await store.commit_schema(new_schema(key, base=1, schema=None))
        for base in range(60):
            await store.commit_version(new_version(key, base=base, document=b"%d" % (number + base), schema=2))
        await store.commit_version(new_version(key, base=60, document=None, kind=ChangeKind.DELETED))
        await store.commit_version(new_version(key, base=61, kind=ChangeKind.ROLLED_BACK, source_version=3))
        await store.replace_draft(key, None, new_draft(key, base=5))
    await store.replace_draft(ConfigKey("staged-only"), None, new_draft(ConfigKey("staged-only")))
    later = ConfigKey("later")
    for base in range(4):
        await store.commit_version(new_version(later, base=base, valid_from=NOON))
        if base == 1:
            await store.activate_version(later, 2, NOON)
        if base == 2:
            await store.cancel_schedule(later, 3, 7, NOON)
    await store.commit_savepoint(new_savepoint(version=2))
    await store.commit_savepoint(new_savepoint("moved", 3))
    await store.commit_savepoint(new_savepoint("moved", 4, base=3))
    await store.archive_versions(new_archive(1, 2, 3))


def _in_epoch(before: Everything, epoch: str) -> Everything:
    """Return what a store tells that was restored in ``epoch`` from one that told ``before``."""
    head = replace(before.head, epoch=epoch)
    return replace(before, position=Position(epoch, before.position.revision), head=head)


async def _stream(records: list[Record]) -> AsyncIterator[Record]:
    for record in records:
        yield record


def _place(directory: Path, name: str) -> Path:
    place = directory / name
    place.mkdir(exist_ok=True)
    return place
