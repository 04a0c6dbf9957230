"""What may be done with schemas: the part of the operations that says what a config has to look like.

Knows rights, schemas and how they are committed. Knows nothing of HTTP or SQL. A schema is in force for every publish
from its commit on; what is running stays, whether it fits or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from .background import beside
from .changes import ROUNDS, Changes
from .commits import Commits
from .delivery.feed import Feed
from .delivery.schemas import Schemas
from .domain.errors import ConflictError, DocumentTooLargeError, NotFoundError
from .domain.keys import ConfigKey
from .domain.records import NewSchema, SchemaInfo, StoredSchema
from .domain.schemas import Schema
from .domain.scopes import Right
from .security.at_rest import Vault
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore, SchemaConflictError, SealingKeyError
from .unlocking import KeyHolder


@dataclass(frozen=True, slots=True, repr=False)
class SchemaDocument:
    """A schema in the clear, as it was set; ``changed``: it is a new one. Its repr does not show it."""

    stored: StoredSchema
    raw: bytes
    changed: bool = False

    def __repr__(self) -> str:
        return f"SchemaDocument({self.stored.key}, number={self.stored.number})"


class SchemaOperations:
    """Everything that holders of a token may do with schemas; each needs the right to write."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        schemas: Schemas,
        registry: TokenRegistry,
        commits: Commits,
        changes: Changes,
        feed: Feed,
        keys: KeyHolder,
        clock: Callable[[], datetime],
        max_document_bytes: int,
    ) -> None:
        self._store = store
        self._vault = vault
        self._schemas = schemas
        self._registry = registry
        self._commits = commits
        self._changes = changes
        self._feed = feed
        self._keys = keys
        self._clock = clock
        self._limit = max_document_bytes

    async def read(self, token: Token, key: ConfigKey, number: int | None = None) -> SchemaDocument:
        """Return the schema of ``key`` in force, or schema ``number``.

        Raises AccessDeniedError; NotFoundError when there is none, or it is a removal; StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        stored = await self._store.schema(key, self._schemas.number(key) if number is None else number)
        if stored is None or stored.schema is None:
            what = "schema" if number is None else f"schema {number}"
            raise NotFoundError(f"{key}: there is no {what}")
        await self._keys.hold(stored.schema)
        return SchemaDocument(stored, self._vault.open_schema(stored.schema, key, stored.number))

    async def history(self, token: Token, key: ConfigKey) -> list[SchemaInfo]:
        """Return every schema of ``key``, newest first. Raises AccessDeniedError, NotFoundError or StoreError."""
        token.require(Right.WRITE, key.name, key.environment)
        found = await self._store.schemas(key)
        if not found:
            raise NotFoundError(f"{key}: there never was a schema")
        return found[::-1]

    async def set(self, token: Token, key: ConfigKey, raw: bytes) -> SchemaDocument:
        """Make ``raw`` the schema of ``key``, kept byte for byte; the one in force already makes no new one.

        Raises AccessDeniedError; DocumentTooLargeError or InvalidSchemaError; ConflictError when other writers were
        faster every time; StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        if len(raw) > self._limit:
            raise DocumentTooLargeError(f"the schema has {len(raw)} bytes, over the limit of {self._limit}")
        await beside(lambda: Schema(raw))
        held = self._schemas.get(key)
        if held is not None and held.raw == raw:
            return await self.read(token, key)
        return SchemaDocument(await self._commit(token, key, raw), raw, changed=True)

    async def remove(self, token: Token, key: ConfigKey) -> StoredSchema:
        """Validate ``key`` by nothing from now on; its schemas are kept. As ``set``.

        Raises NotFoundError when no schema is in force.
        """
        token.require(Right.WRITE, key.name, key.environment)
        return await self._commit(token, key, None)

    async def _commit(self, token: Token, key: ConfigKey, raw: bytes | None) -> StoredSchema:
        # Under the lock of the config's writers: a publish is validated before a schema is set, or by it.
        async with self._changes.lock(key):
            for _ in range(ROUNDS):
                self._registry.confirm(token.id, self._clock())
                held = self._schemas.get(key)
                if raw is None and (held is None or held.raw is None):
                    raise NotFoundError(f"{key}: there is no schema that could be removed")
                base = 0 if held is None else held.number
                sealed = None if raw is None else self._vault.seal_schema(raw, key, base + 1)
                try:
                    return await self._commits.schema(NewSchema(key, base, sealed, token.id, self._clock()))
                except (SchemaConflictError, SealingKeyError):
                    await self._feed.catch_up()
        raise ConflictError(f"{key}: its schema was changed {ROUNDS} times meanwhile; try again")
