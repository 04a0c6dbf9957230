"""Commit and serve as one step: what the store has made durable is in memory when the call returns.

Knows the store and the feed. A commit under way goes to its end even when its caller is cancelled in between, as
happens when a client hangs up: a durable change that is not served would wait for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Final, TypeVar

from config_client.protocol import format_timestamp

from .auditing import Auditor
from .delivery.feed import Change, Feed
from .domain.documents import Document
from .domain.errors import ConflictError
from .domain.keys import ConfigKey
from .domain.records import (
    Draft,
    KeyRotation,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    StoredSchema,
    StoredToken,
    Version,
)
from .domain.sealing import NewKeys, Resealed
from .security.chain import Detail
from .store.protocol import ConfigStore, KeyConflictError, SealingKeyError
from .unlocking import KeyHolder

T = TypeVar("T")

_ROUNDS: Final = 16
"""How often the rotation of a key is begun again before it counts as lost to others."""


class Commits:
    """The only writer of the store. Every method raises what the store raises, and then nothing was changed."""

    def __init__(self, store: ConfigStore, feed: Feed, auditor: Auditor, keys: KeyHolder) -> None:
        self._store = store
        self._feed = feed
        self._auditor = auditor
        self._holder = keys
        self._under_way: set[asyncio.Task[object]] = set()

    async def versions(self, changes: Sequence[NewVersion]) -> list[Version]:
        """Commit ``changes``, all or none, and serve them. Raises StoreConflictError or StoreError."""
        return await self._to_the_end(self._versions(changes))

    async def activation(self, document: Document, at: datetime) -> Version:
        """Serve ``document``, which was published for later. Raises ScheduleConflictError or StoreError."""
        return await self._to_the_end(self._activation(document, at))

    async def cancellation(self, key: ConfigKey, number: int, cancelled_by: int, at: datetime) -> LogEntry:
        """End the schedule of a version. Raises ScheduleConflictError or StoreError."""
        return await self._to_the_end(self._cancellation(key, number, cancelled_by, at))

    async def savepoint(self, change: NewSavepoint) -> LogEntry:
        """Set, move or remove a savepoint. Raises SavepointConflictError or StoreError."""
        return await self._to_the_end(self._savepoint(change))

    async def archive(self, change: NewArchive) -> LogEntry | None:
        """Remove documents for good; None when none may go. Raises StoreError."""
        return await self._to_the_end(self._archive(change))

    async def schema(self, change: NewSchema) -> StoredSchema:
        """Commit ``change`` and validate by it from now on. Raises SchemaConflictError or StoreError."""
        return await self._to_the_end(self._schema(change))

    async def draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        """Make ``after`` the draft of ``key`` in the place of ``before``. Raises DraftConflictError or StoreError."""
        await self._to_the_end(self._store.replace_draft(key, before, after))

    async def token(self, plan: Callable[[], NewToken]) -> StoredToken:
        """Commit the token that ``plan`` makes, and accept it. Raises StoreError.

        ``plan`` is asked again when the data key was rotated in between.
        """
        return await self._to_the_end(self._token(plan))

    async def rotation(self, token_id: int, plan: Callable[[StoredToken], KeyRotation]) -> StoredToken | None:
        """Give a token the keys that ``plan`` makes of those it has, and use them from now on.

        ``plan`` is asked again when another rotation came in between; what it raises ends this one. Returns None when
        there is no such token, or it is revoked.

        Raises ConflictError when others were faster every time, or StoreError.
        """
        return await self._to_the_end(self._rotation(token_id, plan))

    async def revocation(self, token_id: int, revoked_by: int, at: datetime) -> LogEntry | None:
        """Revoke a token and end its streams; None when there was nothing to revoke. Raises StoreError."""
        return await self._to_the_end(self._revocation(token_id, revoked_by, at))

    async def keys(self, change: NewKeys, more: Detail | None = None) -> LogEntry | None:
        """Put other data keys in place, which the log says ``more`` of. Raises KeysConflictError or StoreError."""
        return await self._to_the_end(self._keys(change, more))

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        """Replace sealed values by the same sealed anew; return how many. Raises SealingKeyError or StoreError."""
        return await self._to_the_end(self._store.reseal(changes))

    async def drain(self) -> None:
        """Wait until every commit under way has ended, one way or the other."""
        while self._under_way:
            await asyncio.wait(tuple(self._under_way))

    async def _versions(self, changes: Sequence[NewVersion]) -> list[Version]:
        link = await self._auditor.versions(changes)
        if len(changes) == 1:
            versions = [await self._store.commit_version(changes[0], link)]
        else:
            versions = await self._store.commit_versions(changes, link)
        for version in versions:
            await self._feed.offer(Change.of_version(version))
        return versions

    async def _activation(self, document: Document, at: datetime) -> Version:
        link = self._auditor.lifecycle(document.changed_by)
        version = await self._store.activate_version(document.key, document.version, at, link)
        if version.activation is not None:
            await self._feed.offer(Change.of_activation(version, version.activation))
        return version

    async def _cancellation(self, key: ConfigKey, number: int, cancelled_by: int, at: datetime) -> LogEntry:
        link = self._auditor.lifecycle(cancelled_by)
        entry = await self._store.cancel_schedule(key, number, cancelled_by, at, link)
        await self._feed.offer(Change(entry))
        return entry

    async def _savepoint(self, change: NewSavepoint) -> LogEntry:
        entry = await self._store.commit_savepoint(change, self._auditor.lifecycle(change.changed_by))
        await self._feed.offer(Change(entry))
        return entry

    async def _archive(self, change: NewArchive) -> LogEntry | None:
        before = {"before": format_timestamp(change.before)}
        entry = await self._store.archive_versions(change, self._auditor.lifecycle(change.archived_by, before))
        if entry is not None:
            await self._feed.offer(Change(entry))
        return entry

    async def _schema(self, change: NewSchema) -> StoredSchema:
        schema = await self._store.commit_schema(change, self._auditor.schema(change))
        await self._feed.offer(Change.of_schema(schema))
        return schema

    async def _token(self, plan: Callable[[], NewToken]) -> StoredToken:
        for _ in range(_ROUNDS):
            try:
                token = plan()
                stored, entry = await self._store.commit_token(token, self._auditor.token(token))
            except SealingKeyError:
                await self._feed.catch_up()
                continue
            await self._feed.offer(Change(entry, token=stored))
            return stored
        raise ConflictError(f"the data key was rotated {_ROUNDS} times meanwhile; try again")

    async def _rotation(self, token_id: int, plan: Callable[[StoredToken], KeyRotation]) -> StoredToken | None:
        for _ in range(_ROUNDS):
            stored = await self._store.token(token_id)
            if stored is None or stored.revoked_at is not None:
                return None
            try:
                await self._holder.hold(*(key.sealed for key in stored.keys))
                rotation = plan(stored)
                link = self._auditor.rotation(rotation, stored.secret_hash)
                made = await self._store.rotate_token_keys(rotation, link)
            except (KeyConflictError, SealingKeyError):
                await self._feed.catch_up()
                continue
            if made is None:
                return None
            stored, entry = made
            await self._feed.offer(Change(entry, token=stored))
            return stored
        raise ConflictError(f"token {token_id}: its key was rotated {_ROUNDS} times meanwhile; try again")

    async def _revocation(self, token_id: int, revoked_by: int, at: datetime) -> LogEntry | None:
        entry = await self._store.revoke_token(token_id, revoked_by, at, self._auditor.revocation(token_id, revoked_by))
        if entry is not None:
            await self._feed.offer(Change(entry))
        return entry

    async def _keys(self, change: NewKeys, more: Detail | None) -> LogEntry | None:
        entry = await self._store.commit_keys(change, self._auditor.keys(change, more))
        if entry is not None:
            await self._feed.catch_up()
        return entry

    async def _to_the_end(self, work: Coroutine[object, object, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)
