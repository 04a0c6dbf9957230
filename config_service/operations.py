"""The one way in: authorise, validate, commit, serve. Every front end calls this and nothing below it.

Knows who may do what and in which order things happen. Knows nothing of HTTP, SQL or terminals. Whether something
exists is told only to those who may see it: rights are checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from config_client.protocol import Position
from config_client.types import ConfigInfo, Format

from .archive_operations import ArchiveOperations
from .audit_operations import AuditOperations
from .background import LARGE, beside
from .backup_operations import BackupOperations
from .changes import Changes, Intent, Outcome, Plan
from .commits import Commits
from .comparisons import Comparisons
from .delivery.feed import Feed
from .delivery.hub import Hub
from .delivery.reaching import Reaching
from .delivery.running import Running
from .delivery.schemas import Schemas
from .delivery.sealed import Payloads
from .delivery.states import KeyIds, StateFrames
from .domain.documents import Document, check_document
from .domain.errors import AccessDeniedError, NotFoundError, UnauthenticatedError
from .domain.keys import ConfigKey
from .domain.names import Which
from .domain.preconditions import UNCONDITIONAL, Precondition
from .domain.records import ChangeKind, VersionInfo
from .domain.scopes import Right
from .draft_operations import DraftOperations
from .export_operations import ExportOperations
from .finding import Finder
from .key_operations import KeyOperations
from .savepoint_operations import SavepointOperations
from .schedule_operations import ScheduleOperations
from .schema_operations import SchemaOperations
from .security.admission import Admission
from .security.at_rest import Vault
from .security.tokens import Token, TokenKey, TokenRegistry
from .store.protocol import ConfigStore
from .token_operations import TokenOperations
from .unlocking import KeyHolder
from .watch_operations import WatchOperations

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, repr=False)
class ExportedDocument:
    """A version and its plaintext in the format that was asked for. Its repr does not show the plaintext."""

    document: Document
    payload: bytes

    def __repr__(self) -> str:
        return f"ExportedDocument({self.document!r})"


class Operations:
    """Everything the service does with configs, on behalf of a token."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        running: Running,
        schemas: Schemas,
        registry: TokenRegistry,
        admission: Admission,
        payloads: Payloads,
        feed: Feed,
        keys: KeyHolder,
        commits: Commits,
        hub: Hub,
        reaching: Reaching,
        states: StateFrames,
        clock: Clock,
        max_document_bytes: int,
    ) -> None:
        self._store = store
        self._running = running
        self._schemas = schemas
        self._registry = registry
        self._admission = admission
        self._payloads = payloads
        self._feed = feed
        self._reaching = reaching
        self._states = states
        self._clock = clock
        self._finder = Finder(store=store, vault=vault, keys=keys, running=running)
        self._changes = Changes(
            commits=commits,
            feed=feed,
            running=running,
            schemas=schemas,
            registry=registry,
            vault=vault,
            clock=clock,
        )
        self.tokens: Final = TokenOperations(commits=commits, vault=vault, registry=registry, clock=clock)
        """What may be done with tokens."""
        self.streams: Final = WatchOperations(
            running=running, registry=registry, feed=feed, hub=hub, reaching=reaching, states=states, clock=clock
        )
        """What may be listened to."""
        self.drafts: Final = DraftOperations(
            store=store,
            vault=vault,
            finder=self._finder,
            schemas=schemas,
            registry=registry,
            commits=commits,
            changes=self._changes,
            keys=keys,
            clock=clock,
            max_document_bytes=max_document_bytes,
        )
        """What may be done with drafts."""
        self.schemas: Final = SchemaOperations(
            store=store,
            vault=vault,
            schemas=schemas,
            registry=registry,
            commits=commits,
            changes=self._changes,
            feed=feed,
            keys=keys,
            clock=clock,
            max_document_bytes=max_document_bytes,
        )
        """What may be done with schemas."""
        self.backups: Final = BackupOperations(store=store, vault=vault, registry=registry, clock=clock)
        """What may be done with the store as a whole."""
        self.exports: Final = ExportOperations(
            store=store, vault=vault, running=running, feed=feed, registry=registry, clock=clock
        )
        """What may be read of all configs at once."""
        self.schedules: Final = ScheduleOperations(
            running=running, registry=registry, commits=commits, changes=self._changes, feed=feed, clock=clock
        )
        """What may be done with versions that wait for their moment."""
        self.keys: Final = KeyOperations(
            store=store, vault=vault, keys=keys, commits=commits, registry=registry, clock=clock
        )
        """What may be done with the keys of the store."""
        self.audit: Final = AuditOperations(store=store, vault=vault, keys=keys, registry=registry, clock=clock)
        """What may be learnt from the log."""
        self.savepoints: Final = SavepointOperations(
            store=store, finder=self._finder, registry=registry, commits=commits, changes=self._changes, clock=clock
        )
        """What may be done with names for versions."""
        self.archive: Final = ArchiveOperations(
            store=store, vault=vault, keys=keys, running=running, registry=registry, commits=commits, clock=clock
        )
        """What may be done to documents of old versions."""
        self.comparisons: Final = Comparisons(finder=self._finder, drafts=self.drafts)
        """What differs."""
        self.max_document_bytes: Final = max_document_bytes
        """Bytes that a published document may take."""

    @property
    def position(self) -> Position:
        """The epoch of the store, and the newest revision that is served."""
        return self._feed.position

    def authenticate(self, secret: str, peer: str = "") -> Token:
        """Return the token that ``secret`` proves, for one request from the address ``peer``.

        Raises UnauthenticatedError, and ThrottledError when there are too many requests of the token or too many
        failures of the address.
        """
        return self._admission.admit(secret, peer)

    def recognise(self, secret: str) -> Token:
        """Return the token that ``secret`` proves, without counting the request. Raises UnauthenticatedError."""
        return self._registry.authenticate(secret, self._clock())

    def knows(self, secret: str) -> bool:
        """Tell whether ``secret`` proves a token that is known here and valid. Counts nothing."""
        try:
            self.recognise(secret)
        except UnauthenticatedError:
            return False
        return True

    async def hear(self) -> bool:
        """Take in what other processes have committed up to now, if that takes less than a second.

        Returns whether there was anything.
        """
        return await self._feed.hear()

    def count(self, token: Token) -> None:
        """Count one request of ``token``. Raises RateLimitedError when there are too many."""
        self._admission.count(token)

    # Reading

    def read_running(self, token: Token, key: ConfigKey) -> Document:
        """Return the running version of ``key``, from memory. Raises AccessDeniedError and NotFoundError."""
        token.require(Right.READ, key.name, key.environment)
        return self._finder.running(key)

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
        return await self._finder.find(key, number)

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
        document = await self._finder.find(key, number)
        return ExportedDocument(document, await self._payloads.rendered(document, fmt))

    def list_infos(self, token: Token) -> list[ConfigInfo]:
        """Return one row per config name that ``token`` may read, deleted ones included, by name.

        A name may stand for several environments and labels. ``is_valid``: something runs under any of them and fits
        its schema.
        ``updated_at``: the latest change of any. ``valid_from``: when the version was first served that runs in the
        token's default environment under ``main``; failing that, the earliest running one; failing that, the deletion.
        """
        infos = []
        for name in self._running.names():
            readable = [one for one in self._running.named(name) if token.may(Right.READ, name, one.key.environment)]
            if readable:
                infos.append(_describe(name, readable, token.default_environment, self._schemas))
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
        self,
        token: Token,
        key: ConfigKey,
        raw: bytes,
        precondition: Precondition = UNCONDITIONAL,
        valid_from: datetime | None = None,
    ) -> Outcome:
        """Publish ``raw`` as the next version of ``key``, byte for byte; the bytes now running make no new version.

        When this returns, the version is durable and this process serves it. With ``valid_from`` it serves it from that
        moment on. Whatever waited for its moment before does not come about any more; while something waits, the bytes
        now running make a version, too.

        Raises AccessDeniedError without the right to write; DocumentTooLargeError or InvalidDocumentError;
        PreconditionFailedError; SchemaViolationError when it does not fit the newest schema; InvalidScheduleError for a
        ``valid_from`` that has passed; ConflictError when other writers were faster every time; StoreError.
        """
        await self._check(token, key, raw)
        intent = Intent(ChangeKind.PUBLISHED, token.id, raw, valid_from=valid_from)
        return await self._changes.apply(key, precondition, intent)

    async def publish_together(self, token: Token, documents: Mapping[ConfigKey, bytes]) -> list[Outcome]:
        """Publish several documents, all of them in one transaction or none. As ``publish``; in their order."""
        for key, raw in documents.items():
            await self._check(token, key, raw)
        return await self._changes.apply_all(
            [Plan(key, UNCONDITIONAL, Intent(ChangeKind.PUBLISHED, token.id, raw)) for key, raw in documents.items()]
        )

    async def rollback(
        self,
        token: Token,
        key: ConfigKey,
        which: Which,
        precondition: Precondition = UNCONDITIONAL,
        valid_from: datetime | None = None,
    ) -> Outcome:
        """Publish the document of version ``which``, a number or a savepoint, again, as a new version. As ``publish``.

        Raises NotFoundError as well, when there is no such version or it is a tombstone, and ArchivedError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        number = await self._finder.number(key, which)
        source = await self._finder.find(key, number, served=False)
        intent = Intent(ChangeKind.ROLLED_BACK, token.id, source.content, source_version=number, valid_from=valid_from)
        return await self._changes.apply(key, precondition, intent)

    async def delete(self, token: Token, key: ConfigKey, precondition: Precondition = UNCONDITIONAL) -> Outcome:
        """Delete the running version of ``key``: a tombstone takes the next version. As ``publish``.

        Raises NotFoundError when nothing is running.
        """
        token.require(Right.WRITE, key.name, key.environment)
        return await self._changes.apply(key, precondition, Intent(ChangeKind.DELETED, token.id, None))

    async def _check(self, token: Token, key: ConfigKey, raw: bytes) -> None:
        """Return when ``token`` may publish ``raw``, which is a document, as ``key``."""
        token.require(Right.WRITE, key.name, key.environment)
        if len(raw) < LARGE:
            check_document(raw, self.max_document_bytes)
        else:
            await beside(lambda: check_document(raw, self.max_document_bytes))


def _may_see(token: Token, key: ConfigKey) -> bool:
    return any(token.may(right, key.name, key.environment) for right in (Right.READ, Right.WRITE))


def _describe(name: str, documents: Iterable[Document], default_environment: str, schemas: Schemas) -> ConfigInfo:
    """Return the row of a name that stands for ``documents``, at least one; see ``Operations.list_infos``."""
    by_time = sorted(documents, key=lambda document: document.revision)
    running = [document for document in by_time if not document.deleted]
    home = ConfigKey(name, default_environment)
    others = running[0] if running else by_time[-1]
    shown = next((document for document in running if document.key == home), others)
    is_valid = any(schemas.fits(document) for document in running)
    return ConfigInfo(name=name, is_valid=is_valid, valid_from=shown.timestamp, updated_at=by_time[-1].timestamp)
