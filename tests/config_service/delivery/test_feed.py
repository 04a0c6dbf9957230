"""The feed: memory equals the store, in the order of revisions, whichever way changes arrive."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from vaults import HeldKeys, new_vault

from config_service.delivery.feed import Change, Feed
from config_service.delivery.hub import Hub
from config_service.delivery.running import Running
from config_service.delivery.schemas import Schemas
from config_service.delivery.subscription import End, NamedInterest, QueuedReader
from config_service.domain.errors import StoreCorruptError, StoreError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, KeyRotation, NewToken, NewVersion, StoredKey, Version
from config_service.domain.scopes import SERVICE_SCOPES
from config_service.security.tokens import Token, TokenRegistry, hash_secret

pytestmark = pytest.mark.anyio
VAULT = new_vault()
ORDERS = ConfigKey("orders")


class Memory:
    """Everything that a feed writes."""

    def __init__(self, store: Any, clock: Any) -> None:
        self.store, self.clock = store, clock
        self.running, self.tokens = Running(), TokenRegistry()
        self.hub = Hub(clock=clock, queue_frames=1000, heartbeat_interval=5.0)
        self.schemas = Schemas()
        self.feed = Feed(
            store=store,
            vault=VAULT,
            keys=HeldKeys(),
            running=self.running,
            schemas=self.schemas,
            tokens=self.tokens,
            hub=self.hub,
        )

    async def commit(self, base: int, content: bytes | None = b"{}", key: ConfigKey = ORDERS) -> Version:
        sealed = None if content is None else VAULT.seal_document(content, key, base + 1)
        kind = ChangeKind.DELETED if content is None else ChangeKind.PUBLISHED
        version: Version = await self.store.commit_version(NewVersion(key, base, sealed, kind, 1, self.clock()))
        return version

    async def commit_token(self, secret: str = "cst_x") -> Change:
        digest = hash_secret(secret)
        keys = (StoredKey(VAULT.seal_token_key(b"k" * 32, digest)),)
        stored, entry = await self.store.commit_token(
            NewToken("t", digest, keys, "default", SERVICE_SCOPES, 0, self.clock())
        )
        return Change(entry, token=stored)

    async def rotate(self, token_id: int, key: bytes, overlap: timedelta) -> Change:
        stored = await self.store.token(token_id)
        older = tuple(StoredKey(one.sealed, self.clock() + overlap) for one in stored.keys)
        newest = StoredKey(VAULT.seal_token_key(key, stored.secret_hash))
        rotated, entry = await self.store.rotate_token_keys(
            KeyRotation(token_id, stored.keys, (newest, *older), 1, self.clock())
        )
        return Change(entry, token=rotated)

    def subscribe(self, token: Token) -> QueuedReader:
        return self.hub.subscribe(NamedInterest(token, "orders", "main"))

    def content(self, key: ConfigKey = ORDERS) -> bytes | None:
        document = self.running.get(key)
        return document.content if document else None


@pytest.fixture
async def memory(store: Any, clock: Any) -> Memory:
    return Memory(store, clock)


def revisions(frames: bytes | None) -> list[int]:
    lines = (frames or b"").decode().splitlines()
    return [int(line.rpartition("-")[2]) for line in lines if line.startswith("id: ")]


async def test_a_start_loads_what_is_stored(memory: Memory, epoch: str) -> None:
    """Newest versions, tombstones and tokens, at the store's position."""
    await memory.commit(0, b'{"a": 1}')
    await memory.commit(1, b'{"a": 2}')
    await memory.commit(0, None, ConfigKey("gone"))
    await memory.commit_token()
    await memory.feed.start()
    assert memory.content() == b'{"a": 2}'
    gone = memory.running.get(ConfigKey("gone"))
    assert gone is not None
    assert gone.deleted
    assert memory.tokens.authenticate("cst_x", memory.clock()).id == 1
    assert str(memory.feed.position) == f"{epoch}-4"


async def test_a_restart_remembers_what_can_be_replayed(memory: Memory, epoch: str) -> None:
    """The history is read from the log: a reader that was connected before the restart misses nothing."""
    token = (await memory.commit_token()).token
    assert token is not None
    await memory.commit(0)
    await memory.commit(1)
    await memory.feed.start()
    held = memory.tokens.get(token.id)
    assert held is not None
    subscription = memory.hub.subscribe(NamedInterest(held, "orders", "main"), f"{epoch}-1")
    assert revisions(await subscription.next()) == [2, 3]


