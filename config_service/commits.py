"""Commit and serve as one step: what the store has made durable is in memory when the call returns.

Knows the store and the feed. A commit under way goes to its end even when its caller is cancelled in between, as
happens when a client hangs up: a durable change that is not served would wait for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import TypeVar

from .delivery.feed import Change, Feed
from .domain.records import LogEntry, NewToken, NewVersion, StoredToken, Version
from .store.protocol import ConfigStore

T = TypeVar("T")


class Commits:
    """The only writer of the store. Every method raises what the store raises, and then nothing was changed."""

    def __init__(self, store: ConfigStore, feed: Feed) -> None:
        self._store = store
        self._feed = feed
        self._under_way: set[asyncio.Task[object]] = set()

    async def version(self, change: NewVersion) -> Version:
        """Commit ``change`` and serve it. Raises VersionConflictError or StoreError."""
        return await self._to_the_end(self._version(change))

    async def token(self, token: NewToken) -> StoredToken:
        """Commit ``token`` and accept it. Raises StoreError."""
        return await self._to_the_end(self._token(token))

    async def revocation(self, token_id: int, revoked_by: int, at: datetime) -> LogEntry | None:
        """Revoke a token and end its streams; None when there was nothing to revoke. Raises StoreError."""
        return await self._to_the_end(self._revocation(token_id, revoked_by, at))

    async def drain(self) -> None:
        """Wait until every commit under way has ended, one way or the other."""
        while self._under_way:
            await asyncio.wait(tuple(self._under_way))

    async def _version(self, change: NewVersion) -> Version:
        version = await self._store.commit_version(change)
        await self._feed.offer(Change.of_version(version))
        return version

    async def _token(self, token: NewToken) -> StoredToken:
        stored, entry = await self._store.commit_token(token)
        await self._feed.offer(Change(entry, token=stored))
        return stored

    async def _revocation(self, token_id: int, revoked_by: int, at: datetime) -> LogEntry | None:
        entry = await self._store.revoke_token(token_id, revoked_by, at)
        if entry is not None:
            await self._feed.offer(Change(entry))
        return entry

    async def _to_the_end(self, work: Coroutine[object, object, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)
