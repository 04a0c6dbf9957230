"""What may be done with drafts: the part of the operations that prepares a version before anybody is served it.

Knows rights, drafts and how a draft becomes a version. Knows nothing of HTTP or SQL. Every change of a draft is made on
the draft that was read: of two edits at a time one begins again, and neither is lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from .background import LARGE, beside
from .changes import ROUNDS, Changes, Intent, Outcome, Plan
from .commits import Commits
from .delivery.schemas import Schemas
from .domain.documents import check_document
from .domain.errors import ConflictError, InvalidRequestError, NotFoundError, Violation
from .domain.keys import ConfigKey
from .domain.names import Which
from .domain.patches import PatchKind, patch_document
from .domain.preconditions import UNCONDITIONAL, Precondition
from .domain.records import ChangeKind, Draft
from .domain.scopes import Right
from .finding import Finder
from .security.at_rest import Vault
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore, DraftConflictError, SealingKeyError
from .unlocking import KeyHolder


@dataclass(frozen=True, slots=True, repr=False)
class DraftDocument:
    """A draft in the clear, and the newest version there is: the one that runs or, where one waits, is to run.

    Its repr does not show the document.
    """

    draft: Draft
    content: bytes
    newest: int

    def __repr__(self) -> str:
        return f"DraftDocument({self.draft.key}, base={self.draft.base}, newest={self.newest})"

    @property
    def outdated(self) -> bool:
        """Whether another version came in between: publishing would overwrite it, and is refused."""
        return self.draft.base < self.newest


@dataclass(frozen=True, slots=True)
class Validation:
    """What a publish of a draft would meet: the number of the schema (0: none ever), and where it does not fit."""

    draft: DraftDocument
    schema: int
    violations: tuple[Violation, ...]


class DraftOperations:
    """Everything that holders of a token may do with drafts; each needs the right to write."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        finder: Finder,
        schemas: Schemas,
        registry: TokenRegistry,
        commits: Commits,
        changes: Changes,
        keys: KeyHolder,
        clock: Callable[[], datetime],
        max_document_bytes: int,
    ) -> None:
        self._store = store
        self._keys = keys
        self._vault = vault
        self._finder = finder
        self._schemas = schemas
        self._registry = registry
        self._commits = commits
        self._changes = changes
        self._clock = clock
        self._limit = max_document_bytes

    async def read(self, token: Token, key: ConfigKey) -> DraftDocument:
        """Return the draft of ``key``. Raises AccessDeniedError, NotFoundError when it has none, or StoreError."""
        token.require(Right.WRITE, key.name, key.environment)
        return self._opened(_required(key, await self._draft(key)))

    async def replace(self, token: Token, key: ConfigKey, raw: bytes, base: int | None = None) -> DraftDocument:
        """Make ``raw`` the draft of ``key``, byte for byte.

        It was made on version ``base``; None: on what the draft before it was made on, without one on the newest.

        Raises AccessDeniedError; DocumentTooLargeError or InvalidDocumentError; InvalidRequestError when there is no
        version ``base``; ConflictError when other writers were faster every time; StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        await _check(raw, self._limit)

        async def edit(before: Draft | None) -> tuple[bytes, int]:
            standing = self._finder.standing(key)
            if base is not None and base > standing.newest:
                raise InvalidRequestError(f"{key}: there is no version {base}; the newest is {standing.newest}")
            kept = standing.latest if before is None else before.base
            return raw, kept if base is None else base

        return await self._edit(token, key, edit)

    async def patch(self, token: Token, key: ConfigKey, patch: bytes, kind: PatchKind) -> DraftDocument:
        """Apply ``patch`` to the draft of ``key``; without a draft to what is running, which begins one.

        Raises what ``replace`` raises; NotFoundError when there is neither; InvalidPatchError or PatchConflictError.
        """
        token.require(Right.WRITE, key.name, key.environment)

        async def edit(before: Draft | None) -> tuple[bytes, int]:
            if before is None:
                running = await self._finder.find(key)
                content, base = running.content or b"", running.version
            else:
                content, base = self._open(before), before.base
            return await beside(lambda: patch_document(content, patch, kind, self._limit)), base

        return await self._edit(token, key, edit)

    async def revert(self, token: Token, key: ConfigKey, which: Which | None = None) -> DraftDocument:
        """Make the document of version ``which`` (None: the running one) the draft of ``key``, on the newest version.

        ``which`` is a number or a savepoint. Raises what ``replace`` raises; NotFoundError when there is no such
        version or it is a tombstone; ArchivedError.
        """
        token.require(Right.WRITE, key.name, key.environment)

        async def edit(_before: Draft | None) -> tuple[bytes, int]:
            number = None if which is None else await self._finder.number(key, which)
            source = await self._finder.find(key, number, served=False)
            return source.content or b"", self._finder.standing(key).latest

        return await self._edit(token, key, edit)

    async def discard(self, token: Token, key: ConfigKey) -> Draft:
        """Remove the draft of ``key`` and return what it was. Raises what ``read`` raises, and ConflictError."""
        token.require(Right.WRITE, key.name, key.environment)
        for _ in range(ROUNDS):
            draft = _required(key, await self._draft(key))
            self._registry.confirm(token.id, self._clock())
            try:
                await self._commits.draft(key, draft.document, None)
            except DraftConflictError:
                continue
            return draft
        raise _overtaken(key)

    async def validate(self, token: Token, key: ConfigKey) -> Validation:
        """Return what a publish of the draft of ``key`` would meet. Raises what ``read`` raises."""
        found = await self.read(token, key)
        number = self._schemas.number(key)
        return Validation(found, number, await self._schemas.violations(key, found.content))

    async def publish(
        self,
        token: Token,
        key: ConfigKey,
        precondition: Precondition = UNCONDITIONAL,
        valid_from: datetime | None = None,
    ) -> Outcome:
        """Publish the draft of ``key`` as its next version; with the version durable, the draft is gone.

        With ``valid_from`` that version is to run later.

        Raises AccessDeniedError; NotFoundError without a draft; PreconditionFailedError; DraftOutdatedError when it
        was made on a version that is not the newest; SchemaViolationError; InvalidScheduleError; ConflictError;
        StoreError.
        """
        (outcome,) = await self.publish_together(token, [(key, precondition)], valid_from)
        return outcome

    async def publish_together(
        self, token: Token, wanted: Sequence[tuple[ConfigKey, Precondition]], valid_from: datetime | None = None
    ) -> list[Outcome]:
        """Publish the drafts of several configs, each under its own condition: all of them or none.

        Their versions become durable in one transaction, at consecutive revisions in the order of ``wanted``; every
        watcher hears of them in that order. Outcomes come in that order too. A draft that says what runs already makes
        no version, and is discarded. With ``valid_from`` their versions are to run from that moment on.

        Raises what ``publish`` raises, naming the config at fault; SchemaViolationError tells the violations of every
        draft. Raises InvalidRequestError when nothing is named, or a config twice.
        """
        for key, _ in wanted:
            token.require(Right.WRITE, key.name, key.environment)
        _check_distinct([key for key, _ in wanted])
        for _ in range(ROUNDS):
            try:
                return await self._changes.apply_all([await self._plan(token, *each, valid_from) for each in wanted])
            except DraftConflictError as conflict:
                overtaken = conflict.key
        raise _overtaken(overtaken)

    async def _plan(
        self, token: Token, key: ConfigKey, precondition: Precondition, valid_from: datetime | None
    ) -> Plan:
        draft = _required(key, await self._draft(key))
        content = self._open(draft)
        return Plan(
            key, precondition, Intent(ChangeKind.PUBLISHED, token.id, content, draft=draft, valid_from=valid_from)
        )

    async def _edit(
        self, token: Token, key: ConfigKey, edit: Callable[[Draft | None], Awaitable[tuple[bytes, int]]]
    ) -> DraftDocument:
        """Put what ``edit`` makes of the draft in its place; it is asked again when another edit came in between."""
        for _ in range(ROUNDS):
            before = await self._draft(key)
            content, base = await edit(before)
            self._registry.confirm(token.id, self._clock())
            draft = Draft(key, base, self._vault.seal_draft(content, key, base), token.id, self._clock())
            try:
                await self._commits.draft(key, None if before is None else before.document, draft)
            except DraftConflictError:
                continue
            except SealingKeyError:
                await self._keys.refresh()
                continue
            return DraftDocument(draft, content, self._finder.standing(key).latest)
        raise _overtaken(key)

    async def _draft(self, key: ConfigKey) -> Draft | None:
        draft = await self._store.draft(key)
        if draft is not None:
            await self._keys.hold(draft.document)
        return draft

    def _open(self, draft: Draft) -> bytes:
        return self._vault.open_draft(draft.document, draft.key, draft.base)

    def _opened(self, draft: Draft) -> DraftDocument:
        return DraftDocument(draft, self._open(draft), self._finder.standing(draft.key).latest)


async def _check(raw: bytes, limit: int) -> None:
    if len(raw) < LARGE:
        check_document(raw, limit)
    else:
        await beside(lambda: check_document(raw, limit))


def _check_distinct(keys: Sequence[ConfigKey]) -> None:
    if not keys:
        raise InvalidRequestError("no draft was named; name at least one")
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise InvalidRequestError(f"{key} was named twice; name each draft once")


def _required(key: ConfigKey, draft: Draft | None) -> Draft:
    if draft is None:
        raise NotFoundError(f"{key}: there is no draft")
    return draft


def _overtaken(key: ConfigKey) -> ConflictError:
    return ConflictError(f"{key}: its draft was changed {ROUNDS} times meanwhile; try again")
