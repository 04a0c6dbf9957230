"""Changing a config by compare-and-set: conditions, schema, commit, and again when another writer came in between.

Knows what is running, the schemas and how to commit. Asks nobody for rights: its callers have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from weakref import WeakValueDictionary

from .commits import Commits
from .delivery.feed import Feed
from .delivery.running import Running
from .delivery.schemas import Schemas
from .domain.documents import Document
from .domain.errors import ConflictError, DraftOutdatedError, NotFoundError
from .domain.keys import ConfigKey
from .domain.preconditions import Precondition
from .domain.records import ChangeKind, Draft, NewVersion
from .security.at_rest import Vault
from .security.tokens import TokenRegistry
from .store.protocol import SchemaConflictError, VersionConflictError

ROUNDS: Final = 16
"""How often a change is tried on a new base before it counts as lost to other writers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a publish, rollback or delete led to: the version now running, and whether it is a new one."""

    document: Document
    changed: bool


@dataclass(frozen=True, slots=True, repr=False)
class Intent:
    """What a change is to make of a config, whatever it is based on; ``content`` None is a delete.

    With ``draft`` it publishes that draft, on the version that the draft was made on and on no other one.
    """

    kind: ChangeKind
    changed_by: int
    content: bytes | None
    source_version: int | None = None
    draft: Draft | None = None


class Changes:
    """The way by which every version comes about."""

    def __init__(
        self,
        *,
        commits: Commits,
        feed: Feed,
        running: Running,
        schemas: Schemas,
        registry: TokenRegistry,
        vault: Vault,
        clock: Callable[[], datetime],
    ) -> None:
        self._commits = commits
        self._feed = feed
        self._running = running
        self._schemas = schemas
        self._registry = registry
        self._vault = vault
        self._clock = clock
        self._locks: WeakValueDictionary[ConfigKey, asyncio.Lock] = WeakValueDictionary()

    async def apply(self, key: ConfigKey, precondition: Precondition, intent: Intent) -> Outcome:
        """Commit and serve what ``intent`` makes of ``key``. What runs already makes no new version.

        Raises PreconditionFailedError, DraftOutdatedError, NotFoundError (a delete of nothing), SchemaViolationError;
        DraftConflictError when the draft was changed meanwhile; ConflictError when other writers were faster every
        time; UnauthenticatedError when the token ended meanwhile; StoreError.
        """
        async with self.lock(key):
            for _ in range(ROUNDS):
                current = self._running.get(key)
                # Reading a large document may take its time: whatever changed meanwhile is seen at the commit.
                schema = await self._check(key, current, precondition, intent)
                if self._running.get(key) is not current:
                    continue
                self._registry.confirm(intent.changed_by, self._clock())
                runs = current is not None and not current.deleted
                if current is not None and runs and current.content == intent.content:
                    if intent.draft is not None:
                        await self._commits.draft(key, intent.draft.document, None)
                    return Outcome(current, changed=False)
                base = current.version if current is not None else 0
                try:
                    version = await self._commits.version(self._prepare(key, base, schema, intent))
                except (VersionConflictError, SchemaConflictError):
                    await self._feed.catch_up()
                    continue
                return Outcome(Document.of(version, intent.content), changed=True)
        raise ConflictError(f"{key}: other writers changed it {ROUNDS} times meanwhile; try again")

    def lock(self, key: ConfigKey) -> asyncio.Lock:
        """Return the lock that lets the writers of one config pass one by one; compare-and-set remains the judge."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    async def _check(
        self, key: ConfigKey, current: Document | None, precondition: Precondition, intent: Intent
    ) -> int | None:
        """Return the number of the schema that the change fits; None when it needs to fit none."""
        self._registry.confirm(intent.changed_by, self._clock())
        runs = current is not None and not current.deleted
        newest = current.version if current is not None else 0
        if intent.content is None and not runs:
            raise NotFoundError(f"{key}: nothing is running that could be deleted")
        precondition.check(key, newest, running=runs)
        if intent.draft is not None:
            check_base(key, intent.draft.base, newest)
        return None if intent.content is None else await self._schemas.check(key, intent.content)

    def _prepare(self, key: ConfigKey, base: int, schema: int | None, intent: Intent) -> NewVersion:
        content = intent.content
        return NewVersion(
            key=key,
            base=base,
            document=None if content is None else self._vault.seal_document(content, key, base + 1),
            kind=intent.kind,
            changed_by=intent.changed_by,
            timestamp=self._clock(),
            source_version=intent.source_version,
            schema=schema,
            draft=None if intent.draft is None else intent.draft.document,
        )


def check_base(key: ConfigKey, base: int, newest: int) -> None:
    """Return when a draft made on ``base`` may be published over ``newest``, else raise DraftOutdatedError."""
    if base != newest:
        raise DraftOutdatedError(
            f"{key}: the draft was made on version {base}, but version {newest} is the newest; nothing was "
            f"overwritten: see what differs, merge, and set the draft again on base {newest}, or revert it"
        )
