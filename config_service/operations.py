"""The one way in: authorise, validate, commit, serve. Every front end calls this and nothing below it.

Knows who may do what and in which order things happen. Knows nothing of HTTP, SQL or terminals. Whether something
exists is told only to those who may see it: rights are checked first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from weakref import WeakValueDictionary

from config_client.protocol import Position
from config_client.types import ConfigInfo, Format

from .background import beside
from .commits import Commits
from .delivery.feed import Feed
from .delivery.hub import Hub
from .delivery.reaching import Reaching
from .delivery.running import Running
from .delivery.sealed import Payloads
from .delivery.states import KeyIds, StateFrames
from .domain.documents import Document, check_document
from .domain.errors import AccessDeniedError, ConflictError, NotFoundError
from .domain.keys import ConfigKey
from .domain.preconditions import UNCONDITIONAL, Precondition
from .domain.records import ChangeKind, NewVersion, Version, VersionInfo
from .domain.scopes import Right
from .security.at_rest import Vault
from .security.tokens import Token, TokenKey, TokenRegistry
from .store.protocol import ConfigStore, VersionConflictError
from .token_operations import TokenOperations
from .watch_operations import WatchOperations

_ROUNDS: Final = 16
"""How often a change is tried on a new base before it counts as lost to other writers."""
_LARGE: Final = 64 * 1024
"""Bytes from which a document is parsed on a thread: streams and reads must not wait for it."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a publish, rollback or delete led to: the version now running, and whether it is a new one."""

    document: Document
    changed: bool


@dataclass(frozen=True, slots=True, repr=False)
class ExportedDocument:
    """A version and its plaintext in the format that was asked for. Its repr does not show the plaintext."""

    document: Document
    payload: bytes

    def __repr__(self) -> str:
        return f"ExportedDocument({self.document!r})"


@dataclass(frozen=True, slots=True, repr=False)
class _Intent:
    """What a change is to make of a config, whatever it is based on; ``content`` None is a delete."""

    kind: ChangeKind
    changed_by: int
    content: bytes | None
    source_version: int | None = None


