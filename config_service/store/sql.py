"""The store of record in an SQL database. Knows tables and transactions; what is one database's own stands beside it.

Statements are plain SQLAlchemy Core and run on threads of the store: one that writes, a few that read. A transaction is
thus one hand-over between the event loop and a thread, however many statements it has. A commit so costs less than half
of what it costs statement by statement, whether the loop is busy or not. It also makes cancellation simple: a change
that a thread has begun is finished, one still waiting for its turn is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import Connection, Executable, and_, bindparam, func, insert, select, tuple_, update

from config_client.protocol import Position, format_timestamp

from ..domain.errors import ServiceError, StoreError
from ..domain.keys import ConfigKey
from ..domain.records import (
    ChangeKind,
    KeyRotation,
    LogEntry,
    NewToken,
    NewVersion,
    StoredToken,
    Version,
    VersionInfo,
)
from . import migrations, rows
from .protocol import KeyConflictError, VersionConflictError
from .schema import history, log, tokens, versions
from .sqlite import SqliteFile

T = TypeVar("T")

_READERS: Final = 4
_PAGE: Final = 64
"""Versions read at a time, so that iterating holds some documents and no connection."""
_MAX_NUMBER: Final = 2**63 - 1
"""The largest integer of a database. Nothing larger is in it, and binding it would be an error."""

_KEY: Final = (versions.c.name, versions.c.environment, versions.c.label)
_OF_KEY: Final = and_(*(column == bindparam(f"of_{column.name}") for column in _KEY))

_NEXT_REVISION: Final = update(history).values(revision=history.c.revision + 1).returning(history.c.revision)
_NEXT_TOKEN: Final = (
    update(history)
    .values(revision=history.c.revision + 1, last_token_id=history.c.last_token_id + 1)
    .returning(history.c.revision, history.c.last_token_id)
)
_NEWEST: Final = select(func.coalesce(func.max(versions.c.version), 0)).where(_OF_KEY)
_REVOKE: Final = (
    update(tokens)
    .where(tokens.c.id == bindparam("of_id"), tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_LOG: Final = select(log).where(log.c.revision > bindparam("after")).order_by(log.c.revision).limit(bindparam("most"))
_VERSIONS: Final = (
    select(
        *(column for column in versions.c if column is not versions.c.document),
        versions.c.document.is_(None).label("deleted"),
    )
    .where(_OF_KEY)
    .order_by(versions.c.version)
)
_VERSION: Final = select(versions).where(_OF_KEY, versions.c.version == bindparam("number"))
_TOKENS: Final = select(tokens).order_by(tokens.c.id)
_TOKEN: Final = select(tokens).where(tokens.c.id == bindparam("of_id"))
_ROTATE: Final = (
    update(tokens)
    .where(tokens.c.id == bindparam("of_id"), tokens.c["keys"] == bindparam("base"), tokens.c.revoked_at.is_(None))
    .values(keys=bindparam("newest"))
)

_page = (
    select(*_KEY, func.max(versions.c.version).label("version"))
    .where(tuple_(*_KEY) > tuple_(*(bindparam(f"of_{column.name}", type_=column.type) for column in _KEY)))
    .group_by(*_KEY)
    .order_by(*_KEY)
    .limit(_PAGE)
    .subquery()
)
_NEWEST_PAGE: Final = (
    select(versions).join(_page, and_(*(versions.c[column.name] == column for column in _page.c))).order_by(*_KEY)
)


class SqlStore:
    """A ``ConfigStore`` in the database that ``url`` names: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    Raises StoreError when ``url`` names none that can be used.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: _Session | None = None
        SqliteFile.from_url(url)

    async def open(self) -> None:
        """Open the store, creating or migrating it as needed, and take its lock. Opening twice is allowed.

        Raises StoreLockedError, StoreCorruptError or StoreError.
        """
        if self._session is None:
            session = _Session(SqliteFile.from_url(self._url))
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

        def read(connection: Connection) -> Position:
            epoch, revision = connection.execute(select(history.c.epoch, history.c.revision)).one()
            return Position(epoch, revision)

        return await self._read(read)

    async def seal_check(self, candidate: bytes) -> bytes:
        """Return the sealed check value of this store; a store that has none yet keeps ``candidate`` and returns it."""

        def write(connection: Connection) -> bytes:
            connection.execute(update(history).where(history.c.seal_check.is_(None)).values(seal_check=candidate))
            kept: bytes = connection.execute(select(history.c.seal_check)).scalar_one()
            return kept

        return await self._write(write)

    async def commit_version(self, change: NewVersion) -> Version:
        """Append a version. Raises VersionConflictError when ``change.base`` is not the newest version of its key."""

        def write(connection: Connection) -> Version:
            revision = connection.execute(_NEXT_REVISION).scalar_one()
            newest = connection.execute(_NEWEST, _of(change.key)).scalar_one()
            if newest != change.base:
                raise VersionConflictError(change.key, change.base, newest)
            version = rows.committed_version(change, revision)
            entry = LogEntry(
                revision, change.kind, change.changed_by, change.timestamp, key=change.key, version=version.version
            )
            connection.execute(insert(log), rows.log_values(entry))
            connection.execute(insert(versions), rows.version_values(version))
            return version

        return await self._write(write)

    async def commit_token(self, token: NewToken) -> tuple[StoredToken, LogEntry]:
        """Append a token; ids count from 1 and are never used again.

        Raises InvalidRequestError for a scope that has no spelling.
        """

        def write(connection: Connection) -> tuple[StoredToken, LogEntry]:
            revision, token_id = connection.execute(_NEXT_TOKEN).one()
            stored = rows.committed_token(token, token_id)
            entry = LogEntry(revision, ChangeKind.TOKEN_CREATED, token.created_by, token.created_at, token_id=token_id)
            connection.execute(insert(tokens), rows.token_values(stored))
            connection.execute(insert(log), rows.log_values(entry))
            return stored, entry

        return await self._write(write)

    async def rotate_token_keys(self, rotation: KeyRotation) -> tuple[StoredToken, LogEntry] | None:
        """Give a token other keys. Returns None when there is none of that id, or it is revoked.

        Raises KeyConflictError when ``rotation.base`` is not what its keys are.
        """

        def write(connection: Connection) -> tuple[StoredToken, LogEntry] | None:
            row = connection.execute(_TOKEN, {"of_id": rotation.token_id}).mappings().first()
            if row is None or row["revoked_at"] is not None:
                return None
            stored = rows.read_token(row)
            # The condition on the very text that was read holds also where a transaction is not the only writer.
            change = {"of_id": stored.id, "base": row["keys"], "newest": rows.keys_text(rotation.keys)}
            if stored.keys != rotation.base or connection.execute(_ROTATE, change).rowcount == 0:
                raise KeyConflictError(rotation.token_id)
            revision = connection.execute(_NEXT_REVISION).scalar_one()
            entry = LogEntry(
                revision, ChangeKind.TOKEN_REKEYED, rotation.rotated_by, rotation.rotated_at, token_id=stored.id
            )
            connection.execute(insert(log), rows.log_values(entry))
            return replace(stored, keys=rotation.keys), entry

        return await self._write(write) if _is_number(rotation.token_id) else None

    async def revoke_token(self, token_id: int, revoked_by: int, at: datetime) -> LogEntry | None:
        """Mark a token revoked. Returns None when there is none of that id, or it is revoked already."""

        def write(connection: Connection) -> LogEntry | None:
            marked = connection.execute(_REVOKE, {"of_id": token_id, "at": format_timestamp(at)})
            if marked.rowcount == 0:
                return None
            revision = connection.execute(_NEXT_REVISION).scalar_one()
            entry = LogEntry(revision, ChangeKind.TOKEN_REVOKED, revoked_by, at, token_id=token_id)
            connection.execute(insert(log), rows.log_values(entry))
            return entry

        return await self._write(write) if _is_number(token_id) else None

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        """Return at most ``limit`` entries with a revision above ``after``, in order."""
        window = {"after": max(0, min(after, _MAX_NUMBER)), "most": max(0, min(limit, _MAX_NUMBER))}

        def read(connection: Connection) -> list[LogEntry]:
            return [rows.read_log_entry(row) for row in connection.execute(_LOG, window).mappings()]

        return await self._read(read)

    async def newest_versions(self) -> AsyncIterator[Version]:
        """Yield the newest version of every key, tombstones included, ordered by key.

        Each is the newest at the moment its page is read. A key that changes meanwhile is yielded once, so whoever also
        reads the log from a position taken before has missed nothing.
        """
        last: ConfigKey | None = ConfigKey("", "", "")
        while last is not None:
            page = await self._read_versions(_NEWEST_PAGE, _of(last))
            for version in page:
                yield version
            last = page[-1].key if len(page) == _PAGE else None

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        """Return every version of ``key`` without its document, oldest first; empty when there is none."""

        def read(connection: Connection) -> list[VersionInfo]:
            return [rows.read_version_info(row) for row in connection.execute(_VERSIONS, _of(key)).mappings()]

        return await self._read(read)

    async def version(self, key: ConfigKey, number: int) -> Version | None:
        """Return one version of ``key``, or None."""
        if not _is_number(number):
            return None
        found = await self._read_versions(_VERSION, {**_of(key), "number": number})
        return found[0] if found else None

    async def tokens(self) -> list[StoredToken]:
        """Return every token, revoked ones included, by id."""

        def read(connection: Connection) -> list[StoredToken]:
            return [rows.read_token(row) for row in connection.execute(_TOKENS).mappings()]

        return await self._read(read)

    async def token(self, token_id: int) -> StoredToken | None:
        """Return one token, which may be revoked, or None."""

        def read(connection: Connection) -> StoredToken | None:
            row = connection.execute(_TOKEN, {"of_id": token_id}).mappings().first()
            return None if row is None else rows.read_token(row)

        return await self._read(read) if _is_number(token_id) else None

    async def _read_versions(self, statement: Executable, values: dict[str, object]) -> list[Version]:
        def read(connection: Connection) -> list[Version]:
            return [rows.read_version(row) for row in connection.execute(statement, values).mappings()]

        return await self._read(read)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._open_session().read(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._open_session().write(work)

    def _open_session(self) -> _Session:
        if self._session is None:
            raise StoreError("the store is not open; open it before use, and use it no more once it is closed")
        return self._session


class _Session:
    """What a store holds between ``open`` and ``close``: the database, its connections and the threads they run on."""

    def __init__(self, database: SqliteFile) -> None:
        self._database = database
        self._writes = database.writing_engine()
        self._reads = database.reading_engine(_READERS)
        self._writer = ThreadPoolExecutor(1, "config-store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "config-store-reader")

    async def start(self) -> None:
        """Take the lock, see that the file is ours and whole, and bring its schema up to date."""
        await self._run(self._writer, self._prepare)

    async def end(self) -> None:
        """Finish what is under way, close every connection, give the lock back. Goes on when it is cancelled."""
        released = self._writer.submit(self._guarded, self._release)
        self._writer.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(released))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` reads. It sees every commit made before."""

        def run() -> T:
            with self._reads.connect() as connection:
                return work(connection)

        return await self._run(self._readers, run)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` returns once its transaction is durable; when it raises, nothing has happened."""

        def run() -> T:
            with self._writes.begin() as connection:
                return work(connection)

        return await self._run(self._writer, run)

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Run ``work``, turning what a library raises into a StoreError.

        Raises it outside the handler: the errors of SQLAlchemy and of drivers hold statements and parameters.
        """
        try:
            return work()
        except (ServiceError, VersionConflictError, KeyConflictError):
            raise
        except Exception as error:
            failure = self._database.failure(error)
        raise failure

    def _prepare(self) -> None:
        self._database.acquire()
        with self._reads.connect() as connection:
            current = self._database.admit(connection) and migrations.is_current(connection)
            self._database.prepare(connection)
        if not current:
            with self._database.migrating() as connection:
                migrations.upgrade(connection)
                if connection.execute(select(history.c.id)).first() is None:
                    connection.execute(insert(history).values(id=1, epoch=new_epoch(), revision=0, last_token_id=0))

    def _release(self) -> None:
        try:
            self._readers.shutdown()
            self._reads.dispose()
            self._writes.dispose()
        finally:
            self._database.release()


def new_epoch() -> str:
    """Return an epoch that begins now: 48 bits of milliseconds since 1970 and 48 random bits, as 24 hex characters."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


def _of(key: ConfigKey) -> dict[str, object]:
    return {f"of_{column}": value for column, value in rows.key_values(key).items()}


def _is_number(number: int) -> bool:
    return 0 < number <= _MAX_NUMBER
