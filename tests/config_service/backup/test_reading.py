"""Reading a store as a whole while others write to it: what is read is a store that there could have been."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from config_service.backup import reading
from config_service.backup.reading import read_everything
from config_service.domain.errors import StoreCorruptError, UnavailableError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import Draft, LogEntry, Record, StoredToken, Version
from config_service.store.sql import SqlStore
from config_service.testing import check_laws, new_draft, new_rotation, new_schema, new_token, new_version

pytestmark = pytest.mark.anyio
ORDERS = ConfigKey("orders")
LATER = "f" * 24


async def write_on(store: SqlStore, rng: random.Random, ended: asyncio.Event) -> None:
    """Publish, stage, rekey and revoke, one after the other, until ``ended``."""
    newest: dict[ConfigKey, int] = {}
    while not ended.is_set():
        key = ConfigKey(f"config-{rng.randrange(20)}")
        base = newest.get(key, 0)
        match rng.randrange(12):
            case 0:
                await store.commit_token(new_token())
            case 1:
                tokens = await store.tokens()
                token = rng.choice(tokens) if tokens else None
                if token is not None and token.revoked_at is None:
                    await store.rotate_token_keys(new_rotation(token))
            case 2:
                if await store.draft(key) is None:
                    await store.replace_draft(key, None, new_draft(key, base))
            case 3:
                number = len(await store.schemas(key))
                await store.commit_schema(new_schema(key, number))
            case _:
                draft = await store.draft(key)
                await store.commit_version(new_version(key, base, draft=draft.document if draft else None))
                newest[key] = base + 1
        await asyncio.sleep(rng.random() / 500)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
async def test_what_is_read_while_others_write_is_whole_at_one_revision(tmp_path: Path, seed: int) -> None:
    """Restored, it keeps every law of a store at rest, and its log is the beginning of the log of the first one."""
    first, second = SqlStore(f"sqlite:///{tmp_path}/first.db"), SqlStore(f"sqlite:///{tmp_path}/second.db")
    await first.open()
    await second.open()
    ended = asyncio.Event()
    try:
        for number in range(200):
            await first.commit_version(new_version(ConfigKey("before", label=f"l{number % 7}"), number // 7))
        writing = asyncio.create_task(write_on(first, random.Random(seed), ended))
        for _ in range(20):
            await asyncio.sleep(0)
        began = (await first.position()).revision
        position = await second.restore(read_everything(first), LATER)
        ended.set()
        await writing
        assert began <= position.revision <= (await first.position()).revision
        await check_laws(second)
        assert await second.log(0, 10_000) == await first.log(0, position.revision)
    finally:
        await first.close()
        await second.close()


class Interrupted:
    """A store to which something happens at the first reading of tokens."""

    def __init__(self, store: Any, happens: Any) -> None:
        self._store = store
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def tokens(self) -> list[StoredToken]:
        tokens: list[StoredToken] = await self._store.tokens()
        happens, self._happens = self._happens, None
        if happens is not None:
            await happens()
        return tokens


async def collected(records: AsyncIterator[Record]) -> list[Record]:
    return [record async for record in records]


async def test_a_token_that_changes_while_tokens_are_read_is_read_again(store: Any) -> None:
    """What the token is and what the log tells of it then agree."""
    await store.commit_token(new_token())

    async def revoke() -> None:
        await store.revoke_token(1, 7, new_draft().timestamp)

    records = await collected(read_everything(Interrupted(store, revoke)))
    assert [record.revision for record in records if isinstance(record, LogEntry)] == [1, 2]
    assert [record.revoked_at is None for record in records if isinstance(record, StoredToken)] == [False]


async def test_a_publish_while_tokens_are_read_is_left_to_the_next_backup(store: Any) -> None:
    """It changes no token, so what was read is whole without it."""
    await store.commit_token(new_token())

    async def publish() -> None:
        await store.commit_version(new_version())

    records = await collected(read_everything(Interrupted(store, publish)))
    assert [record.revision for record in records if isinstance(record, LogEntry)] == [1]
    assert not [record for record in records if isinstance(record, Version)]


async def test_a_draft_that_is_published_meanwhile_is_not_lost(store: Any) -> None:
    """It is there as a version, and as the outdated draft that it was when the backup began."""
    await store.replace_draft(ORDERS, None, new_draft())
    records = read_everything(store)
    first = await anext(records)
    await store.commit_version(new_version(draft=new_draft().document))
    rest = await collected(records)
    assert isinstance(first, Draft)
    assert [type(record) for record in rest] == [LogEntry, Version]


async def test_tokens_that_never_rest_end_the_backup(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused rather than wrong."""
    monkeypatch.setattr(reading, "_ROUNDS", 3)

    class Restless(Interrupted):
        async def tokens(self) -> list[StoredToken]:
            self._happens = self._revoked
            return await super().tokens()

        async def _revoked(self) -> None:
            await store.commit_token(new_token())

    with pytest.raises(UnavailableError):
        await collected(read_everything(Restless(store, None)))


@pytest.mark.parametrize("missing", ["version", "schema", "log"])
async def test_a_store_with_a_hole_is_not_copied(store: Any, missing: str) -> None:
    """The log tells of something that is not there: the backup ends without its end."""
    await store.commit_version(new_version())
    await store.commit_schema(new_schema())
    if missing == "log":
        del store.entries[0]
        await store.commit_version(new_version(base=1))
    else:
        held = store.held if missing == "version" else store.held_schemas
        del held[ORDERS]
    with pytest.raises(StoreCorruptError):
        await collected(read_everything(store))
