"""Any sequence of changes on a store comes out as on a model of a few lines; records and rows are inverse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TypeAlias, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mongo import MongoServer
from postgres import PostgresServer
from sqlalchemy import RowMapping

from config_service.domain.keys import ConfigKey
from config_service.domain.records import (
    Activation,
    ChangeKind,
    Draft,
    KeyRotation,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewToken,
    Savepoint,
    StoredKey,
    StoredSchema,
    StoredToken,
    Version,
)
from config_service.domain.scopes import Right, Scope
from config_service.store import rows
from config_service.store.protocol import (
    ConfigStore,
    DraftConflictError,
    KeyConflictError,
    SavepointConflictError,
    ScheduleConflictError,
    SchemaConflictError,
    VersionConflictError,
)
from config_service.store.urls import create_store
from config_service.testing import check_laws, new_draft, new_rotation, new_schema, new_version

KEYS = (ConfigKey("orders"), ConfigKey("orders", "prod"), ConfigKey("ORDERS"))
ABOUT_SCHEMAS = (ChangeKind.SCHEMA_SET, ChangeKind.SCHEMA_REMOVED)
OTHERS = (*ABOUT_SCHEMAS, ChangeKind.SAVEPOINT_SET, ChangeKind.SAVEPOINT_REMOVED, ChangeKind.ARCHIVED)
NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)


@dataclass
class Model:
    """What a store must tell after a sequence of changes."""

    versions: dict[ConfigKey, list[Version]] = field(default_factory=dict)
    log: list[LogEntry] = field(default_factory=list)
    tokens: list[StoredToken] = field(default_factory=list)
    drafts: dict[ConfigKey, Draft | None] = field(default_factory=dict)
    savepoints: dict[ConfigKey, dict[str, Savepoint]] = field(default_factory=dict)
    schemas: dict[ConfigKey, list[StoredSchema]] = field(default_factory=dict)

    @property
    def next(self) -> int:
        return len(self.log) + 1


Step: TypeAlias = Callable[[ConfigStore, Model], Awaitable[None]]


def publish(key: ConfigKey, offset: int, document: bytes | None) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        kept = model.versions.setdefault(key, [])
        change = new_version(key, max(0, len(kept) + offset), document)
        if change.base != len(kept):
            with pytest.raises(VersionConflictError):
                await store.commit_version(change)
            return
        version = await store.commit_version(change)
        assert version == rows.committed_version(change, model.next)
        kept.append(version)
        entry = LogEntry(model.next, change.kind, 7, change.timestamp, key=key, version=version.version)
        model.log.append(entry)

    return step


def publish_later(key: ConfigKey, offset: int, document: bytes, valid_from: datetime) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        kept = model.versions.setdefault(key, [])
        change = new_version(key, max(0, len(kept) + offset), document, valid_from=valid_from)
        if change.base != len(kept):
            with pytest.raises(VersionConflictError):
                await store.commit_version(change)
            return
        version = await store.commit_version(change)
        assert version == rows.committed_version(change, model.next)
        kept.append(version)
        model.log.append(
            LogEntry(model.next, ChangeKind.SCHEDULED, 7, change.timestamp, key=key, version=version.version)
        )

    return step


def publish_together(keys: list[ConfigKey], offset: int) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        changes = [new_version(key, len(model.versions.get(key, []))) for key in keys]
        changes[-1] = replace(changes[-1], base=max(0, changes[-1].base + offset))
        if changes[-1].base != len(model.versions.get(keys[-1], [])):
            with pytest.raises(VersionConflictError):
                await store.commit_versions(changes)
            return
        for version in await store.commit_versions(changes):
            assert version.revision == model.next
            model.versions.setdefault(version.key, []).append(version)
            model.log.append(
                LogEntry(model.next, version.kind, 7, version.timestamp, key=version.key, version=version.version)
            )

    return step


def end_schedule(key: ConfigKey, offset: int, activates: bool, at: datetime) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        kept = model.versions.get(key, [])
        number = len(kept) + offset
        waits = kept and number == len(kept) and kept[-1].awaited
        if not waits:
            with pytest.raises(ScheduleConflictError):
                await (
                    store.activate_version(key, number, at) if activates else store.cancel_schedule(key, number, 9, at)
                )
            return
        if activates:
            kept[-1] = replace(kept[-1], activation=Activation(model.next, at))
            assert await store.activate_version(key, number, at) == kept[-1]
            model.log.append(LogEntry(model.next, ChangeKind.ACTIVATED, 7, at, key=key, version=number))
        else:
            kept[-1] = replace(kept[-1], cancelled=model.next)
            entry = LogEntry(model.next, ChangeKind.SCHEDULE_CANCELLED, 9, at, key=key, version=number)
            assert await store.cancel_schedule(key, number, 9, at) == entry
            model.log.append(entry)

    return step


def stage(key: ConfigKey, sees: bool, document: bytes | None) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        before = model.drafts.get(key)
        seen = (before.document if before else None) if sees else b"another draft"
        after = None if document is None else new_draft(key, document=document)
        if seen != (before.document if before else None):
            with pytest.raises(DraftConflictError):
                await store.replace_draft(key, seen, after)
            return
        await store.replace_draft(key, seen, after)
        model.drafts[key] = after

    return step


def set_schema(key: ConfigKey, offset: int, schema: bytes | None) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        kept = model.schemas.setdefault(key, [])
        change = new_schema(key, max(0, len(kept) + offset), schema)
        if change.base != len(kept):
            with pytest.raises(SchemaConflictError):
                await store.commit_schema(change)
            return
        kept.append(await store.commit_schema(change))
        assert kept[-1].revision == model.next
        model.log.append(LogEntry(model.next, change.kind, 7, change.timestamp, key=key, schema=change.number))

    return step


def name_version(key: ConfigKey, name: str, version: int | None, right: bool) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        named = model.savepoints.setdefault(key, {})
        found = named[name].version if name in named else 0
        change = NewSavepoint(key, name, version, found if right else found + 1, 7, NOON)
        kept = model.versions.get(key, [])
        there = found > 0 if version is None else 0 < version <= len(kept) and kept[version - 1].document is not None
        if not (there and right):
            with pytest.raises(SavepointConflictError):
                await store.commit_savepoint(change)
            return
        number = found if version is None else version
        entry = LogEntry(model.next, change.kind, 7, NOON, key=key, version=number, savepoint=name)
        assert await store.commit_savepoint(change) == entry
        named.pop(name, None)
        if version is not None:
            named[name] = Savepoint.of(entry)
        model.log.append(entry)

    return step


def archive(key: ConfigKey, wanted: frozenset[int]) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        kept = model.versions.get(key, [])
        running = max((one.version for one in kept if one.served), default=0)
        spared = {running, len(kept), *(one.version for one in model.savepoints.get(key, {}).values())}
        draft = model.drafts.get(key)
        if draft is not None:
            spared.add(draft.base)
        going = tuple(one.version for one in kept if one.document is not None and one.version in wanted - spared)
        change = NewArchive(key, tuple(wanted), datetime(9000, 1, 1, tzinfo=timezone.utc), 7, NOON)
        if not going:
            assert await store.archive_versions(change) is None
            return
        entry = LogEntry(model.next, ChangeKind.ARCHIVED, 7, NOON, key=key, archived=going)
        assert await store.archive_versions(change) == entry
        for number in going:
            kept[number - 1] = replace(kept[number - 1], document=None, archived=model.next)
        model.log.append(entry)

    return step


def create_token(token: NewToken) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        stored, entry = await store.commit_token(token)
        assert entry == LogEntry(model.next, ChangeKind.TOKEN_CREATED, 7, token.created_at, token_id=stored.id)
        assert stored.id == len(model.tokens) + 1
        model.tokens.append(stored)
        model.log.append(entry)

    return step


def revoke(token_id: int) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        entry = await store.revoke_token(token_id, 7, NOON)
        place = token_id - 1
        if 0 <= place < len(model.tokens) and not model.tokens[place].revoked_at:
            assert entry == LogEntry(model.next, ChangeKind.TOKEN_REVOKED, 7, NOON, token_id=token_id)
            model.tokens[place] = replace(model.tokens[place], revoked_at=NOON)
            model.log.append(entry)
        else:
            assert entry is None

    return step


def rotate(token_id: int, key: bytes, retires_at: datetime) -> Step:
    async def step(store: ConfigStore, model: Model) -> None:
        place = token_id - 1
        if not 0 <= place < len(model.tokens) or model.tokens[place].revoked_at:
            assert await store.rotate_token_keys(KeyRotation(token_id, (), (), 7, NOON)) is None
            return
        rotation = new_rotation(model.tokens[place], key, retires_at, NOON)
        rotated = replace(model.tokens[place], keys=rotation.keys)
        entry = LogEntry(model.next, ChangeKind.TOKEN_REKEYED, 7, NOON, token_id=token_id)
        assert await store.rotate_token_keys(rotation) == (rotated, entry)
        if rotation.base != rotation.keys:
            with pytest.raises(KeyConflictError):
                await store.rotate_token_keys(rotation)
        model.tokens[place] = rotated
        model.log.append(entry)

    return step


async def reopen(store: ConfigStore, _model: Model) -> None:
    await store.close()
    await store.open()


moments = st.builds(
    lambda microseconds, minutes: (NOON + timedelta(microseconds=microseconds)).astimezone(
        timezone(timedelta(minutes=minutes))
    ),
    st.integers(-(10**15), 10**17),
    st.integers(-720, 720),
)
numbers = st.integers(0, 2**63 - 1)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
keys = st.builds(ConfigKey, words, words, words)
globs = st.from_regex(r"[A-Za-z0-9._*?-]{1,12}", fullmatch=True)
scopes = st.builds(Scope, globs, globs, st.frozensets(st.sampled_from(Right), min_size=1))
sealed_keys = st.builds(StoredKey, st.binary(max_size=40), st.none() | moments)
tokens = st.builds(
    NewToken,
    name=words,
    secret_hash=st.binary(min_size=32, max_size=32),
    keys=st.lists(sealed_keys, max_size=3).map(tuple),
    default_environment=words,
    scopes=st.lists(scopes, max_size=3).map(tuple),
    created_by=st.just(7),
    created_at=moments,
    expires_at=st.none() | moments,
)
steps = st.one_of(
    st.builds(publish, st.sampled_from(KEYS), st.sampled_from((-1, 0, 0, 0, 1)), st.none() | st.binary(max_size=50)),
    st.builds(publish_later, st.sampled_from(KEYS), st.sampled_from((-1, 0, 0, 1)), st.binary(max_size=50), moments),
    st.builds(end_schedule, st.sampled_from(KEYS), st.sampled_from((-1, 0, 0, 0)), st.booleans(), moments),
    st.builds(
        publish_together, st.lists(st.sampled_from(KEYS), min_size=1, unique=True), st.sampled_from((-1, 0, 0, 1))
    ),
    st.builds(stage, st.sampled_from(KEYS), st.sampled_from((True, True, False)), st.none() | st.binary(max_size=50)),
    st.builds(set_schema, st.sampled_from(KEYS), st.sampled_from((-1, 0, 0, 1)), st.none() | st.binary(max_size=50)),
    st.builds(
        name_version,
        st.sampled_from(KEYS),
        st.sampled_from(("a", "B", "release-1")),
        st.none() | st.integers(-1, 4),
        st.sampled_from((True, True, False)),
    ),
    st.builds(archive, st.sampled_from(KEYS), st.frozensets(st.integers(-1, 4))),
    st.builds(create_token, tokens),
    st.builds(rotate, st.integers(-1, 4), st.binary(max_size=40), moments),
    st.builds(revoke, st.integers(-1, 4)),
    st.just(reopen),
)


@given(sequence=st.lists(steps, max_size=20))
@settings(max_examples=30, deadline=None)
def test_a_store_tells_what_a_model_tells(sequence: list[Step], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is published now, later or together, ends, is staged, described, created, rekeyed, revoked and reopened.

    In any order, on right and wrong bases.
    """
    directory = tmp_path_factory.mktemp("model")
    asyncio.run(play(sequence, f"sqlite:///{directory}/store.db"))


