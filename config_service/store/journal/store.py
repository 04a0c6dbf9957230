"""A ``ConfigStore`` on any ``Journal``. Knows the order of changes, and nothing of the place where they are kept.

Every change is decided on the state that the records so far lead to, and appended as the next record, which works for
one writer only: whoever comes second folds what came in between and decides anew. So neither transactions nor locks are
asked of the place. Drafts and the check value are cells, which take no revision.

One thread writes, a few read, as in the SQL store and for its reasons; see ``store.sql``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeVar

from config_client.protocol import Position

from ...domain.errors import StoreError
from ...domain.keys import ConfigKey
from ...domain.records import (
    Draft,
    Head,
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
    WrappedKey,
)
from ...domain.records import Record as Kept
from ...domain.sealing import NewKeys, Resealed, SealedKind, SealedPlace, SealedValue
from ..protocol import DraftConflictError, KeysConflictError, StoreNotEmptyError, check_distinct
from . import archive, cells, drafts, sealed
from .deciding import Deciding, require_active
from .protocol import Cell, Journal
from .record import Record, damaged, schema_of, version_of
from .restoring import fill
from .session import Session
from .state import State

T = TypeVar("T")

_PAGE: Final = 64
"""Versions read at a time, so that iterating holds some documents."""
_FIRST: Final = ConfigKey("", "", "")


class JournalStore:
    """A store of record in ``journal``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._session: Session | None = None
        self._first_keys: tuple[WrappedKey, ...] = ()
        self._swept: set[ConfigKey] = set()

    @property
    def shared(self) -> bool:
        """Whether other processes may change the same store while this one is open."""
        return self._journal.shared

    async def changed(self, timeout: float) -> None:
        """Return after ``timeout`` seconds: a journal tells nobody that it has grown."""
        await asyncio.sleep(timeout)

    async def open(self) -> None:
        """Open the journal, creating it as needed, and read all of it. Opening twice is allowed.

        Raises StoreLockedError, StoreCorruptError or StoreError.
        """
        if self._session is None:
            session = Session(self._journal)
            # It may be another history than the last time.
            self._first_keys, self._swept = (), set()
            try:
                await session.start()
            except BaseException:
                await session.end()
                raise
            self._session = session

    async def close(self) -> None:
        """Finish what is under way and release everything. Closing twice is allowed."""
        session, self._session = self._session, None
        if session is not None:
            await session.end()

    async def position(self) -> Position:
        """Return the epoch and the newest revision."""
        return await self._read(lambda state: Position(state.epoch, state.revision))

    async def head(self) -> Head:
        """Return epoch, newest revision and newest link, as of one moment."""
        return await self._read(lambda state: Head(state.epoch, state.revision, state.link))

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        """Return at most ``limit`` entries with a revision above ``after``, in order."""
        return await self._opened().log(max(0, after), limit)

    async def seal_check(self, candidate: bytes) -> bytes:
        """Return the sealed check value of this store; a store that has none yet keeps ``candidate`` and returns it."""
        session = self._opened()

        def write() -> bytes:
            session.refresh()
            while True:
                # The latest first: keys may have brought another one.
                later = session.look(lambda state: state.check) or _value(self._journal.cell(cells.KEYS))
                kept = later or _value(self._journal.cell(cells.CHECK))
                if kept is not None:
                    return kept
                self._journal.swap(cells.CHECK, None, Cell(candidate))

        return await session.write(write)

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
                if change.draft is not None and _value(self._standing(state, change.key)) != change.draft:
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
            if _value(session.look(lambda state: drafts.standing(state, key, left))) != before:
                raise DraftConflictError(key)
            if after is not None:
                require_active(session.look(self._keys), [after.document])
            elif left is None:
                return
            if not self._journal.swap(name, _value(left), None if after is None else drafts.cell(after)):
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

    # --- keys of the store, and what is sealed ---

    async def keys(self) -> tuple[WrappedKey, ...]:
        """Return every key of the store, by id; none before it was given its first ones."""
        return await self._read(self._keys)

    async def commit_keys(self, change: NewKeys, link: Link | None = None) -> LogEntry | None:
        """Put other keys in place; a revision and a log entry when ``change`` names its kind, else None.

        Raises KeysConflictError when ``change.base`` is not what the keys are.
        """
        kind = change.kind
        session = self._opened()

        def write() -> LogEntry | None:
            session.refresh()
            if kind is not None:
                session.renew_tokens()
                return session.commit(lambda state: self._deciding(state, link).keys(change, kind))
            if session.look(self._keys) != change.base or change.base:
                raise KeysConflictError
            if not self._journal.swap(cells.KEYS, None, cells.keys_cell(change.keys, change.check)):
                raise KeysConflictError
            return None

        return await session.write(write)

    async def sealed_values(self, after: SealedPlace | None, limit: int) -> list[SealedValue]:
        """Return about ``limit`` sealed values that come after ``after`` (None: from the first), in order."""
        session = self._opened()

        def read() -> list[sealed.Found]:
            standing = self._every_draft(session)
            found = session.look(lambda state: sealed.page(state, standing, after, limit))
            if any(place.kind is SealedKind.TOKEN_KEY for place, _ in found):
                session.renew_tokens()
                found = session.look(lambda state: sealed.page(state, standing, after, limit))
            return found

        found = await session.run(read)
        documents = await session.documents([value for _, value in found if isinstance(value, int)])
        # What has no document any more was archived meanwhile.
        return [
            SealedValue(place, documents[value] if isinstance(value, int) else value)
            for place, value in found
            if not isinstance(value, int) or value in documents
        ]

    async def sealed_counts(self) -> dict[int, int]:
        """Return how many sealed values there are under each data key; 0 stands for values of format 1."""
        session = self._opened()

        def read() -> dict[int, int]:
            session.refresh()
            session.renew_tokens()
            return session.use(lambda state: sealed.counts(state, self._journal, self._every_draft(session)))

        return await session.write(read)

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        """Replace each value that is still as it was by the same sealed anew; return how many. Takes no revision.

        Raises SealingKeyError when one is sealed under another key than the active one; then none is replaced.
        """
        session = self._opened()

        def write() -> int:
            session.refresh()
            session.renew_tokens()
            require_active(session.look(self._keys), (change.after for change in changes))
            return session.use(lambda state: sealed.reseal(state, self._journal, changes))

        return await session.write(write)

    # --- the whole ---

    async def restore(self, records: AsyncIterator[Kept], epoch: str) -> Position:
        """Become the store that ``records`` tell, in ``epoch``, and return the position: all of it or nothing.

        Raises StoreNotEmptyError when there was ever a change or a draft here; whatever ``records`` raises; StoreError.
        """
        session = self._opened()

        def write(batches: Iterator[list[Kept]]) -> Position:
            session.refresh()
            if session.look(lambda state: state.revision) or any(self._journal.cells(drafts.PREFIX)):
                raise StoreNotEmptyError
            if not self._journal.restore(epoch, lambda place: fill(place, epoch, batches)):
                raise StoreNotEmptyError
            self._first_keys = ()
            return session.begin_anew(epoch)

        return await session.write_all(records, write)

    # --- the ways in ---

    def _opened(self) -> Session:
        if self._session is None:
            raise StoreError("the store is not open; open it before use, and use it no more once it is closed")
        return self._session

    async def _read(self, work: Callable[[State], T]) -> T:
        return await self._opened().read(work)

    async def _commit(self, decide: Callable[[State], tuple[Record | None, T]]) -> T:
        session = self._opened()
        return await session.write(lambda: session.commit(decide))

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

    def _keys(self, state: State) -> tuple[WrappedKey, ...]:
        """Return the keys of the store. The first ones are a cell that is written once, and read until it is."""
        if state.keys is not None:
            return state.keys
        self._first_keys = self._first_keys or cells.first_keys(self._journal.cell(cells.KEYS))
        return self._first_keys

    def _deciding(self, state: State, link: Link | None) -> Deciding:
        return Deciding(state, self._keys(state), link)

    def _standing(self, state: State, key: ConfigKey) -> Cell | None:
        return drafts.standing(state, key, self._journal.cell(drafts.cell_name(key)))

    def _every_draft(self, session: Session) -> list[Cell]:
        """Return the drafts that there are."""
        found = list(self._journal.cells(drafts.PREFIX))
        return session.look(
            lambda state: [cell for cell in found if drafts.standing(state, drafts.read(cell).key, cell)]
        )


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


def _value(cell: Cell | None) -> bytes | None:
    return None if cell is None else cell.value
