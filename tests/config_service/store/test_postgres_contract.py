"""The SQL store on PostgreSQL keeps every law of a store of record, also where several processes use it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from postgres import PostgresServer
from turnstile import Turnstile, before_every_commit

from config_service.domain.keys import ConfigKey
from config_service.domain.records import Version
from config_service.store.protocol import ConfigStore, KeyConflictError, VersionConflictError
from config_service.store.sql import SqlStore
from config_service.testing import StoreContract, check_laws, new_draft, new_rotation, new_token, new_version
from config_service.testing.store_contract.suite import NOON

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


def run(scenario: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


@asynccontextmanager
async def replicas(url: str, number: int = 3) -> AsyncIterator[list[SqlStore]]:
    """Open ``number`` stores on one database, at the end of which the laws are checked."""
    stores = [SqlStore(url) for _ in range(number)]
    # All at once on an empty database: one of them makes the tables, and the others wait for it.
    await asyncio.gather(*(store.open() for store in stores))
    try:
        yield stores
        for store in stores:
            await check_laws(store)
    finally:
        await asyncio.gather(*(store.close() for store in stores))


def test_replicas_that_start_at_once_make_one_history(postgres_url: str) -> None:
    """Whoever of them makes the tables, all are in the same epoch, and what one commits the others read."""

    async def scenario() -> None:
        async with replicas(postgres_url, 6) as stores:
            positions = [await store.position() for store in stores]
            assert len(set(positions)) == 1
            for base, store in enumerate(stores):
                await store.commit_version(new_version(base=base))
            assert {await store.position() for store in stores} == {await stores[0].position()}
            assert (await stores[0].position()).revision == len(stores)

    run(scenario())


def test_writers_of_several_processes_make_one_line_of_revisions(postgres_url: str) -> None:
    """Commits that race from three stores take revisions without gaps, and each names the one it was given."""

    async def write(store: SqlStore, key: ConfigKey) -> list[int]:
        taken = []
        while len(taken) < 12:
            try:
                made = await store.commit_version(new_version(key, len(await store.versions(key))))
            except VersionConflictError:
                continue
            taken.append(made.revision)
        return taken

    async def scenario() -> None:
        async with replicas(postgres_url) as stores:
            keys = (ORDERS, ConfigKey("billing"))
            taken = await asyncio.gather(*(write(store, key) for store in stores for key in keys))
            assert sorted(revision for some in taken for revision in some) == list(range(1, 6 * 12 + 1))
            assert all(some == sorted(some) for some in taken)

    run(scenario())


def test_a_stalled_replica_holds_up_the_others_and_is_not_overtaken(postgres_url: str) -> None:
    """Commit order is revision order across processes: a reader of the log never sees 2 before 1."""

    async def scenario() -> None:
        async with replicas(postgres_url) as (first, second, third):
            async with TURNSTILE.armed() as held:
                slow = asyncio.ensure_future(first.commit_version(new_version(ConfigKey("slow"))))
                await held()
                fast = asyncio.ensure_future(second.commit_version(new_version(ConfigKey("fast"))))
                draft = asyncio.ensure_future(third.replace_draft(ORDERS, None, new_draft()))
                done, _ = await asyncio.wait({fast, draft}, timeout=0.3)
                assert not done
                assert await third.log(0, 10) == []
            assert (await slow).revision == 1
            assert (await fast).revision == 2
            await draft

    run(scenario())


def test_changes_of_one_token_from_several_processes_are_made_one_by_one(postgres_url: str) -> None:
    """Rotations and revocations at once: no deadlock, no key lost, and after the revocation no rotation."""

    async def rotate(store: SqlStore, token_id: int, key: bytes) -> bool:
        while (token := await store.token(token_id)) is not None and token.revoked_at is None:
            try:
                return await store.rotate_token_keys(new_rotation(token, key)) is not None
            except KeyConflictError:
                continue
        return False

    async def scenario() -> None:
        async with replicas(postgres_url) as stores:
            for round_ in range(4):
                token, _ = await stores[0].commit_token(new_token(f"token {round_}", keys=()))
                keys = [bytes([number]) for number in range(6)]
                rotations = [rotate(stores[number % 3], token.id, key) for number, key in enumerate(keys)]
                if round_ % 2:
                    revoked = await asyncio.gather(
                        *rotations, *(store.revoke_token(token.id, 7, NOON) for store in stores)
                    )
                    assert sum(entry is not None for entry in revoked[len(keys) :]) == 1
                    made = [key for key, done in zip(keys, revoked, strict=False) if done]
                else:
                    assert all(await asyncio.gather(*rotations))
                    made = keys
                held = await stores[1].token(token.id)
                assert held is not None
                assert sorted(key.sealed for key in held.keys) == sorted(made)

    run(scenario())


def test_one_of_many_processes_wins_a_base(postgres_url: str) -> None:
    """Compare-and-set has one winner, whichever process asks."""

    async def scenario() -> None:
        async with replicas(postgres_url) as stores:
            for base in range(5):
                outcomes = await asyncio.gather(
                    *(store.commit_version(new_version(base=base)) for store in stores), return_exceptions=True
                )
                assert sum(isinstance(outcome, Version) for outcome in outcomes) == 1
                assert sum(isinstance(outcome, VersionConflictError) for outcome in outcomes) == len(stores) - 1

    run(scenario())
