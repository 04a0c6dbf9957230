"""Copying a store that no service uses, and making a store of a copy: the work behind ``backup`` and ``restore``.

Opens stores, each under its lock; nothing here is loaded before it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from ..app import utc_now
from ..backup.chain import DamagedFileError
from ..backup.files import BackupReader, read_records
from ..backup_operations import backup_lines
from ..domain.epochs import later_epoch
from ..domain.records import ChangeKind, Draft, LogEntry, Record, SealCheck, StoredSchema, Version, WrappedKey
from ..security.at_rest import Vault
from ..settings import Settings
from ..store.protocol import ConfigStore, StoreNotEmptyError
from ..store.urls import create_store
from ..token_operations import SYSTEM
from .backup_files import described
from .exits import CommandError, ExitCode
from .starting import start_failures

_BEFORE_THE_END = (SealCheck, WrappedKey, Draft, LogEntry, Version, StoredSchema)
"""Records that come before the log has ended."""


def copy_store(store_url: str, take: Callable[[bytes], None]) -> None:
    """Give ``take`` the backup of the store of ``store_url``, which nobody else may be using. Raises CommandError."""

    async def copy() -> None:
        settings = Settings.load(store_url=store_url)
        vault = Vault(*settings.all_master_keys())
        async with _opened(settings, create=False) as store:
            if not (await store.position()).revision:
                raise CommandError("the store is empty: is --store-url the one that was meant?", ExitCode.NOT_FOUND)
            vault.verify_check(await store.seal_check(vault.new_check()))
            async for line in backup_lines(store, vault, utc_now()):
                take(line)

    with start_failures():
        asyncio.run(copy())


def check_backup(lines: Iterable[bytes]) -> dict[str, object]:
    """Read a backup to its end and return what it is. Raises DamagedFileError or CommandError."""
    with start_failures():
        vault = Vault(*Settings.load().all_master_keys())
        reader = BackupReader(vault.verify_backup)
        for record in read_records(lines, reader):
            _verify(record, vault)
    return described(reader)


def restore_backup(lines: Iterable[bytes], store_url: str | None, after: str | None) -> dict[str, object]:
    """Make the empty store of ``store_url`` what the backup tells, and return what it is now.

    Raises DamagedFileError, CommandError, or InvalidRequestError for ``after``; then nothing was restored.
    """
    if after:
        later_epoch(utc_now(), after)
    with start_failures():
        settings = Settings.load(**({} if store_url is None else {"store_url": store_url}))
        vault = Vault(*settings.all_master_keys())
        return asyncio.run(_restore(lines, settings, vault, after))


async def _restore(lines: Iterable[bytes], settings: Settings, vault: Vault, after: str | None) -> dict[str, object]:
    reader = BackupReader(vault.verify_backup)
    records = read_records(lines, reader)
    # The header stands in the first line, so it is known once the first record is.
    first = next(records, None)
    if reader.header is None or first is None:
        raise DamagedFileError("the backup holds nothing; use another copy")
    now = utc_now()
    async with _opened(settings) as store:
        here = (await store.position()).epoch
        epoch = later_epoch(now, reader.header.epoch, here, *([after] if after else []))
        try:
            entries = _with_its_own_entry(_joined(first, records), vault, now, epoch)
            position = await store.restore(entries, epoch)
        except StoreNotEmptyError as error:
            refusal = str(error)
        else:
            return {**described(reader), "restored_epoch": position.epoch, "restored_revision": position.revision}
    raise CommandError(refusal, ExitCode.CONFLICT)


async def _with_its_own_entry(
    records: Iterator[Record], vault: Vault, now: datetime, epoch: str
) -> AsyncIterator[Record]:
    """Yield ``records``, and where their log ends the entry that tells of this restore, linked if they are."""
    newest, told = LogEntry(0, ChangeKind.RESTORED, SYSTEM, now), False
    keys: list[WrappedKey] = []
    for record in records:
        _verify(record, vault)
        if isinstance(record, WrappedKey):
            keys.append(record)
        elif isinstance(record, LogEntry):
            newest = replace(record, link=record.link or newest.link)
        elif not isinstance(record, _BEFORE_THE_END) and not told:
            yield _own_entry(newest, keys, vault, now, epoch)
            told = True
        yield record
    if not told:
        yield _own_entry(newest, keys, vault, now, epoch)


def _own_entry(newest: LogEntry, keys: list[WrappedKey], vault: Vault, now: datetime, epoch: str) -> LogEntry:
    entry = LogEntry(newest.revision + 1, ChangeKind.RESTORED, SYSTEM, now)
    if newest.link is None:
        return entry
    vault.hold(keys)
    return vault.chain.linked(entry, newest.link, {"epoch": epoch})


def _verify(record: Record, vault: Vault) -> None:
    """Refuse what the master key does not open, before anything else is done. Raises WrongMasterKeyError."""
    if isinstance(record, SealCheck):
        vault.verify_check(record.sealed)


def _joined(first: Record, others: Iterator[Record]) -> Iterator[Record]:
    yield first
    yield from others


@asynccontextmanager
async def _opened(settings: Settings, *, create: bool = True) -> AsyncIterator[ConfigStore]:
    store = create_store(settings.store_url, create=create)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