async def test_a_history_longer_than_the_replay_begins_at_its_floor(
    memory: Memory, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the latest changes are read at a start, page by page."""
    monkeypatch.setattr("config_service.delivery.feed.CAPACITY", 5)
    monkeypatch.setattr("config_service.delivery.feed._PAGE", 2)
    token = (await memory.commit_token()).token
    assert token is not None
    for base in range(9):
        await memory.commit(base)
    await memory.feed.start()
    held = memory.tokens.get(token.id)
    assert held is not None
    interest = NamedInterest(held, "orders", "main")
    assert revisions(await memory.hub.subscribe(interest, f"{epoch}-5").next()) == [6, 7, 8, 9, 10]
    assert memory.hub.subscribe(interest, f"{epoch}-4").replay.value == "reset"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_offers_in_any_order_are_applied_in_the_order_of_revisions(
    memory: Memory, order: tuple[int, ...]
) -> None:
    """Each change is served when its own offer returns, and heard exactly once."""
    await memory.feed.start()
    made = await memory.commit_token()
    await memory.feed.offer(made)
    token = memory.tokens.get(1)
    assert token is not None
    subscription = memory.subscribe(token)
    versions = [await memory.commit(base, b'{"n": %d}' % base) for base in range(4)]
    for index in order:
        await memory.feed.offer(Change.of_version(versions[index]))
        served = memory.running.get(ORDERS)
        assert served is not None
        assert served.version >= versions[index].version
    assert revisions(await subscription.next()) == [2, 3, 4, 5]
    assert memory.feed.position.revision == 5


async def test_offers_at_once_are_applied_once(memory: Memory) -> None:
    """Concurrent offers and readers of the log do not apply anything twice."""
    await memory.feed.start()
    await memory.feed.offer(await memory.commit_token())
    token = memory.tokens.get(1)
    assert token is not None
    subscription = memory.subscribe(token)
    versions = [await memory.commit(base) for base in range(30)]
    offers = [memory.feed.offer(Change.of_version(version)) for version in reversed(versions)]
    await asyncio.gather(*offers, memory.feed.catch_up())
    assert revisions(await subscription.next()) == list(range(2, 32))


async def test_a_change_that_waits_is_applied_as_soon_as_it_can_be(memory: Memory) -> None:
    """When what came before cannot be read, the offer fails, but its change is not lost."""
    await memory.feed.start()
    first, second = await memory.commit(0, b'{"n": 1}'), await memory.commit(1, b'{"n": 2}')
    memory.store.fail_reads = StoreError("the disk is away")
    with pytest.raises(StoreError):
        await memory.feed.offer(Change.of_version(second))
    assert memory.content() is None
    await memory.feed.offer(Change.of_version(first))
    assert memory.content() == b'{"n": 2}'


async def test_changes_made_elsewhere_are_read_from_the_log(memory: Memory) -> None:
    """Versions, deletions, tokens and revocations."""
    await memory.feed.start()
    await memory.commit_token("cst_a")
    await memory.commit(0)
    await memory.commit(1, None)
    await memory.commit_token("cst_b")
    await memory.store.revoke_token(1, 0, memory.clock())
    await memory.feed.catch_up()
    assert memory.content() is None
    assert memory.tokens.authenticate("cst_b", memory.clock()).id == 2
    revoked = memory.tokens.get(1)
    assert revoked is not None
    assert revoked.revoked_at is not None


async def test_a_revocation_ends_streams(memory: Memory) -> None:
    """Wherever it was made."""
    await memory.feed.start()
    await memory.feed.offer(await memory.commit_token())
    token = memory.tokens.get(1)
    assert token is not None
    subscription = memory.subscribe(token)
    await memory.store.revoke_token(1, 0, memory.clock())
    await memory.feed.catch_up()
    assert subscription.ended is End.REVOKED


@pytest.mark.parametrize("way", ["offer", "log", "restart"])
async def test_a_rotation_takes_effect_whichever_way_it_arrives(memory: Memory, way: str) -> None:
    """Offered here, made elsewhere and read from the log, or loaded: the token has its keys and their ends."""
    hour = timedelta(hours=1)
    if way != "restart":
        await memory.feed.start()
    created = await memory.commit_token()
    if way == "offer":
        await memory.feed.offer(created)
    rotated = await memory.rotate(1, b"n" * 32, hour)
    if way == "offer":
        await memory.feed.offer(rotated)
    elif way == "log":
        await memory.feed.catch_up()
    else:
        await memory.feed.start()
    token = memory.tokens.authenticate("cst_x", memory.clock())
    assert token.keys == (b"n" * 32, b"k" * 32)
    assert token.retirements == (None, memory.clock() + hour)
    assert memory.feed.position.revision == 2


async def test_a_rotation_ends_no_stream_and_is_heard_of_by_none(memory: Memory) -> None:
    """It moves the position, and the next change follows it."""
    await memory.feed.start()
    await memory.feed.offer(await memory.commit_token())
    token = memory.tokens.get(1)
    assert token is not None
    subscription = memory.subscribe(token)
    await memory.feed.offer(await memory.rotate(1, b"n" * 32, timedelta()))
    await memory.feed.offer(Change.of_version(await memory.commit(0)))
    assert subscription.ended is None
    assert revisions(await subscription.next()) == [3]


async def test_a_rotation_that_was_followed_by_a_revocation_leaves_no_key(memory: Memory) -> None:
    """Read from the log when the token is revoked already: nothing is sealed for it in between."""
    await memory.feed.start()
    await memory.commit_token()
    await memory.rotate(1, b"n" * 32, timedelta(hours=1))
    await memory.store.revoke_token(1, 0, memory.clock())
    await memory.feed.catch_up()
    token = memory.tokens.get(1)
    assert token is not None
    assert token.keys == ()
    assert memory.feed.position.revision == 3


async def test_a_document_that_does_not_open_stops_the_start(memory: Memory) -> None:
    """Never garbage, and never a service that quietly lacks a config."""
    version = await memory.commit(0)
    memory.store.held[ORDERS][0] = replace(version, document=b"\x01" + b"\x00" * 40)
    with pytest.raises(StoreCorruptError, match=r"orders .* version 1"):
        await memory.feed.start()


async def test_a_log_that_names_what_is_not_there_is_a_damaged_store(memory: Memory) -> None:
    """A version or token of the log that the store does not have is told with its revision."""
    await memory.feed.start()
    await memory.commit(0)
    memory.store.held[ORDERS].clear()
    with pytest.raises(StoreCorruptError, match="revision 1"):
        await memory.feed.catch_up()
    memory.store.entries.clear()
    await memory.commit_token()
    memory.store.held_tokens.clear()
    with pytest.raises(StoreCorruptError, match="token 1"):
        await memory.feed.catch_up()


async def test_a_gap_in_the_log_is_a_damaged_store(memory: Memory) -> None:
    """A missing revision must neither be skipped nor waited for."""
    await memory.feed.start()
    await memory.commit(0)
    await memory.commit(1)
    del memory.store.entries[0]
    with pytest.raises(StoreCorruptError, match="no revision 1"):
        await memory.feed.catch_up()


async def test_a_log_that_ends_before_its_position_is_a_damaged_store(memory: Memory) -> None:
    """The counter says more than the log holds."""
    await memory.commit(0)
    head = await memory.store.head()

    async def beyond() -> Any:
        return replace(head, revision=9)

    memory.store.head = beyond
    with pytest.raises(StoreCorruptError, match="ends at revision 1"):
        await memory.feed.start()


async def test_what_is_committed_during_a_start_is_heard_once(memory: Memory) -> None:
    """A version newer than the position that the start began from is caught up with, not lost."""
    await memory.commit(0)
    position = await memory.store.position()
    await memory.commit(1, b'{"late": true}')

    async def earlier() -> Any:
        return position

    memory.store.position = earlier
    await memory.feed.start()
    assert memory.content() == b'{"late": true}'
    assert memory.feed.position.revision == 2


async def test_a_store_of_ones_own_is_not_looked_at(memory: Memory) -> None:
    """Where nobody else commits there is nothing to hear of, and nothing is read for it."""
    await memory.feed.start()
    memory.store.fail_reads = StoreError("never asked")
    await memory.feed.refresh()
    assert not await memory.feed.hear()


async def test_looks_at_a_shared_store_are_shared(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls before a look begins is answered by it; who comes later by the next one, which sees more."""
    await memory.feed.start()
    memory.store.shared = True
    looks, begun, opened = 0, asyncio.Event(), asyncio.Event()
    read = memory.store.log

    async def log(after: int, limit: int) -> Any:
        nonlocal looks
        looks += 1
        begun.set()
        found = await read(after, limit)
        await opened.wait()
        return found

    monkeypatch.setattr(memory.store, "log", log)
    first = [asyncio.create_task(memory.feed.refresh()) for _ in range(50)]
    await begun.wait()
    await memory.commit(0, b"{}")
    late = [asyncio.create_task(memory.feed.hear()) for _ in range(50)]
    await asyncio.sleep(0)
    opened.set()
    await asyncio.gather(*first)
    assert all(await asyncio.gather(*late))
    assert looks == 2
    assert memory.content() == b"{}"


async def test_a_look_that_fails_is_an_error_for_who_needs_it_and_none_for_who_does_not(memory: Memory) -> None:
    """``refresh`` raises; ``hear`` says that there was nothing; a caller that hangs up ends it for nobody."""
    await memory.feed.start()
    memory.store.shared = True
    memory.store.fail_reads = StoreError("gone")
    with pytest.raises(StoreError):
        await memory.feed.refresh()
    assert not await memory.feed.hear()
    hung_up = asyncio.create_task(memory.feed.refresh())
    other = asyncio.create_task(memory.feed.refresh())
    await asyncio.sleep(0)
    hung_up.cancel()
    with pytest.raises(StoreError):
        await other
    memory.store.fail_reads = None
    await memory.commit(0)
    await memory.feed.refresh()
    assert memory.content() == b"{}"
