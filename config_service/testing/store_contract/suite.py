"""What the parts of the contract stand on: a store to open, changes to make, and the laws that hold at any time.

Knows the protocol and no implementation. A test is an async method wrapped by ``scenario``, which runs it on an event
loop of its own; whatever a test does, ``opened`` checks at its end the laws that hold for every store at rest.
"""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final, TypeVar

from config_client.protocol import Position

from ...domain.keys import ConfigKey
from ...domain.records import (
    VERSION_KINDS,
    Activation,
    ChangeKind,
    Draft,
    Head,
    KeyRotation,
    KeyUse,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    Savepoint,
    StoredKey,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from ...domain.scopes import SERVICE_SCOPES, Scope
from ...domain.sealing import NewKeys, SealedKind, SealedPlace, SealedValue, data_key_id
from ...store.protocol import ConfigStore

_Suite = TypeVar("_Suite", bound="StoreSuite")

NOON: Final = datetime(2026, 2, 3, 12, 0, 0, 123456, tzinfo=timezone.utc)
ORDERS: Final = ConfigKey("orders")
HUGE: Final = 2**80
"""More than any database's integer; a caller may ask for it, and there is no such thing."""

_PATIENCE: Final = 50.0
"""Seconds after which a scenario counts as hanging."""


def new_version(
    key: ConfigKey = ORDERS,
    base: int = 0,
    document: bytes | None = b"sealed",
    kind: ChangeKind = ChangeKind.PUBLISHED,
    timestamp: datetime = NOON,
    source_version: int | None = None,
    schema: int | None = None,
    draft: bytes | None = None,
    running: int | None = None,
    valid_from: datetime | None = None,
) -> NewVersion:
    """Return a change to commit; with ``valid_from`` a version for later."""
    kind = kind if valid_from is None else ChangeKind.SCHEDULED
    return NewVersion(
        key, base, document, kind, 7, timestamp, source_version, schema, draft, running=running, valid_from=valid_from
    )


def new_draft(
    key: ConfigKey = ORDERS, base: int = 0, document: bytes = b"sealed draft", timestamp: datetime = NOON
) -> Draft:
    """Return a draft to put in place."""
    return Draft(key, base, document, 7, timestamp)


def new_schema(
    key: ConfigKey = ORDERS, base: int = 0, schema: bytes | None = b"sealed schema", timestamp: datetime = NOON
) -> NewSchema:
    """Return a schema to commit."""
    return NewSchema(key, base, schema, 7, timestamp)


def new_savepoint(
    name: str = "release-1", version: int | None = 1, base: int = 0, key: ConfigKey = ORDERS
) -> NewSavepoint:
    """Return a name to give to a version; without one, to take away."""
    return NewSavepoint(key, name, version, base, 7, NOON)


def new_archive(*versions: int, key: ConfigKey = ORDERS, before: datetime = NOON + timedelta(days=1)) -> NewArchive:
    """Return an archive of ``versions``, all of which are old enough unless told otherwise."""
    return NewArchive(key, versions, before, 7, NOON)


def new_token(
    name: str = "orders-service",
    keys: tuple[StoredKey, ...] = (StoredKey(b"sealed key"),),
    scopes: tuple[Scope, ...] = SERVICE_SCOPES,
    expires_at: datetime | None = None,
) -> NewToken:
    """Return a token to commit."""
    return NewToken(name, name.encode().ljust(32, b".")[:32], keys, "default", scopes, 7, NOON, expires_at)


def new_rotation(
    token: StoredToken, key: bytes = b"newer key", retires_at: datetime = NOON, at: datetime = NOON
) -> KeyRotation:
    """Return a rotation that puts ``key`` before the keys of ``token``, all of which retire at ``retires_at``."""
    older = (StoredKey(one.sealed, retires_at) for one in token.keys)
    return KeyRotation(token.id, token.keys, (StoredKey(key), *older), 7, at)


def new_keys(base: tuple[WrappedKey, ...] = (), kind: ChangeKind | None = ChangeKind.DATA_KEY_CREATED) -> NewKeys:
    """Return a rotation of the keys ``base``: one more data key, and those before it retired; a chain key at first."""
    retired = (replace(key, use=KeyUse.RETIRED) if key.use is KeyUse.ACTIVE else key for key in base)
    kept = tuple(retired) or (WrappedKey(1, KeyUse.CHAIN, b"wrapped chain key", NOON),)
    newest = kept[-1].id + 1
    return NewKeys(
        base, (*kept, WrappedKey(newest, KeyUse.ACTIVE, f"wrapped key {newest}".encode(), NOON)), kind, 7, NOON
    )


def sealed_under(key: int, value: bytes = b"") -> bytes:
    """Return what a store takes for a value sealed under data key ``key``."""
    return b"\x02" + key.to_bytes(4, "big") + value


def linked(entry: LogEntry, previous: bytes | None) -> LogEntry:
    """Chain ``entry`` in the simplest way that tells what it was given; a ``Link``."""
    return replace(entry, audit=f"audit {entry.revision}".encode(), link=(previous or b"") + b"%d." % entry.revision)


def unlinked(entry: LogEntry) -> LogEntry:
    """Return what ``entry`` tells of its change alone."""
    return replace(entry, audit=None, link=None)


async def check_laws(store: ConfigStore) -> None:
    """Assert what holds for every store at rest: log, versions, schemas, tokens and position tell the same story."""
    log = await store.log(0, 1_000_000)
    assert [entry.revision for entry in log] == list(range(1, len(log) + 1))
    assert (await store.position()).revision == len(log)
    head = await store.head()
    assert Position(head.epoch, head.revision) == await store.position()
    assert head.link == next((entry.link for entry in reversed(log) if entry.link is not None), None)

    newest: dict[ConfigKey, Version] = {}
    for key in dict.fromkeys(entry.key for entry in log if entry.key and entry.version):
        versions = await every_version(store, key)
        entries = [entry for entry in log if entry.key == key and entry.version]
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        assert [told(version) for version in versions] == [
            unlinked(entry) for entry in entries if entry.kind in VERSION_KINDS
        ]
        assert await store.versions(key) == [version.info for version in versions]
        newest[key] = versions[-1]
        check_schedules(versions, entries)
        named, gone = check_names(entry for entry in log if entry.key == key)
        assert await store.savepoints(key) == named
        assert {version.version: version.archived for version in versions if version.archived is not None} == gone
        assert all(version.document is None for version in versions if version.archived is not None)
        assert await store.running_version(key) not in [version for version in versions if version.archived]
        assert await store.running_version(key) == max(
            (version for version in versions if version.served), key=lambda version: version.version, default=None
        )
    found = [version async for version in store.newest_versions()]
    assert len(found) == len(newest)
    assert {version.key: version for version in found} == newest

    newest_schemas: dict[ConfigKey, StoredSchema] = {}
    for key in dict.fromkeys(entry.key for entry in log if entry.key and entry.schema):
        schemas = await every_schema(store, key)
        assert [schema.number for schema in schemas] == list(range(1, len(schemas) + 1))
        assert [told_schema(schema) for schema in schemas] == [
            unlinked(entry) for entry in log if entry.key == key and entry.schema
        ]
        assert await store.schemas(key) == [schema.info for schema in schemas]
        newest_schemas[key] = schemas[-1]
    found_schemas = [schema async for schema in store.newest_schemas()]
    assert len(found_schemas) == len(newest_schemas)
    assert {schema.key: schema for schema in found_schemas} == newest_schemas

    tokens = await store.tokens()
    lives = {token.id: [entry.kind for entry in log if entry.token_id == token.id] for token in tokens}
    created = [entry.token_id for entry in log if entry.kind is ChangeKind.TOKEN_CREATED]
    assert [token.id for token in tokens] == created == list(range(1, len(created) + 1))
    for token in tokens:
        assert await store.token(token.id) == token
        ended = [ChangeKind.TOKEN_REVOKED] if token.revoked_at else []
        rotations = lives[token.id].count(ChangeKind.TOKEN_REKEYED)
        assert lives[token.id] == [ChangeKind.TOKEN_CREATED, *[ChangeKind.TOKEN_REKEYED] * rotations, *ended]
    assert sum(map(len, lives.values())) == sum(entry.token_id is not None for entry in log)

    found_values = await every_sealed(store)
    counts = Counter(data_key_id(value.sealed) for value in found_values)
    assert await store.sealed_counts() == counts
    assert sum(value.place.kind is SealedKind.TOKEN_KEY for value in found_values) == sum(
        len(token.keys) for token in tokens
    )


def check_schedules(versions: Sequence[Version], entries: Sequence[LogEntry]) -> None:
    """Assert that the versions of a config, and all that the log says of it, tell the same of what was for later."""
    newest = 0
    waiting: Version | None = None
    ended: dict[int, Activation | int] = {}
    for entry in entries:
        if entry.kind in VERSION_KINDS:
            newest += 1
            scheduled = entry.kind is ChangeKind.SCHEDULED
            assert scheduled is (versions[newest - 1].valid_from is not None)
            waiting = versions[newest - 1] if scheduled else None
        elif entry.kind in {ChangeKind.ACTIVATED, ChangeKind.SCHEDULE_CANCELLED}:
            assert waiting is not None, "only the newest version, which waits, is activated or cancelled, and once"
            assert entry.version == waiting.version == newest
            activated = entry.kind is ChangeKind.ACTIVATED
            assert not activated or entry.changed_by == waiting.changed_by
            ended[newest] = Activation(entry.revision, entry.timestamp) if activated else entry.revision
            waiting = None
    for version in versions:
        told_of = ended.get(version.version)
        assert version.activation == (told_of if isinstance(told_of, Activation) else None)
        assert version.cancelled == (told_of if isinstance(told_of, int) else None)


def check_names(entries: Iterable[LogEntry]) -> tuple[list[Savepoint], dict[int, int]]:
    """Return the savepoints that ``entries`` of a config lead to, by name, and the revision at which each version went.

    Asserts that no savepoint is lost by an archive, and that nothing goes twice.
    """
    named: dict[str, Savepoint] = {}
    gone: dict[int, int] = {}
    for entry in entries:
        if entry.kind is ChangeKind.SAVEPOINT_SET:
            savepoint = Savepoint.of(entry)
            named[savepoint.name] = savepoint
            assert savepoint.version not in gone
        elif entry.kind is ChangeKind.SAVEPOINT_REMOVED:
            assert entry.savepoint is not None
            assert named.pop(entry.savepoint).version == entry.version
        elif entry.kind is ChangeKind.ARCHIVED:
            assert entry.archived
            assert not gone.keys() & set(entry.archived)
            assert not {one.version for one in named.values()} & set(entry.archived)
            gone |= dict.fromkeys(entry.archived, entry.revision)
        else:
            assert (entry.savepoint, entry.archived) == (None, None)
    return [named[name] for name in sorted(named)], gone


async def every_version(store: ConfigStore, key: ConfigKey) -> list[Version]:
    """Return every version of ``key`` with its document, oldest first."""
    versions: list[Version] = []
    while (version := await store.version(key, len(versions) + 1)) is not None:
        versions.append(version)
    return versions


async def every_schema(store: ConfigStore, key: ConfigKey) -> list[StoredSchema]:
    """Return every schema of ``key``, oldest first."""
    schemas: list[StoredSchema] = []
    while (schema := await store.schema(key, len(schemas) + 1)) is not None:
        schemas.append(schema)
    return schemas


async def every_sealed(store: ConfigStore, limit: int = 50) -> list[SealedValue]:
    """Return every sealed value of ``store``, read page by page."""
    found: list[SealedValue] = []
    last: SealedPlace | None = None
    while page := await store.sealed_values(last, limit):
        found += page
        last = page[-1].place
    return found


def told_schema(schema: StoredSchema) -> LogEntry:
    """Return the log entry that tells ``schema``."""
    kind = ChangeKind.SCHEMA_REMOVED if schema.removed else ChangeKind.SCHEMA_SET
    return LogEntry(schema.revision, kind, schema.changed_by, schema.timestamp, key=schema.key, schema=schema.number)


def told(version: Version) -> LogEntry:
    """Return the log entry that tells ``version``."""
    return LogEntry(
        version.revision, version.kind, version.changed_by, version.timestamp, key=version.key, version=version.version
    )


@dataclass(frozen=True)
class Everything:
    """All that a store tells, to be compared."""

    position: Position
    log: list[LogEntry]
    versions: list[list[Version]]
    histories: list[list[VersionInfo]]
    schemas: list[list[StoredSchema]]
    drafts: list[Draft | None]
    tokens: list[StoredToken]
    check: bytes
    keys: tuple[WrappedKey, ...]
    head: Head
    sealed: list[SealedValue]
    savepoints: list[list[Savepoint]]


async def everything(store: ConfigStore) -> Everything:
    """Return all that ``store`` tells."""
    return Everything(
        await store.position(),
        await store.log(0, 1_000_000),
        [await every_version(store, version.key) async for version in store.newest_versions()],
        [await store.versions(version.key) async for version in store.newest_versions()],
        [await every_schema(store, schema.key) async for schema in store.newest_schemas()],
        [await store.draft(version.key) async for version in store.newest_versions()],
        await store.tokens(),
        await store.seal_check(b"check"),
        await store.keys(),
        await store.head(),
        await every_sealed(store),
        [await store.savepoints(version.key) async for version in store.newest_versions()],
    )


def scenario(run: Callable[[_Suite, Path], Coroutine[object, object, None]]) -> Callable[[_Suite, Path], None]:
    """Return an async test as one that pytest can run. (``functools.wraps`` would show pytest the wrong arguments.)"""

    def test(self: _Suite, tmp_path: Path) -> None:
        asyncio.run(asyncio.wait_for(run(self, tmp_path), _PATIENCE))

    test.__name__, test.__qualname__, test.__doc__ = run.__name__, run.__qualname__, run.__doc__
    return test


class StoreSuite:
    """How the tests get at a store."""

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store, not yet open. The same empty directory always leads to the same data."""
        raise NotImplementedError

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Hold the next commit just before it becomes durable, until the block ends; let later ones pass.

        The block is given a function that waits until the commit is held.
        """
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, directory: Path) -> AsyncIterator[ConfigStore]:
        """Open the store of ``directory`` for a block, at whose end the laws are checked."""
        store = self.create_store(directory)
        await store.open()
        try:
            yield store
            await check_laws(store)
        finally:
            await store.close()
