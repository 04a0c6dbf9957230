"""The store of record in an SQL database. Knows tables and transactions; what is one database's own stands beside it.

Statements are plain SQLAlchemy Core and run on threads of the store: one that writes, a few that read. A transaction is
thus one hand-over between the event loop and a thread, however many statements it has. A commit so costs less than half
of what it costs statement by statement, whether the loop is busy or not. It also makes cancellation simple: a change
that a thread has begun is finished, one still waiting for its turn is dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from config_client.protocol import Position, format_timestamp

from ..domain.errors import StoreError
from ..domain.keys import ConfigKey
from ..domain.records import (
    ChangeKind,
    Draft,
    KeyRotation,
    LogEntry,
    NewSchema,
    NewToken,
    NewVersion,
    SchemaInfo,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
)
from . import rows
from .protocol import (
    DraftConflictError,
    KeyConflictError,
    SchemaConflictError,
    VersionConflictError,
)
from .schema import drafts, history, log, schemas, tokens, versions
from .session import Session
from .sqlite import SqliteFile

T = TypeVar("T")

_PAGE: Final = 64
"""Versions read at a time, so that iterating holds some documents and no connection."""
_MAX_NUMBER: Final = 2**63 - 1
"""The largest integer of a database. Nothing larger is in it, and binding it would be an error."""


def _key(table: Table) -> tuple[Column[str], ...]:
    return table.c.name, table.c.environment, table.c.label


def _is_key(table: Table) -> ColumnElement[bool]:
    return and_(*(column == bindparam(f"of_{column.key}") for column in _key(table)))


def _newest_page(table: Table, number: Column[int]) -> Select[Any]:
    """Return the statement for the rows with the highest ``number`` of the keys that come next, ordered by key."""
    key = _key(table)
    page = (
        select(*key, func.max(number).label("newest"))
        .where(tuple_(*key) > tuple_(*(bindparam(f"of_{column.key}", type_=column.type) for column in key)))
        .group_by(*key)
        .order_by(*key)
        .limit(_PAGE)
        .subquery()
    )
    same_key = (page.c[column.key] == column for column in key)
    return select(table).join(page, and_(number == page.c.newest, *same_key)).order_by(*key)


_OF_KEY: Final = _is_key(versions)

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
_NEWEST_PAGE: Final = _newest_page(versions, versions.c.version)

_DRAFT: Final = select(drafts).where(_is_key(drafts))
_REMOVE_DRAFT: Final = delete(drafts).where(_is_key(drafts), drafts.c.document == bindparam("before"))
_NEWEST_SCHEMA: Final = select(func.coalesce(func.max(schemas.c.number), 0)).where(_is_key(schemas))
_NEWEST_SCHEMAS: Final = _newest_page(schemas, schemas.c.number)
_SCHEMAS: Final = (
    select(
        *(column for column in schemas.c if column is not schemas.c.schema),
        schemas.c.schema.is_(None).label("removed"),
    )
    .where(_is_key(schemas))
    .order_by(schemas.c.number)
)
_SCHEMA: Final = select(schemas).where(_is_key(schemas), schemas.c.number == bindparam("wanted"))


class SqlStore:
    """A ``ConfigStore`` in the database that ``url`` names: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    Raises StoreError when ``url`` names none that can be used.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Session | None = None
        SqliteFile.from_url(url)

    async def open(self) -> None:
        """Open the store, creating or migrating it as needed, and take its lock. Opening twice is allowed.

        Raises StoreLockedError, StoreCorruptError or StoreError.
        """
        if self._session is None:
            session = Session(SqliteFile.from_url(self._url))
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
        """Append a version; a draft that it publishes is gone with the same transaction.

        Raises VersionConflictError when ``change.base`` is not the newest version of its key; SchemaConflictError or
        DraftConflictError when ``change.schema`` or ``change.draft`` is given and not what there is.
        """

        def write(connection: Connection) -> Version:
            revision = connection.execute(_NEXT_REVISION).scalar_one()
            newest = connection.execute(_NEWEST, _of(change.key)).scalar_one()
            if newest != change.base:
                raise VersionConflictError(change.key, change.base, newest)
            if change.schema is not None:
                _require_schema(connection, change.key, change.schema)
            if change.draft is not None:
                _remove_draft(connection, change.key, change.draft)
            version = rows.committed_version(change, revision)
            entry = LogEntry(
                revision, change.kind, change.changed_by, change.timestamp, key=change.key, version=version.version
            )
            connection.execute(insert(log), rows.log_values(entry))
            connection.execute(insert(versions), rows.version_values(version))
            return version

        return await self._write(write)

    async def commit_schema(self, change: NewSchema) -> StoredSchema:
        """Append a schema. Raises SchemaConflictError when ``change.base`` is not the newest one of its key."""

        def write(connection: Connection) -> StoredSchema:
            revision = connection.execute(_NEXT_REVISION).scalar_one()
            _require_schema(connection, change.key, change.base)
            schema = rows.committed_schema(change, revision)
            entry = LogEntry(
                revision, change.kind, change.changed_by, change.timestamp, key=change.key, schema=schema.number
            )
            connection.execute(insert(log), rows.log_values(entry))
            connection.execute(insert(schemas), rows.schema_values(schema))
            return schema

        return await self._write(write)

    async def draft(self, key: ConfigKey) -> Draft | None:
        """Return the draft of ``key``, or None."""

        def read(connection: Connection) -> Draft | None:
            row = connection.execute(_DRAFT, _of(key)).mappings().first()
            return None if row is None else rows.read_draft(row)

        return await self._read(read)

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        """Make ``after`` the draft of ``key``; None leaves it without one. Takes no revision.

        Raises DraftConflictError when the draft there is was not sealed as ``before`` (None: there is none).
        """

        def write(connection: Connection) -> None:
            # Taking the lock of the one row makes this transaction the only writer, in any database.
            connection.execute(update(history).values(revision=history.c.revision))
            if before is not None:
                _remove_draft(connection, key, before)
            elif connection.execute(_DRAFT, _of(key)).first() is not None:
                raise DraftConflictError(key)
            if after is not None:
                connection.execute(insert(drafts), rows.draft_values(after))

        await self._write(write)

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

    async def newest_schemas(self) -> AsyncIterator[StoredSchema]:
        """Yield the newest schema of every key that ever had one, removals included, ordered by key."""
        last: ConfigKey | None = ConfigKey("", "", "")
        while last is not None:
            page = await self._read_schemas(_NEWEST_SCHEMAS, _of(last))
            for schema in page:
                yield schema
            last = page[-1].key if len(page) == _PAGE else None

    async def schemas(self, key: ConfigKey) -> list[SchemaInfo]:
        """Return every schema of ``key`` without what it says, oldest first; empty when there is none."""

        def read(connection: Connection) -> list[SchemaInfo]:
            return [rows.read_schema_info(row) for row in connection.execute(_SCHEMAS, _of(key)).mappings()]

        return await self._read(read)

    async def schema(self, key: ConfigKey, number: int) -> StoredSchema | None:
        """Return one schema of ``key``, which may be a removal, or None."""
        if not _is_number(number):
            return None
        found = await self._read_schemas(_SCHEMA, {**_of(key), "wanted": number})
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

    async def _read_schemas(self, statement: Executable, values: dict[str, object]) -> list[StoredSchema]:
        def read(connection: Connection) -> list[StoredSchema]:
            return [rows.read_schema(row) for row in connection.execute(statement, values).mappings()]

        return await self._read(read)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._open_session().read(work)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._open_session().write(work)

    def _open_session(self) -> Session:
        if self._session is None:
            raise StoreError("the store is not open; open it before use, and use it no more once it is closed")
        return self._session


def _require_schema(connection: Connection, key: ConfigKey, number: int) -> None:
    newest = connection.execute(_NEWEST_SCHEMA, _of(key)).scalar_one()
    if newest != number:
        raise SchemaConflictError(key, number, newest)


def _remove_draft(connection: Connection, key: ConfigKey, sealed: bytes) -> None:
    if connection.execute(_REMOVE_DRAFT, {**_of(key), "before": sealed}).rowcount == 0:
        raise DraftConflictError(key)


def _of(key: ConfigKey) -> dict[str, object]:
    return {f"of_{column}": value for column, value in rows.key_values(key).items()}


def _is_number(number: int) -> bool:
    return 0 < number <= _MAX_NUMBER
