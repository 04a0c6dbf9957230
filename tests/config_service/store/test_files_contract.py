"""The store in plain files keeps every law of a store of record."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from config_service.domain.errors import StoreError
from config_service.store.journal import directory
from config_service.store.journal.files import FilesJournal
from config_service.store.journal.protocol import Cell, Growing
from config_service.store.journal.record import Record
from config_service.store.journal.store import JournalStore
from config_service.store.protocol import ConfigStore, StoreConflictError
from config_service.testing import StoreContract


class Turnstile:
    """Stops the next file before it gets its name while it is armed; the others pass."""

    def __init__(self) -> None:
        self._armed = threading.Semaphore(0)
        self._reached = threading.Event()
        self._opened = threading.Event()

    def link(self, source: Path, target: Path) -> None:
        if self._armed.acquire(blocking=False):
            self._reached.set()
            assert self._opened.wait(30)
        os.link(source, target)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30)

    @asynccontextmanager
    async def armed(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        self._reached.clear()
        self._opened.clear()
        self._armed.release()
        try:
            yield self.reached
        finally:
            self._opened.set()


TURNSTILE = Turnstile()


@pytest.fixture(scope="module", autouse=True)
def _turnstile_before_every_name() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "give_name", TURNSTILE.link)
        # No law here is about power: the suite need not wait for the disk.
        patch.setattr(directory, "sync", lambda _descriptor: None)
        yield


class FilesContract(StoreContract):
    """The contract in plain files; below it runs as it is, and on journals with a duty broken."""

    journal_type: type[FilesJournal] = FilesJournal

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store in a directory of ``directory``."""
        return JournalStore(self.journal_type.from_url(f"file://{directory}/store"))

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Stop the store's thread that writes where a record is about to get its name."""
        return TURNSTILE.armed()


class TestFiles(FilesContract):
    """Every law, in plain files."""


class LosesRecords(FilesJournal):
    """Acknowledges every record, and keeps all but the fifth."""

    def append(self, record: Record) -> bool:
        return True if record.number == 5 else super().append(record)


class LosesDocuments(FilesJournal):
    """Keeps what is told of a document, and not the document."""

    def append(self, record: Record) -> bool:
        return super().append(replace(record, documents={}))


class NeverAmends(FilesJournal):
    """Leaves a record as it was, whatever is to be sealed anew."""

    def amend(self, record: Record) -> bool:
        return bool(record.number)


class RestoresInPlace(FilesJournal):
    """Fills the present history, all of it or as much as comes."""

    def restore(self, epoch: str, fill: Callable[[Growing], None]) -> bool:
        fill(self)
        return True


class ForgetsCells(FilesJournal):
    """Takes a draft away, and says that it is in place."""

    def swap(self, name: str, before: bytes | None, after: Cell | None) -> bool:
        return super().swap(name, before, after if before is None else None)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (LosesRecords, "test_reopening_keeps_everything"),
        (LosesDocuments, "test_documents_are_kept_byte_for_byte"),
        (NeverAmends, "test_values_are_sealed_anew_in_their_places_and_nothing_else_changes"),
        (RestoresInPlace, "test_a_restore_that_is_cut_leaves_the_store_empty"),
        (ForgetsCells, "test_a_draft_is_replaced_and_removed_by_who_has_seen_it"),
    ],
)
def test_a_journal_that_breaks_its_duty_fails_the_suite(broken: type[FilesJournal], law: str, tmp_path: Path) -> None:
    """A store is no better than its journal, and the suite notices."""

    class Contract(FilesContract):
        journal_type = broken

    with pytest.raises((AssertionError, StoreError, StoreConflictError, pytest.fail.Exception)):
        getattr(Contract(), law)(tmp_path)
