"""What a whole store says, in the clear: the part of the operations that exports it.

Knows rights, the store, keys and the format of exports. Knows nothing of HTTP or files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final

from config_client.protocol import format_timestamp

from .delivery.feed import Feed
from .delivery.running import Running
from .domain.keys import ConfigKey
from .domain.scopes import Right
from .exports.lines import DraftItem, Header, Item, SchemaItem, VersionItem, dump_end, dump_item
from .security.at_rest import Vault
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore

_CHUNK: Final = 64 * 1024
"""Bytes that are handed on at a time."""


class ExportOperations:
    """What holders of an admin token may read of all configs at once."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        running: Running,
        feed: Feed,
        registry: TokenRegistry,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._vault = vault
        self._running = running
        self._feed = feed
        self._registry = registry
        self._clock = clock

    async def export(self, caller: Token, *, drafts: bool) -> AsyncIterator[bytes]:
        """Return the chunks of an export: every version and schema there is at this revision, and drafts if wanted.

        What is published while the chunks are taken is not in it.

        Raises AccessDeniedError without admin, or without the rights to export and to write any of the configs (write
        is what shows history, schemas and drafts): an export with holes would be taken for a whole one. The chunks
        raise StoreError, and UnauthenticatedError once the token has ended; then the end of the export is missing.
        """
        caller.require_admin()
        position = self._feed.position
        keys = {document.key for document in self._running}
        keys |= {schema.key async for schema in self._store.newest_schemas()}
        if drafts:
            keys |= {draft.key async for draft in self._store.drafts()}
        for key in keys:
            caller.require(Right.EXPORT, key.name, key.environment)
            caller.require(Right.WRITE, key.name, key.environment)
        header = Header(position.epoch, position.revision, format_timestamp(self._clock()))
        return self._chunks(caller.id, header, sorted(keys), drafts=drafts)

    async def _chunks(
        self, token_id: int, header: Header, keys: list[ConfigKey], *, drafts: bool
    ) -> AsyncIterator[bytes]:
        pending, size, count = [header.line()], 0, 1
        for key in keys:
            async for item in self._items(key, header.revision, drafts=drafts):
                pending.append(dump_item(item))
                size += len(pending[-1])
                count += 1
                if size >= _CHUNK:
                    self._registry.confirm(token_id, self._clock())
                    yield b"".join(pending)
                    pending, size = [], 0
        yield b"".join([*pending, dump_end(count)])

    async def _items(self, key: ConfigKey, revision: int, *, drafts: bool) -> AsyncIterator[Item]:
        """Yield what there is of ``key`` at ``revision``: versions, schemas, draft."""
        place = (key.name, key.environment, key.label)
        for told in await self._store.versions(key):
            # A version for later says nothing until it runs, and an archived one nothing any more.
            wanted = told.served and told.archived is None and told.revision <= revision
            version = await self._store.version(key, told.version) if wanted else None
            if version is not None and version.archived is None:
                sealed = version.document
                content = None if sealed is None else self._vault.open_document(sealed, key, version.version)
                at = format_timestamp(version.timestamp)
                text = None if content is None else content.decode()
                yield VersionItem(*place, version.version, version.kind.value, version.changed_by, at, text)
        for shown in await self._store.schemas(key):
            schema = await self._store.schema(key, shown.number) if shown.revision <= revision else None
            if schema is not None:
                raw = None if schema.schema is None else self._vault.open_schema(schema.schema, key, schema.number)
                at = format_timestamp(schema.timestamp)
                text = None if raw is None else raw.decode()
                yield SchemaItem(*place, schema.number, schema.changed_by, at, text)
        draft = await self._store.draft(key) if drafts else None
        if draft is not None:
            text = self._vault.open_draft(draft.document, key, draft.base).decode()
            yield DraftItem(*place, draft.base, draft.changed_by, format_timestamp(draft.timestamp), text)
