"""From the store's log into memory: the one writer of what is served, of schemas, tokens and the hub's history.

Knows the order of revisions. Applies every change exactly once, in revision order and without a gap, whichever way it
arrives: offered by the commit that made it, or read from the log. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from config_client.protocol import Position

from ..domain.documents import Document
from ..domain.errors import StoreCorruptError, StoreError
from ..domain.records import (
    SERVING_KINDS,
    VERSION_KINDS,
    Activation,
    ChangeKind,
    LogEntry,
    StoredSchema,
    StoredToken,
    Version,
)
from ..security.at_rest import Vault
from ..security.tokens import TokenRegistry, open_token
from ..store.protocol import ConfigStore
from .frames import change_frame
from .hub import Hub
from .replay import CAPACITY, ChangeFrame, History
from .running import Running
from .schemas import Schemas

_PAGE: Final = 1000
_HEARING: Final = 1.0
"""Seconds that a request waits to hear of what other processes have committed, which it could do without."""
_ABOUT_TOKENS: Final = frozenset({ChangeKind.TOKEN_CREATED, ChangeKind.TOKEN_REKEYED})
"""What can only be applied with the token at hand."""
_ABOUT_VERSIONS: Final = VERSION_KINDS | SERVING_KINDS
"""What can only be applied with the version at hand."""
_ABOUT_DATA_KEYS: Final = frozenset(
    {
        ChangeKind.AUDIT_STARTED,
        ChangeKind.DATA_KEY_CREATED,
        ChangeKind.DATA_KEYS_DESTROYED,
        ChangeKind.MASTER_KEY_ROTATED,
    }
)
"""What is told so that everybody seals under the same key."""


class Keys(Protocol):
    """What has the vault hold keys, so that what is read can be opened. Both methods raise StoreError."""

    async def refresh(self) -> None:
        """Hold the keys that the store has now."""

    async def hold(self, *sealed: bytes | None) -> None:
        """Hold the keys under which ``sealed`` are sealed."""


@dataclass(frozen=True, slots=True)
class Change:
    """A log entry with what it made: a version, a schema, a token with its keys, or nothing more (a revocation)."""

    entry: LogEntry
    version: Version | None = None
    token: StoredToken | None = None
    schema: StoredSchema | None = None

    @classmethod
    def of_version(cls, version: Version) -> Change:
        """Return the change that committed ``version``."""
        entry = LogEntry(
            revision=version.revision,
            kind=version.kind,
            changed_by=version.changed_by,
            timestamp=version.timestamp,
            key=version.key,
            version=version.version,
        )
        return cls(entry, version=version)

    @classmethod
    def of_activation(cls, version: Version, activation: Activation) -> Change:
        """Return the change by which ``version``, published for later, became the running one."""
        entry = LogEntry(
            revision=activation.revision,
            kind=ChangeKind.ACTIVATED,
            changed_by=version.changed_by,
            timestamp=activation.timestamp,
            key=version.key,
            version=version.version,
        )
        return cls(entry, version=version)

    @classmethod
    def of_schema(cls, schema: StoredSchema) -> Change:
        """Return the change that committed ``schema``."""
        kind = ChangeKind.SCHEMA_REMOVED if schema.removed else ChangeKind.SCHEMA_SET
        entry = LogEntry(
            schema.revision, kind, schema.changed_by, schema.timestamp, key=schema.key, schema=schema.number
        )
        return cls(entry, schema=schema)


class Feed:
    """Keeps memory equal to the store. ``start`` once, then ``offer`` every change committed here."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        keys: Keys,
        running: Running,
        schemas: Schemas,
        tokens: TokenRegistry,
        hub: Hub,
        observe: Callable[[LogEntry], None] | None = None,
    ) -> None:
        self._store = store
        self._vault = vault
        self._keys = keys
        self._running = running
        self._schemas = schemas
        self._tokens = tokens
        self._hub = hub
        self._observe = observe
        self.documents_opened = 0
        """How many documents were opened so far."""
        self._position = Position("", 0)
        self._waiting: dict[int, Change] = {}
        self._reading = asyncio.Lock()
        self._next_look: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many changes wait for one before them."""
        return len(self._waiting)

    @property
    def position(self) -> Position:
        """The epoch, and the newest revision that is applied."""
        return self._position

    async def start(self) -> None:
        """Load everything that is served. Raises StoreError, StoreCorruptError when something does not open."""
        # With the link, which the next change builds on: a damaged one shows now.
        head = await self._store.head()
        self._position = Position(head.epoch, head.revision)
        tokens = await self._store.tokens()
        await self._keys.hold(*(key.sealed for token in tokens for key in token.keys))
        self._tokens.load([open_token(stored, self._vault) for stored in tokens])
        async for version in self._store.newest_versions():
            await self._load(version)
        async for schema in self._store.newest_schemas():
            await self._keys.hold(schema.schema)
            self._put_schema(schema)
        self._hub.load(self._position.epoch, await self._read_history())
        await self.catch_up()

    async def offer(self, change: Change) -> None:
        """Apply ``change``, just committed, and whatever came before it; when this returns, it is served.

        Raises StoreError when what came before cannot be read; ``change`` is then applied as soon as it can be.
        """
        revision = change.entry.revision
        if revision > self._position.revision:
            self._waiting[revision] = change
            self._apply_waiting()
        if revision > self._position.revision:
            await self.catch_up()

    async def refresh(self) -> None:
        """Apply what other processes had committed when this was called; in a store that nobody shares that is nothing.

        What is decided on memory afterwards is decided on no older state than its caller may know of. However many
        call, the log is read by one at a time. Raises StoreError.
        """
        if not self.shared:
            return
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look())
            # Its callers may all be gone when it fails.
            self._next_look.add_done_callback(lambda look: look.cancelled() or look.exception())
        await asyncio.shield(self._next_look)

    async def hear(self) -> bool:
        """As ``refresh``, for what can do with what is known: within a second, and without an error.

        Returns whether something was heard of.
        """
        before = self._position
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_HEARING):
                await self.refresh()
        return self._position != before

    @property
    def shared(self) -> bool:
        """Whether other processes commit to the store, so that memory may be a moment behind it."""
        return self._store.shared

    async def catch_up(self) -> None:
        """Apply what the store's log holds beyond the present position. Raises StoreError."""
        async with self._reading:
            await self._read_on()

    async def _look(self) -> None:
        async with self._reading:
            # Whoever comes from here on may know of changes that this look does not see.
            self._next_look = None
            await self._read_on()

    async def _read_on(self) -> None:
        while entries := await self._store.log(before := self._position.revision, _PAGE):
            for entry in entries:
                # Offers go on while the log is read: what they brought is not applied twice.
                if entry.revision > self._position.revision:
                    change = self._waiting.get(entry.revision) or await self._read(entry)
                    self._waiting.setdefault(entry.revision, change)
                    self._apply_waiting()
            if self._position.revision == before:
                raise StoreCorruptError(
                    f"the log of the store has no revision {before + 1}, but {entries[0].revision}; "
                    "restore it from a backup"
                )
            if len(entries) < _PAGE:
                return

    def _apply_waiting(self) -> None:
        """Apply the waiting changes that follow without a gap."""
        while (change := self._waiting.get(self._position.revision + 1)) is not None:
            self._apply(change)
            self._position = Position(self._position.epoch, change.entry.revision)
            if self._observe is not None:
                self._observe(change.entry)
        for revision in [revision for revision in self._waiting if revision <= self._position.revision]:
            del self._waiting[revision]

    def _apply(self, change: Change) -> None:
        entry = change.entry
        if change.version is not None and change.version.archived is not None:
            # Read from the log, by a process that was behind: what ran after it comes next, and only that is served.
            if entry.kind in SERVING_KINDS:
                frame = change_frame(entry, change.version.key, change.version.version, self._position.epoch)
                self._hub.publish(ChangeFrame(change.version.key, entry.revision, frame))
                return
        elif entry.kind is ChangeKind.SCHEDULED and change.version is not None:
            # Nobody is told before its moment.
            self._running.schedule(self._open(change.version))
        elif change.version is not None:
            document = self._open(change.version)
            frame = change_frame(entry, document.key, document.version, self._position.epoch)
            before = self._running.get(document.key)
            self._running.put(document)
            self._hub.publish(ChangeFrame(document.key, entry.revision, frame), document, before)
            return
        elif entry.kind is ChangeKind.SCHEDULE_CANCELLED and entry.key is not None:
            self._running.schedules.cancel(entry.key, entry.version or 0)
        elif change.schema is not None:
            self._put_schema(change.schema)
        elif change.token is not None:
            self._tokens.put(open_token(change.token, self._vault))
        elif entry.token_id is not None:
            self._tokens.revoke(entry.token_id, entry.timestamp)
            self._hub.end_token(entry.token_id)
        self._hub.advance(entry.revision)

    async def _read(self, entry: LogEntry) -> Change:
        """Return the change of a log entry, with what it made read from the store."""
        if entry.key is not None and entry.version is not None and entry.kind in _ABOUT_VERSIONS:
            version = await self._store.version(entry.key, entry.version)
            if version is None:
                raise StoreCorruptError(
                    f"{entry.key} version {entry.version} is in the log (revision {entry.revision}) but not in the "
                    "store: it was damaged or altered; restore it from a backup"
                )
            await self._keys.hold(version.document)
            return Change(entry, version=version)
        if entry.key is not None and entry.schema is not None:
            schema = await self._store.schema(entry.key, entry.schema)
            if schema is None:
                raise StoreCorruptError(
                    f"{entry.key} schema {entry.schema} is in the log (revision {entry.revision}) but not in the "
                    "store: it was damaged or altered; restore it from a backup"
                )
            await self._keys.hold(schema.schema)
            return Change(entry, schema=schema)
        if entry.token_id is not None and entry.kind in _ABOUT_TOKENS:
            # It may have changed again since this entry; the entries that tell so come next.
            token = await self._store.token(entry.token_id)
            if token is None:
                raise StoreCorruptError(
                    f"token {entry.token_id} is in the log (revision {entry.revision}) but not in the store: "
                    "it was damaged or altered; restore it from a backup"
                )
            await self._keys.hold(*(key.sealed for key in token.keys))
            return Change(entry, token=token)
        if entry.kind in _ABOUT_DATA_KEYS:
            await self._keys.refresh()
        return Change(entry)

    async def _read_history(self) -> History:
        """Return the latest changes, from the log up to the present position."""
        history = History(floor=max(0, self._position.revision - CAPACITY))
        while history.latest < self._position.revision:
            entries = await self._store.log(history.latest, _PAGE)
            for entry in entries:
                if entry.revision > self._position.revision:
                    return history
                if entry.key is None or entry.version is None or entry.kind not in SERVING_KINDS:
                    history.advance(entry.revision)
                else:
                    frame = change_frame(entry, entry.key, entry.version, self._position.epoch)
                    history.append(ChangeFrame(entry.key, entry.revision, frame))
            if not entries:
                raise StoreCorruptError(
                    f"the log of the store ends at revision {history.latest}, before {self._position.revision}; "
                    "restore it from a backup"
                )
        return history

    async def _load(self, version: Version) -> None:
        """Serve the newest version of a config, or what runs while that one waits."""
        await self._keys.hold(version.document)
        if version.served:
            self._running.put(self._open(version))
            return
        self._running.schedule(self._open(version), waits=version.awaited)
        running = await self._store.running_version(version.key)
        if running is not None:
            await self._keys.hold(running.document)
            self._running.put(self._open(running))

    def _put_schema(self, stored: StoredSchema) -> None:
        sealed = stored.schema
        raw = None if sealed is None else self._vault.open_schema(sealed, stored.key, stored.number)
        self._schemas.put(stored.key, stored.number, raw)

    def _open(self, version: Version) -> Document:
        if version.document is None:
            return Document.of(version, None)
        self.documents_opened += 1
        content = self._vault.open_document(version.document, version.key, version.version)
        return Document.of(version, content)