class Operations:
    """Everything the service does with configs, on behalf of a token."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        running: Running,
        registry: TokenRegistry,
        payloads: Payloads,
        feed: Feed,
        commits: Commits,
        hub: Hub,
        reaching: Reaching,
        states: StateFrames,
        clock: Clock,
        max_document_bytes: int,
    ) -> None:
        self._store = store
        self._vault = vault
        self._running = running
        self._registry = registry
        self._payloads = payloads
        self._feed = feed
        self._commits = commits
        self._reaching = reaching
        self._states = states
        self._clock = clock
        self._locks: WeakValueDictionary[ConfigKey, asyncio.Lock] = WeakValueDictionary()
        self.tokens: Final = TokenOperations(commits=commits, vault=vault, registry=registry, clock=clock)
        """What may be done with tokens."""
        self.streams: Final = WatchOperations(
            running=running, registry=registry, feed=feed, hub=hub, reaching=reaching, states=states, clock=clock
        )
        """What may be listened to."""
        self.max_document_bytes: Final = max_document_bytes
        """Bytes that a published document may take."""

    @property
    def position(self) -> Position:
        """The epoch of the store, and the newest revision that is served."""
        return self._feed.position

    def authenticate(self, secret: str) -> Token:
        """Return the token that ``secret`` proves. Raises UnauthenticatedError."""
        return self._registry.authenticate(secret, self._clock())

    # Reading

    async def read(
        self, token: Token, key: ConfigKey, number: int | None = None, at_least: Position | None = None
    ) -> Document:
        """Return the running version of ``key``, or version ``number``; it has content.

        With ``at_least``: as it is served at that position or a later one.

        Raises AccessDeniedError without the right to read; NotFoundError when nothing runs, or there is no such
        version, or it is a tombstone; UnavailableError when ``at_least`` is not reached within a second; StoreError
        when an older version cannot be read.
        """
        token.require(Right.READ, key.name, key.environment)
        if at_least is not None:
            await self._reaching.reach(at_least)
        return await self._find(key, number)

    def key_for(self, token: Token, held: KeyIds) -> TokenKey:
        """Return the key of ``token`` to seal under for a client that holds the keys ``held``.

        Raises UnauthenticatedError when the token was revoked meanwhile.
        """
        return self._states.key(token.id, held)

    def seal(self, document: Document, key: TokenKey) -> bytes:
        """Return ``document`` sealed in format 1 under ``key``."""
        return self._payloads.sealed(document, key.key, key.id)

    def seal_bound(self, document: Document, key: TokenKey) -> bytes:
        """Return ``document`` sealed in format 2 under ``key``."""
        return self._payloads.bound(document, self.position.epoch, key.key, key.id)

    async def export(
        self,
        token: Token,
        key: ConfigKey,
        fmt: Format,
        number: int | None = None,
        at_least: Position | None = None,
    ) -> ExportedDocument:
        """Return what ``read`` returns and its plaintext in ``fmt``; needs the right to export instead.

        Raises what ``read`` raises, and NotRenderableError when the document has no faithful form in ``fmt``.
        """
        token.require(Right.EXPORT, key.name, key.environment)
        if at_least is not None:
            await self._reaching.reach(at_least)
        document = await self._find(key, number)
        return ExportedDocument(document, await self._payloads.rendered(document, fmt))

    def list_infos(self, token: Token) -> list[ConfigInfo]:
        """Return one row per config name that ``token`` may read, deleted ones included, by name.

        A name may stand for several environments and labels. ``is_valid``: something runs under any of them.
        ``updated_at``: the latest change of any. ``valid_from``: when the version was first served that runs in the
        token's default environment under ``main``; failing that, the earliest running one; failing that, the deletion.
        """
        infos = []
        for name in self._running.names():
            readable = [one for one in self._running.named(name) if token.may(Right.READ, name, one.key.environment)]
            if readable:
                infos.append(_describe(name, readable, token.default_environment))
        return infos

    def list_documents(self, token: Token) -> list[Document]:
        """Return the newest version of every config that ``token`` may read or write, tombstones included, by key."""
        return [document for document in self._running if _may_see(token, document.key)]

    def newest(self, token: Token, key: ConfigKey) -> Document:
        """Return the newest version of ``key``, which may be a tombstone; needs the right to read or to write.

        Raises AccessDeniedError, and NotFoundError when nothing was ever published.
        """
        if not _may_see(token, key):
            raise AccessDeniedError(
                f"the token's scopes grant neither read nor write on this config in environment {key.environment}"
            )
        document = self._running.get(key)
        if document is None:
            raise NotFoundError(f"{key}: nothing was ever published")
        return document

    async def history(self, token: Token, key: ConfigKey) -> list[VersionInfo]:
        """Return every version of ``key``, newest first; needs the right to write.

        Raises AccessDeniedError, NotFoundError when nothing was ever published, or StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        versions = await self._store.versions(key)
        if not versions:
            raise NotFoundError(f"{key}: nothing was ever published")
        return versions[::-1]

    # Changing

    async def publish(
        self, token: Token, key: ConfigKey, raw: bytes, precondition: Precondition = UNCONDITIONAL
    ) -> Outcome:
        """Publish ``raw`` as the next version of ``key``, byte for byte; the bytes now running make no new version.

        When this returns, the version is durable and this process serves it.

        Raises AccessDeniedError without the right to write; DocumentTooLargeError or InvalidDocumentError;
        PreconditionFailedError; ConflictError when other writers were faster every time; StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        if len(raw) < _LARGE:
            check_document(raw, self.max_document_bytes)
        else:
            await beside(lambda: check_document(raw, self.max_document_bytes))
        return await self._change(key, precondition, _Intent(ChangeKind.PUBLISHED, token.id, raw))

    async def rollback(
        self, token: Token, key: ConfigKey, number: int, precondition: Precondition = UNCONDITIONAL
    ) -> Outcome:
        """Publish the document of version ``number`` again, as a new version. As ``publish``.

        Raises NotFoundError as well, when there is no such version or it is a tombstone.
        """
        token.require(Right.WRITE, key.name, key.environment)
        source = await self._find(key, number)
        return await self._change(
            key, precondition, _Intent(ChangeKind.ROLLED_BACK, token.id, source.content, source_version=number)
        )

    async def delete(self, token: Token, key: ConfigKey, precondition: Precondition = UNCONDITIONAL) -> Outcome:
        """Delete the running version of ``key``: a tombstone takes the next version. As ``publish``.

        Raises NotFoundError when nothing is running.
        """
        token.require(Right.WRITE, key.name, key.environment)
        return await self._change(key, precondition, _Intent(ChangeKind.DELETED, token.id, None))

    async def _find(self, key: ConfigKey, number: int | None) -> Document:
        document = self._running.get(key)
        if document is not None and number is not None and number != document.version:
            stored = await self._store.version(key, number)
            document = None if stored is None else self._open(stored)
        if document is None or document.deleted:
            what = "running version" if number is None else f"version {number}"
            raise NotFoundError(f"{key}: there is no {what}")
        return document

    def _open(self, version: Version) -> Document:
        sealed = version.document
        content = None if sealed is None else self._vault.open_document(sealed, version.key, version.version)
        return Document.of(version, content)

    async def _change(self, key: ConfigKey, precondition: Precondition, intent: _Intent) -> Outcome:
        """Compare and set: on each new base, check the precondition and commit, until a commit finds its base."""
        async with self._lock(key):
            for _ in range(_ROUNDS):
                self._registry.confirm(intent.changed_by, self._clock())
                current = self._running.get(key)
                runs = current is not None and not current.deleted
                newest = current.version if current is not None else 0
                if intent.content is None and not runs:
                    raise NotFoundError(f"{key}: nothing is running that could be deleted")
                precondition.check(key, newest, running=runs)
                if current is not None and runs and current.content == intent.content:
                    return Outcome(current, changed=False)
                try:
                    version = await self._commits.version(self._prepare(key, newest, intent))
                except VersionConflictError:
                    await self._feed.catch_up()
                    continue
                return Outcome(Document.of(version, intent.content), changed=True)
        raise ConflictError(f"{key}: other writers changed it {_ROUNDS} times meanwhile; try again")

    def _prepare(self, key: ConfigKey, base: int, intent: _Intent) -> NewVersion:
        content = intent.content
        return NewVersion(
            key=key,
            base=base,
            document=None if content is None else self._vault.seal_document(content, key, base + 1),
            kind=intent.kind,
            changed_by=intent.changed_by,
            timestamp=self._clock(),
            source_version=intent.source_version,
        )

    def _lock(self, key: ConfigKey) -> asyncio.Lock:
        """Return the lock that lets the writers of one config pass one by one; compare-and-set remains the judge."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


def _may_see(token: Token, key: ConfigKey) -> bool:
    return any(token.may(right, key.name, key.environment) for right in (Right.READ, Right.WRITE))


def _describe(name: str, documents: Iterable[Document], default_environment: str) -> ConfigInfo:
    """Return the row of a name that stands for ``documents``, at least one; see ``Operations.list_infos``."""
    by_time = sorted(documents, key=lambda document: document.revision)
    running = [document for document in by_time if not document.deleted]
    home = ConfigKey(name, default_environment)
    others = running[0] if running else by_time[-1]
    shown = next((document for document in running if document.key == home), others)
    return ConfigInfo(name=name, is_valid=bool(running), valid_from=shown.timestamp, updated_at=by_time[-1].timestamp)
