"""The store in MongoDB keeps every law of a store of record, on whatever server speaks its protocol."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import mongo
import pytest
from pymongo import MongoClient

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server, without a database."""
    url = os.environ.get("MONGODB_URL")
    if url is not None:
        yield url.rstrip("/")
        return
    binary = mongo.find_server()
    if binary is None:
        pytest.skip(mongo.MISSING)
    with mongo.running_server(binary, tmp_path_factory.mktemp("mongo")) as url:
        yield url


@pytest.mark.usefixtures("databases")
class TestMongo(StoreContract):
    """Every law, in MongoDB."""

    server = ""

    @pytest.fixture
    def databases(self, server: str) -> Iterator[None]:
        """Every directory of a test has a database of its own, dropped at its end."""
        type(self).server = server
        self.used: set[str] = set()
        yield
        with MongoClient[dict[str, object]](server) as client:
            for name in self.used:
                client.drop_database(name)

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store in the database of ``directory``."""
        name = f"test_{hashlib.sha256(str(directory).encode()).hexdigest()[:24]}"
        self.used.add(name)
        return HeldStore(HeldJournal(f"{self.server}/{name}"))

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Stop the store's thread that writes where a record is about to be sent."""
        assert isinstance(store, HeldStore)
        return store.held_journal.armed()
