"""The store in plain files keeps every law of a store of record."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from config_service.store.journal import directory
from config_service.store.journal.files import FilesJournal
from config_service.store.journal.store import JournalStore
from config_service.store.protocol import ConfigStore
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


class TestFiles(StoreContract):
    """Every law, in plain files."""

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store in a directory of ``directory``."""
        return JournalStore(FilesJournal.from_url(f"file://{directory}/store"))

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Stop the store's thread that writes where a record is about to get its name."""
        return TURNSTILE.armed()
