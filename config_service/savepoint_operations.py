"""What may be done with savepoints: names for versions of a config that are worth coming back to.

Knows rights, versions and how a name is committed. Knows nothing of HTTP or SQL. A version with a name is not archived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from .changes import ROUNDS, Changes
from .commits import Commits
from .domain.errors import ConflictError, NotFoundError
from .domain.keys import ConfigKey
from .domain.names import check_savepoint
from .domain.records import NewSavepoint, Savepoint
from .domain.scopes import Right
from .finding import Finder
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore, SavepointConflictError


@dataclass(frozen=True, slots=True)
class Named:
    """A savepoint, and whether it was set just now."""

    savepoint: Savepoint
    changed: bool


class SavepointOperations:
    """Everything that holders of a token may do with savepoints; each needs the right to write."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        finder: Finder,
        registry: TokenRegistry,
        commits: Commits,
        changes: Changes,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._finder = finder
        self._registry = registry
        self._commits = commits
        self._changes = changes
        self._clock = clock

    async def list(self, token: Token, key: ConfigKey) -> list[Savepoint]:
        """Return the savepoints of ``key``, by name. Raises AccessDeniedError or StoreError."""
        token.require(Right.WRITE, key.name, key.environment)
        return await self._store.savepoints(key)

    async def set(
        self, token: Token, key: ConfigKey, name: str, version: int | None = None, *, move: bool = False
    ) -> Named:
        """Let ``name`` stand for ``version`` of ``key`` (None: the running one). Where it does already nothing changes.

        Raises AccessDeniedError; InvalidRequestError for a name that cannot be one; NotFoundError when there is no such
        version or it is a tombstone; ArchivedError; ConflictError when the name stands for another version, unless it
        is to ``move``, or others were faster every time; UnauthenticatedError; StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        check_savepoint(name)
        async with self._changes.lock(key):
            for _ in range(ROUNDS):
                document = await self._finder.find(key, version, served=False)
                there = await self._find(key, name)
                if there is not None and there.version == document.version:
                    return Named(there, changed=False)
                if there is not None and not move:
                    raise ConflictError(
                        f"{key}: this savepoint stands for version {there.version}; nothing was changed: say that it "
                        "is to be moved, or choose another name"
                    )
                base = 0 if there is None else there.version
                try:
                    return await self._commit(
                        token, NewSavepoint(key, name, document.version, base, token.id, self._clock())
                    )
                except SavepointConflictError:
                    continue
        raise _overtaken(key)

    async def remove(self, token: Token, key: ConfigKey, name: str) -> Savepoint:
        """Remove a savepoint and return what it was; the version stays.

        Raises AccessDeniedError; NotFoundError when there is none of that name; ConflictError; UnauthenticatedError;
        StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        async with self._changes.lock(key):
            for _ in range(ROUNDS):
                there = await self._find(key, name)
                if there is None:
                    raise NotFoundError(f"{key}: there is no savepoint of that name")
                try:
                    await self._commit(token, NewSavepoint(key, name, None, there.version, token.id, self._clock()))
                except SavepointConflictError:
                    continue
                return there
        raise _overtaken(key)

    async def _find(self, key: ConfigKey, name: str) -> Savepoint | None:
        return next((one for one in await self._store.savepoints(key) if one.name == name), None)

    async def _commit(self, token: Token, change: NewSavepoint) -> Named:
        self._registry.confirm(token.id, self._clock())
        entry = await self._commits.savepoint(change)
        version = change.entry_version
        return Named(
            Savepoint(change.key, change.name, version, entry.revision, entry.changed_by, entry.timestamp), changed=True
        )


def _overtaken(key: ConfigKey) -> ConflictError:
    return ConflictError(f"{key}: its savepoints were changed {ROUNDS} times meanwhile; try again")