@given(sequence=st.lists(steps, max_size=20))
@settings(max_examples=15, deadline=None)
def test_a_store_on_postgresql_tells_it_too(sequence: list[Step], postgres: PostgresServer) -> None:
    """The same on a real PostgreSQL."""
    asyncio.run(play(sequence, postgres.schema()))


@given(sequence=st.lists(steps, max_size=20))
@settings(max_examples=15, deadline=None)
def test_a_store_in_plain_files_tells_it_too(sequence: list[Step], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same in a directory."""
    asyncio.run(play(sequence, f"file://{tmp_path_factory.mktemp('model')}/store"))


@pytest.mark.long
@given(sequence=st.lists(steps, max_size=20))
@settings(max_examples=15, deadline=None)
def test_a_store_in_mongodb_tells_it_too(sequence: list[Step], mongodb: MongoServer) -> None:
    """The same on a real server."""
    asyncio.run(play(sequence, mongodb.database()))
    mongodb.drop()


async def play(sequence: list[Step], url: str) -> None:
    """Do ``sequence`` to a new store and to a model of it, and compare them."""
    store, model = create_store(url), Model()
    await store.open()
    try:
        for step in sequence:
            await step(store, model)
        assert await store.log(0, 1_000) == model.log
        assert await store.tokens() == model.tokens
        for key in KEYS:
            kept = model.versions.get(key, [])
            assert await store.versions(key) == [version.info for version in kept]
            assert [await store.version(key, version.version) for version in kept] == kept
            assert await store.running_version(key) == next((one for one in reversed(kept) if one.served), None)
            assert await store.draft(key) == model.drafts.get(key)
            assert await store.savepoints(key) == [one for _, one in sorted(model.savepoints.get(key, {}).items())]
            assert await store.schemas(key) == [schema.info for schema in model.schemas.get(key, [])]
        await check_laws(store)
    finally:
        await store.close()


@given(
    version=st.builds(
        Version,
        key=keys,
        version=numbers,
        revision=numbers,
        kind=st.sampled_from(ChangeKind),
        changed_by=numbers,
        timestamp=moments,
        document=st.none() | st.binary(max_size=50),
        source_version=st.none() | numbers,
        valid_from=st.none() | moments,
        activation=st.none() | st.builds(Activation, numbers, moments),
        cancelled=st.none() | numbers,
        archived=st.none() | numbers,
    )
)
@settings(deadline=None)
def test_a_version_is_read_back_from_its_row(version: Version) -> None:
    """Reading a row of ``versions`` is the inverse of writing it; a time comes back as the same instant."""
    assert rows.read_version(cast("RowMapping", rows.version_values(version))) == version


@given(
    entry=st.builds(
        LogEntry,
        revision=numbers,
        kind=st.sampled_from([kind for kind in ChangeKind if kind not in OTHERS]),
        changed_by=numbers,
        timestamp=moments,
        key=st.none() | keys,
        version=st.none() | numbers,
        token_id=st.none() | numbers,
    )
    | st.builds(
        LogEntry,
        revision=numbers,
        kind=st.sampled_from(ABOUT_SCHEMAS),
        changed_by=numbers,
        timestamp=moments,
        key=keys,
        schema=numbers,
    )
    | st.builds(
        LogEntry,
        revision=numbers,
        kind=st.sampled_from((ChangeKind.SAVEPOINT_SET, ChangeKind.SAVEPOINT_REMOVED)),
        changed_by=numbers,
        timestamp=moments,
        key=keys,
        version=numbers,
        savepoint=words,
    )
    | st.builds(
        LogEntry,
        revision=numbers,
        kind=st.just(ChangeKind.ARCHIVED),
        changed_by=numbers,
        timestamp=moments,
        key=keys,
        archived=st.lists(numbers, min_size=1).map(tuple),
    )
)
@settings(deadline=None)
def test_a_log_entry_is_read_back_from_its_row(entry: LogEntry) -> None:
    """Reading a row of ``log`` is the inverse of writing it, with a key and without, and about a schema."""
    assert rows.read_log_entry(cast("RowMapping", rows.log_values(entry))) == entry


@given(token=tokens, token_id=numbers, revoked_at=st.none() | moments)
@settings(deadline=None)
def test_a_token_is_read_back_from_its_row(token: NewToken, token_id: int, revoked_at: datetime | None) -> None:
    """Reading a row of ``tokens`` is the inverse of writing it, for every scope that has a spelling."""
    stored = replace(rows.committed_token(token, token_id), revoked_at=revoked_at)
    assert rows.read_token(cast("RowMapping", rows.token_values(stored))) == stored
