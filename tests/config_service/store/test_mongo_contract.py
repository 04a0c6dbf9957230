"""The store in MongoDB keeps every law of a store of record, on whatever server speaks its protocol."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from mongo import MongoServer

from config_service.store.journal.mongo import MongoJournal
from config_service.store.journal.record import Record
from config_service.store.journal.store import JournalStore
from config_service.store.protocol import ConfigStore
from config_service.testing import StoreContract

pytestmark = pytest.mark.integration


class HeldJournal(MongoJournal):
    """Stops the next record before it is sent while it is armed; the others pass."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._armed = threading.Semaphore(0)
        self._reached = threading.Event()
        self._opened = threading.Event()

    def append(self, record: Record) -> bool:
        if self._armed.acquire(blocking=False):
            self._reached.set()
            assert self._opened.wait(30)
        return super().append(record)

    @asynccontextmanager
    async def armed(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        self._reached.clear()
        self._opened.clear()
        self._armed.release()
        try:
            yield self.reached
        finally:
            self._opened.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30)


class HeldStore(JournalStore):
    """A store that can be stalled."""

    def __init__(self, journal: HeldJournal) -> None:
        super().__init__(journal)
        self.held_journal = journal


@pytest.mark.long
class TestMongo(StoreContract):
    """Every law, in MongoDB."""

    @pytest.fixture(autouse=True)
    def _take_server(self, mongodb: MongoServer) -> Iterator[None]:
        self.server = mongodb
        yield
        mongodb.drop()

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store in the database of ``directory``."""
        return HeldStore(
            HeldJournal(self.server.database(f"test_{hashlib.sha256(str(directory).encode()).hexdigest()[:24]}"))
        )

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Stop the store's thread that writes where a record is about to be sent."""
        assert isinstance(store, HeldStore)
        return store.held_journal.armed()
