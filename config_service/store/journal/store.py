"""A ``ConfigStore`` on any ``Journal``. Knows the order of changes, and nothing of the place where they are kept.

Every change is decided on the state that the records so far lead to, and appended as the next record, which works for
one writer only: whoever comes second folds what came in between and decides anew. So neither transactions nor locks are
asked of the place. Drafts and the check value are cells, which take no revision.

One thread writes, a few read, as in the SQL store and for its reasons; see ``store.sql``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeVar

from ...domain.keys import ConfigKey
from ...domain.records import (
    Draft,
    KeyRotation,
    Link,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    Savepoint,
    SchemaInfo,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
)
from ..protocol import DraftConflictError, check_distinct
from . import archive, drafts
from .access import value_of
from .deciding import require_active
from .record import Record, damaged, schema_of, version_of
from .state import State
from .upkeep import Upkeep

T = TypeVar("T")

_PAGE: Final = 64
"""Versions read at a time, so that iterating holds some documents."""
_FIRST: Final = ConfigKey("", "", "")


class JournalStore(Upkeep):
    """A store of record in ``journal``."""

    # --- versions ---

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        """Append a version; a draft that it publishes is gone with the same record.

        Raises VersionConflictError when ``change.base`` is not the newest version of its key; SchemaConflictError,
        RunningConflictError or DraftConflictError when ``change.schema``, ``change.running`` or ``change.draft`` is
        given and not what there is.
        """
        (version,) = await self.commit_versions([change], link)
        return version

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        """Append several versions as one record: all of them or none, at consecutive revisions in their order.

        Raises what ``commit_version`` raises, and InvalidRequestError when a key comes twice.
        """
        check_distinct(changes)
        if not changes:
            return []
        session = self._opened()

        def decide(state: State) -> tuple[Record, list[Version]]:
            record, versions = self._deciding(state, link).versions(changes)
            for change in changes:
                if change.draft is not None and value_of(self._standing(state, change.key)) != change.draft:
                    raise DraftConflictError(change.key)
            return record, versions

        def write() -> list[Version]:
            versions = session.commit(decide)
            for change in changes:
                if change.draft is not None:
                    # It is gone already: the record says so. What is left of it is not worth a failure.
                    with suppress(Exception):
                        self._journal.swap(drafts.cell_name(change.key), change.draft, None)
            return versions

        return await session.write(write)

    async def activate_version(self, key: ConfigKey, number: int, at: datetime, link: Link | None = None) -> Version:
        """Make version ``number``, published for later, the running one from ``at`` on, by a log entry of its own.

        Raises ScheduleConflictError when it does not wait for that any more.
        """
        info = await self._commit(lambda state: self._deciding(state, link).activation(key, number, at))
        (version,) = await self._versions([info])
        return version

    async def cancel_schedule(
        self, key: ConfigKey, number: int, cancelled_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry:
        """Note that version ``number`` is never to run by itself. Raises ScheduleConflictError."""
        return await self._commit(lambda state: self._deciding(state, link).cancellation(key, number, cancelled_by, at))

    async def newest_versions(self) -> AsyncIterator[Version]:
        """Yield the newest version of every key, tombstones and those not served yet included, ordered by key.

        Each is the newest at the moment its page is read, of the keys that there were at the beginning.
        """
        keys = await self._read(lambda state: state.keys_of_versions(_FIRST))
        for page in _pages(keys):
            infos = await self._read(_newest_of(page, lambda state: state.versions))
            for version in await self._versions(infos):
                yield version

    async def running_version(self, key: ConfigKey) -> Version | None:
        """Return the newest version of ``key`` that is served, tombstones included, or None."""
        info = await self._read(lambda state: state.running(key))
        return None if info is None else (await self._versions([info]))[0]

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        """Return every version of ``key`` without its document, oldest first; empty when there is none."""
        return await self._read(lambda state: list(state.versions.get(key, ())))

    async def version(self, key: ConfigKey, number: int) -> Version | None:
        """Return one version of ``key``, or None."""
        session = self._opened()

        def find(state: State) -> list[VersionInfo]:
            return _numbered(state.versions.get(key, []), number)

        # What is known already need not be asked for.
        infos = await session.peek(find) or await session.read(find)
        return next(iter(await self._versions(infos)), None)

    # --- drafts ---

    async def draft(self, key: ConfigKey) -> Draft | None:
        """Return the draft of ``key``, or None."""
        session = self._opened()

        def read() -> Draft | None:
            # First the cell: when it is published in between, the state tells so.
            cell = self._journal.cell(drafts.cell_name(key))
            standing = session.look(lambda state: drafts.standing(state, key, cell))
            return None if standing is None else drafts.read(standing)

        return await session.run(read)

    async def drafts(self) -> AsyncIterator[Draft]:
        """Yield the draft of every key that has one, ordered by key. Each is as it is when it is read."""
        session = self._opened()
        cells_there = await session.run(lambda: self._every_draft(session))
        for key in sorted(drafts.read(cell).key for cell in cells_there):
            draft = await self.draft(key)
            if draft is not None:
                yield draft

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        """Make ``after`` the draft of ``key``; None leaves it without one. Takes no revision.

        Raises DraftConflictError when the draft there is was not sealed as ``before`` (None: there is none).
        """
        session = self._opened()
        name = drafts.cell_name(key)

        def write() -> None:
            session.refresh()
            left = self._journal.cell(name)
            if value_of(session.look(lambda state: drafts.standing(state, key, left))) != before:
                raise DraftConflictError(key)
            if after is not None:
                require_active(session.look(self._keys), [after.document])
            elif left is None:
                return
            if not self._journal.swap(name, value_of(left), None if after is None else drafts.cell(after)):
                raise DraftConflictError(key)

        await session.write(write)

    # --- savepoints and archive ---

    async def commit_savepoint(self, change: NewSavepoint, link: Link | None = None) -> LogEntry:
        """Give a version a name, move the name, or remove it. Raises SavepointConflictError."""
        return await self._commit(lambda state: self._deciding(state, link).savepoint(change))

    async def savepoints(self, key: ConfigKey) -> list[Savepoint]:
        """Return the savepoints of ``key``, by name."""
        named = await self._read(lambda state: dict(state.savepoints.get(key, {})))
        return [named[name] for name in sorted(named)]

    async def archive_versions(self, change: NewArchive, link: Link | None = None) -> LogEntry | None:
        """Remove the documents of those versions of ``change`` that may go; None when none may."""
        session = self._opened()

        def decide(state: State) -> tuple[Record | None, LogEntry | None]:
            cell = self._standing(state, change.key)
            return self._deciding(state, link).archive(change, None if cell is None else drafts.read(cell))

        def write() -> LogEntry | None:
            entry = session.commit(decide)
            # What an earlier archive has left goes too, the first time that somebody asks.
            numbers = entry.archived if entry is not None and change.key in self._swept else None
            revisions = session.look(lambda state: archive.archived_of(state, change.key, numbers))
            session.use(lambda state: archive.remove_documents(state, self._journal, revisions))
            self._swept.add(change.key)
            return entry

        return await session.write(write)

    # --- schemas ---

    async def commit_schema(self, change: NewSchema, link: Link | None = None) -> StoredSchema:
        """Append a schema. Raises SchemaConflictError when ``change.base`` is not the newest one of its key."""
        return await self._commit(lambda state: self._deciding(state, link).schema(change))

    async def newest_schemas(self) -> AsyncIterator[StoredSchema]:
        """Yield the newest schema of every key that ever had one, removals included."""
        keys = await self._read(lambda state: state.keys_of_schemas(_FIRST))
        for page in _pages(keys):
            infos = await self._read(_newest_of(page, lambda state: state.schemas))
            for schema in await self._schemas(infos):
                yield schema

    async def schemas(self, key: ConfigKey) -> list[SchemaInfo]:
        """Return every schema of ``key`` without what it says, oldest first; empty when there is none."""
        return await self._read(lambda state: list(state.schemas.get(key, ())))

    async def schema(self, key: ConfigKey, number: int) -> StoredSchema | None:
        """Return one schema of ``key``, which may be a removal, or None."""
        infos = await self._read(lambda state: _numbered(state.schemas.get(key, []), number))
        return next(iter(await self._schemas(infos)), None)

    # --- tokens ---

    async def commit_token(self, token: NewToken, link: Link | None = None) -> tuple[StoredToken, LogEntry]:
        """Append a token; ids count from 1 and are never used again.

        Raises InvalidRequestError for a scope that has no spelling.
        """
        return await self._commit(lambda state: self._deciding(state, link).token(token))

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        """Give a token other keys. Returns None when there is none of that id, or it is revoked.

        Raises KeyConflictError when ``rotation.base`` is not what its keys are.
        """
        session = self._opened()

        def write() -> tuple[StoredToken, LogEntry] | None:
            session.refresh()
            session.renew_tokens(rotation.token_id)
            return session.commit(lambda state: self._deciding(state, link).rotation(rotation))

        return await session.write(write)

    async def revoke_token(
        self, token_id: int, revoked_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry | None:
        """Mark a token revoked. Returns None when there is none of that id, or it is revoked already."""
        made = await self._commit(lambda state: self._deciding(state, link).revocation(token_id, revoked_by, at))
        return made and made[1]

    async def tokens(self) -> list[StoredToken]:
        """Return every token, revoked ones included, by id."""
        return await self._read(lambda state: list(state.tokens))

    async def token(self, token_id: int) -> StoredToken | None:
        """Return one token, which may be revoked, or None."""
        return await self._read(lambda state: state.token(token_id))

    # --- documents ---

    async def _versions(self, infos: list[VersionInfo]) -> list[Version]:
        """Return the versions that ``infos`` tell of, with their documents."""
        documents = await self._opened().documents([info.revision for info in infos if _has_document(info)])
        if any(_has_document(info) and info.revision not in documents for info in infos):
            # Archived since ``infos`` were told, or lost.
            infos = await self._read(lambda state: [state.versions[info.key][info.version - 1] for info in infos])
        return [version_of(info, _document(documents, info) if _has_document(info) else None) for info in infos]

    async def _schemas(self, infos: list[SchemaInfo]) -> list[StoredSchema]:
        documents = await self._opened().documents([info.revision for info in infos if not info.removed])
        return [schema_of(info, None if info.removed else _document(documents, info)) for info in infos]


def _has_document(info: VersionInfo) -> bool:
    return not info.deleted and info.archived is None


def _document(documents: Mapping[int, bytes], info: VersionInfo | SchemaInfo) -> bytes:
    document = documents.get(info.revision)
    if document is None:
        raise damaged(f"the document of revision {info.revision}")
    return document


def _numbered(kept: list[T], number: int) -> list[T]:
    """Return the one of ``kept`` that has ``number``, counted from 1, or nothing."""
    return [kept[number - 1]] if 0 < number <= len(kept) else []


def _pages(keys: list[ConfigKey]) -> Iterator[list[ConfigKey]]:
    return (keys[begin : begin + _PAGE] for begin in range(0, len(keys), _PAGE))


def _newest_of(keys: list[ConfigKey], kept: Callable[[State], dict[ConfigKey, list[T]]]) -> Callable[[State], list[T]]:
    return lambda state: [kept(state)[key][-1] for key in keys]
