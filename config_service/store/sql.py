"""The store of record in an SQL database: which statements make one transaction, and where it runs.

``statements`` has what is read and written, ``session`` the transactions; what is one database's own stands beside it.

Statements are plain SQLAlchemy Core and run on threads of the store: one that writes, a few that read. A transaction is
thus one hand-over between the event loop and a thread, however many statements it has. A commit so costs less than half
of what it costs statement by statement, whether the loop is busy or not. It also makes cancellation simple: a change
that a thread has begun is finished, one still waiting for its turn is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from config_client.protocol import Position

from ..domain.errors import StoreError
from ..domain.keys import ConfigKey
from ..domain.records import (
    BesideLog,
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
    Record,
    Savepoint,
    SchemaInfo,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from ..domain.sealing import NewKeys, Resealed, SealedPlace, SealedValue
from .database import Database, Listener
from .protocol import check_distinct
from .session import Session
from .sqlite import SqliteFile
from .statements import data_keys, drafts, history, savepoints, schemas, sealed, tokens, versions
from .statements.keys import FIRST, PAGE
from .statements.restoring import Restoring

T = TypeVar("T")
P = ParamSpec("P")


class SqlStore:
    """A ``ConfigStore`` in the database that ``url`` names: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or
    ``postgresql://user:password@host:5432/database``.

    Without ``create`` opening makes no store and migrates none. Raises StoreError when ``url`` names none that can be
    used.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._url = url
        self._create = create
        self._session: Session | None = None
        self._listener: Listener | None = None
        self._database = _database_of(url)

    @property
    def shared(self) -> bool:
        """Whether other processes may commit to this store while it is open."""
        return self._database.shared

    async def changed(self, timeout: float) -> None:
        """Return when another process may have committed something, after ``timeout`` seconds at the latest."""
        self._open_session()
        if self._listener is None:
            await asyncio.sleep(timeout)
        else:
            await self._listener.wait(timeout)

    async def open(self) -> None:
        """Open the store, creating or migrating it as needed, and take its lock. Opening twice is allowed.

        Raises StoreMissingError, StoreLockedError, StoreCorruptError or StoreError.
        """
        if self._session is None:
            self._database = _database_of(self._url)
            session = Session(self._database, create=self._create)
            try:
                await session.start()
            except BaseException:
                await session.end()
                raise
            self._session = session
            self._listener = self._database.listener()

    async def close(self) -> None:
        """Finish what is under way and release everything. Closing twice is allowed."""
        session, self._session = self._session, None
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        if session is not None:
            await session.end()

    async def position(self) -> Position:
        """Return the epoch and the newest revision."""
        return await self._read(history.position)

    async def head(self) -> Head:
        """Return epoch, newest revision and newest link, as of one moment."""
        return await self._read(history.head)

    async def beside_log(self) -> BesideLog:
        """Return what is kept beside the log. Changes nothing."""
        return await self._read(history.beside_log)

    async def seal_check(self, candidate: bytes) -> bytes:
        """Return the sealed check value of this store; a store that has none yet keeps ``candidate`` and returns it."""
        return await self._write(history.seal_check, candidate)

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        """Return at most ``limit`` entries with a revision above ``after``, in order."""
        return await self._read(history.entries, after, limit)

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        """Append a version; a draft that it publishes is gone with the same transaction.

        Raises VersionConflictError when ``change.base`` is not the newest version of its key; SchemaConflictError or
        DraftConflictError when ``change.schema`` or ``change.draft`` is given and not what there is.
        """
        return await self._write(versions.commit, change, link)

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        """Append several versions in one transaction: all of them or none, at consecutive revisions in their order.

        Raises what ``commit_version`` raises, and InvalidRequestError when a key comes twice.
        """
        check_distinct(changes)
        return await self._write(versions.commit_all, changes, link) if changes else []

    async def activate_version(self, key: ConfigKey, number: int, at: datetime, link: Link | None = None) -> Version:
        """Make version ``number``, published for later, the running one from ``at`` on, by a log entry of its own.

        Raises ScheduleConflictError when it does not wait for that any more.
        """
        return await self._write(versions.activate, key, number, at, link)

    async def cancel_schedule(
        self, key: ConfigKey, number: int, cancelled_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry:
        """Note that version ``number`` is never to run by itself. Raises ScheduleConflictError."""
        return await self._write(versions.cancel, key, number, cancelled_by, at, link)

    async def newest_versions(self) -> AsyncIterator[Version]:
        """Yield the newest version of every key, tombstones and those not served yet included, ordered by key.

        Each is the newest at the moment its page is read. A key that changes meanwhile is yielded once, so whoever also
        reads the log from a position taken before has missed nothing.
        """
        last: ConfigKey | None = FIRST
        while last is not None:
            page = await self._read(versions.newest_after, last)
            for version in page:
                yield version
            last = page[-1].key if len(page) == PAGE else None

    async def running_version(self, key: ConfigKey) -> Version | None:
        """Return the newest version of ``key`` that is served, tombstones included, or None."""
        return await self._read(versions.running, key)

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        """Return every version of ``key`` without its document, oldest first; empty when there is none."""
        return await self._read(versions.infos, key)

    async def version(self, key: ConfigKey, number: int) -> Version | None:
        """Return one version of ``key``, or None."""
        return await self._read(versions.find, key, number)

    async def draft(self, key: ConfigKey) -> Draft | None:
        """Return the draft of ``key``, or None."""
        return await self._read(drafts.find, key)

    async def drafts(self) -> AsyncIterator[Draft]:
        """Yield the draft of every key that has one, ordered by key. Each is as it is when its page is read."""
        last: ConfigKey | None = FIRST
        while last is not None:
            page = await self._read(drafts.after, last)
            for draft in page:
                yield draft
            last = page[-1].key if len(page) == PAGE else None

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        """Make ``after`` the draft of ``key``; None leaves it without one. Takes no revision.

        Raises DraftConflictError when the draft there is was not sealed as ``before`` (None: there is none).
        """
        await self._write(drafts.replace, key, before, after)

    async def commit_savepoint(self, change: NewSavepoint, link: Link | None = None) -> LogEntry:
        """Give a version a name, move the name, or remove it. Raises SavepointConflictError."""
        return await self._write(savepoints.commit, change, link)

    async def savepoints(self, key: ConfigKey) -> list[Savepoint]:
        """Return the savepoints of ``key``, by name."""
        return await self._read(savepoints.every, key)

    async def archive_versions(self, change: NewArchive, link: Link | None = None) -> LogEntry | None:
        """Remove the documents of those versions of ``change`` that may go; None when none may."""
        return await self._write(versions.archive, change, link)

    async def commit_schema(self, change: NewSchema, link: Link | None = None) -> StoredSchema:
        """Append a schema. Raises SchemaConflictError when ``change.base`` is not the newest one of its key."""
        return await self._write(schemas.commit, change, link)

    async def newest_schemas(self) -> AsyncIterator[StoredSchema]:
        """Yield the newest schema of every key that ever had one, removals included, ordered by key."""
        last: ConfigKey | None = FIRST
        while last is not None:
            page = await self._read(schemas.newest_after, last)
            for schema in page:
                yield schema
            last = page[-1].key if len(page) == PAGE else None

    async def schemas(self, key: ConfigKey) -> list[SchemaInfo]:
        """Return every schema of ``key`` without what it says, oldest first; empty when there is none."""
        return await self._read(schemas.infos, key)

    async def schema(self, key: ConfigKey, number: int) -> StoredSchema | None:
        """Return one schema of ``key``, which may be a removal, or None."""
        return await self._read(schemas.find, key, number)

    async def commit_token(self, token: NewToken, link: Link | None = None) -> tuple[StoredToken, LogEntry]:
        """Append a token; ids count from 1 and are never used again.

        Raises InvalidRequestError for a scope that has no spelling.
        """
        return await self._write(tokens.commit, token, link)

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        """Give a token other keys. Returns None when there is none of that id, or it is revoked.

        Raises KeyConflictError when ``rotation.base`` is not what its keys are.
        """
        return await self._write(tokens.rotate_keys, rotation, link)

    async def revoke_token(
        self, token_id: int, revoked_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry | None:
        """Mark a token revoked. Returns None when there is none of that id, or it is revoked already."""
        return await self._write(tokens.revoke, token_id, revoked_by, at, link)

    async def tokens(self) -> list[StoredToken]:
        """Return every token, revoked ones included, by id."""
        return await self._read(tokens.every)

    async def token(self, token_id: int) -> StoredToken | None:
        """Return one token, which may be revoked, or None."""
        return await self._read(tokens.find, token_id)

    async def restore(self, records: AsyncIterator[Record], epoch: str) -> Position:
        """Become the store that ``records`` tell, in ``epoch``, and return the position: all of it or nothing.

        Raises StoreNotEmptyError when there was ever a change or a draft here; whatever ``records`` raises; StoreError.
        """

        def fill(connection: Connection, batches: Iterator[list[Record]]) -> Position:
            restoring = Restoring(connection, epoch)
            for batch in batches:
                restoring.take(batch)
            return restoring.finish()

        return await self._open_session().write_all(records, fill)

    async def keys(self) -> tuple[WrappedKey, ...]:
        """Return every key of the store, by id; none before it was given its first ones."""
        return await self._read(data_keys.every)

    async def commit_keys(self, change: NewKeys, link: Link | None = None) -> LogEntry | None:
        """Put other keys in place; a revision and a log entry when ``change`` names its kind, else None.

        Raises KeysConflictError when ``change.base`` is not what the keys are.
        """
        return await self._write(data_keys.commit, change, link)

    async def sealed_values(self, after: SealedPlace | None, limit: int) -> list[SealedValue]:
        """Return about ``limit`` sealed values that come after ``after`` (None: from the first), in order."""
        return await self._read(sealed.after, after, limit)

    async def sealed_counts(self) -> dict[int, int]:
        """Return how many sealed values there are under each data key; 0 stands for values of format 1."""
        return await self._read(sealed.counts)

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        """Replace each value that is still as it was by the same sealed anew; return how many. Takes no revision.

        Raises SealingKeyError when one is sealed under another key than the active one; then none is replaced.
        """
        return await self._write(sealed.reseal, changes)

    async def _read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._open_session().read(lambda connection: work(connection, *args, **kwargs))

    async def _write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._open_session().write(lambda connection: work(connection, *args, **kwargs))

    def _open_session(self) -> Session:
        if self._session is None:
            raise StoreError("the store is not open; open it before use, and use it no more once it is closed")
        return self._session


def _database_of(url: str) -> Database:
    if not url.startswith(("postgresql:", "postgres:")):
        return SqliteFile.from_url(url)
    try:
        from .postgres import PostgresDatabase  # noqa: PLC0415 - an extra, which SQLite does without
    except ImportError:
        pass
    else:
        return PostgresDatabase.from_url(url)
    raise StoreError("a store on PostgreSQL needs psycopg: pip install 'python-config-client[server,postgresql]'")
