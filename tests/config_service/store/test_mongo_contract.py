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

from config_service.domain.keys import ConfigKey
from config_service.store.journal.mongo import MongoJournal
from config_service.store.journal.record import Record
from config_service.store.journal.store import JournalStore
from config_service.store.protocol import ConfigStore, VersionConflictError
from config_service.testing import StoreContract, check_laws, new_version

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


def test_a_stalled_process_holds_up_nobody_and_takes_a_later_revision(mongodb_url: str) -> None:
    """What it was about to append is decided anew on what the other has made, or refused for it."""

    async def scenario() -> None:
        first, second = HeldStore(HeldJournal(mongodb_url)), JournalStore(MongoJournal(mongodb_url))
        await first.open()
        await second.open()
        async with first.held_journal.armed() as held:
            slow = asyncio.ensure_future(first.commit_version(new_version(ConfigKey("slow"))))
            await held()
            assert (await second.commit_version(new_version(ConfigKey("fast")))).revision == 1
        assert (await slow).revision == 2
        async with first.held_journal.armed() as held:
            overtaken = asyncio.ensure_future(first.commit_version(new_version(ConfigKey("fast"), base=1)))
            await held()
            await second.commit_version(new_version(ConfigKey("fast"), base=1))
        with pytest.raises(VersionConflictError):
            await overtaken
        assert [entry.revision for entry in await second.log(0, 10)] == [1, 2, 3]
        for store in (first, second):
            await check_laws(store)
            await store.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
