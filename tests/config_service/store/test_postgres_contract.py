"""The SQL store on PostgreSQL keeps every law of a store of record, also where several processes use it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from postgres import PostgresServer
from turnstile import Turnstile, before_every_commit

from config_service.domain.keys import ConfigKey
from config_service.store.protocol import ConfigStore, VersionConflictError
from config_service.store.sql import SqlStore
from config_service.testing import StoreContract, new_version

ORDERS = ConfigKey("orders")
TURNSTILE = Turnstile()


@pytest.fixture(scope="module", autouse=True)
def _turnstile_before_every_commit() -> Iterator[None]:
    with before_every_commit(TURNSTILE):
        yield


class TestPostgres(StoreContract):
    """Every law, on PostgreSQL."""

    @pytest.fixture(autouse=True)
    def _take_server(self, postgres: PostgresServer) -> None:
        self.server = postgres

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store in a schema named after ``directory``."""
        return SqlStore(self.server.schema(f"of_{hashlib.sha256(str(directory).encode()).hexdigest()[:16]}"))

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Stop the store's thread that writes where SQLAlchemy is about to commit."""
        return TURNSTILE.armed()


def test_many_replicas_that_start_at_once_make_one_history(postgres_url: str) -> None:
    """Whoever of six makes the tables, all are in the same epoch, and what one commits the others read."""

    async def scenario() -> None:
        stores = [SqlStore(postgres_url) for _ in range(6)]
        await asyncio.gather(*(store.open() for store in stores))
        assert len({await store.position() for store in stores}) == 1
        for base, store in enumerate(stores):
            await store.commit_version(new_version(base=base))
        assert {(await store.position()).revision for store in stores} == {len(stores)}
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_commit_is_heard_of_by_who_waits(postgres_url: str) -> None:
    """Long before its time is over, by a process that listened before; nothing is heard of what was rolled back."""

    async def scenario() -> None:
        first, second = SqlStore(postgres_url), SqlStore(postgres_url)
        await first.open()
        await second.open()
        await second.changed(10)  # it listens, and says so once
        with pytest.raises(VersionConflictError):
            await first.commit_version(new_version(base=7))
        waiting = asyncio.ensure_future(second.changed(30))
        assert not (await asyncio.wait({waiting}, timeout=0.2))[0]
        await first.commit_version(new_version())
        await asyncio.wait_for(waiting, 10)
        await second.close()
        await first.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
